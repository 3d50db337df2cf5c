# SPDX-License-Identifier: Apache-2.0
"""Tasks that take their time before they listen."""

from __future__ import annotations

import pytest

from .traffic import CLIENT
from .world import World

SLOW = ("--listen-delay-ms", "400")


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_an_update_to_slow_starters_fails_no_request(world: World, order: str) -> None:
    """No health check: Swarm takes a task for running long before it answers."""
    network = world.network("overlay1")
    inside = world.idle("client", network, "node3")
    # All old tasks of a start-first update leave while all new ones are starting.
    options = [f"--update-order={order}", "--restart-delay=0s"]
    options += [f"--update-parallelism={2 if order == 'start-first' else 1}"]
    world.service(
        "vote", *SLOW, replicas=2, networks=[network], publish=["8080:80"], options=options
    )
    world.wait_ready("vote", 2, "node3")
    before = {task.host for task in world.tasks("vote")}
    target = f"{world.vip('vote', network)}:80"
    with (
        world.load.background(CLIENT, *world.every_node(8080)) as outside,
        world.load.background(inside.place, target) as mesh,
    ):
        world.update("vote", "--force")
        world.wait_replaced("vote", before, 2)
        world.wait_ready("vote", 2, "node3")
        for client in (outside, mesh):
            client.stop().assert_none_failed()
