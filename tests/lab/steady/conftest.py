# SPDX-License-Identifier: Apache-2.0
"""Services that stay as they are, for all tests in here: these only send packets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from ..conftest import Session, world_in
from ..traffic import CLIENT, Place
from ..world import Task, World, on


class Steady(NamedTuple):
    """`vote` on node1 and node2, with a VIP and a port; a client inside on node1 and on node3."""

    world: World
    tasks: list[Task]
    vip: str
    mesh: list[str]
    near: Task
    far: Task

    @property
    def ways(self) -> list[tuple[Place, str]]:
        """Each place to ask from, and what to ask there."""
        return [
            *((CLIENT, target) for target in self.mesh),
            (self.near.place, self.vip),
            (self.far.place, self.vip),
        ]

    @property
    def hosts(self) -> set[str]:
        return {task.host for task in self.tasks}


@pytest.fixture(scope="package")
def services(session: Session) -> Iterator[Steady]:
    session.agents.use()
    with world_in(session) as world:
        network = world.network("steady")
        near, far = world.idle("near", network, "node1"), world.idle("far", network, "node3")
        world.service(
            "vote",
            replicas=2,
            networks=[network],
            publish=["8080:80", "8080:80/udp"],
            options=[*on("node1", "node2"), "--ulimit=nofile=20000:20000"],
        )
        world.wait_ready("vote", 2, "node1", "node3")
        vip = f"{world.vip('vote', network)}:80"
        yield Steady(world, world.tasks("vote"), vip, world.every_node(8080), near, far)


@pytest.fixture
def steady(session: Session, services: Steady) -> Steady:
    session.agents.use()
    return services
