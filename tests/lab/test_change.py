# SPDX-License-Identifier: Apache-2.0
"""Services change while requests run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from .traffic import CLIENT, Background
from .world import Task, World

HEALTH = [
    "--health-cmd=/bin/echo-server check",
    "--health-interval=1s",
    "--health-timeout=1s",
    "--health-retries=1",
]


class Vote(NamedTuple):
    vip: str
    inside: Task


@pytest.fixture
def vote(world: World) -> Vote:
    network = world.network("overlay1")
    inside = world.idle("client", network, "node3")
    options = [*HEALTH, "--restart-delay=0s", "--update-order=start-first"]
    world.service("vote", replicas=3, networks=[network], publish=["8080:80"], options=options)
    world.wait_ready("vote", 3, "node3")
    return Vote(world.vip("vote", network), inside)


@contextmanager
def traffic(world: World, vote: Vote) -> Iterator[tuple[Background, Background]]:
    mesh = world.every_node(8080)
    with (
        world.load.background(CLIENT, *mesh) as outside,
        world.load.background(vote.inside.place, f"{vote.vip}:80") as inside,
    ):
        yield outside, inside


def test_scaling_both_ways_fails_no_request(world: World, vote: Vote) -> None:
    with traffic(world, vote) as clients:
        for count in (5, 1, 3):
            world.scale("vote", count)
            world.wait_ready("vote", count, "node3")
        for client in clients:
            client.stop().assert_none_failed()
    hosts = {task.host for task in world.tasks("vote")}
    seen = world.load.http(CLIENT, *world.every_node(8080), count=100).assert_none_failed()
    assert seen.host.keys() == hosts


def test_an_update_fails_no_request(world: World, vote: Vote) -> None:
    before = {task.host for task in world.tasks("vote")}
    with traffic(world, vote) as clients:
        world.update("vote", "--force")
        world.wait_replaced("vote", before, 3)
        world.wait_ready("vote", 3, "node3")
        for client in clients:
            client.stop().assert_none_failed()


def test_an_unhealthy_task_is_replaced_unnoticed(world: World, vote: Vote) -> None:
    sick = world.tasks("vote")[0]
    with traffic(world, vote) as clients:
        world.lab.docker(sick.node, "exec", sick.container, "touch", "/tmp/unhealthy")  # noqa: S108
        world.wait_replaced("vote", {sick.host}, 3)
        world.wait_ready("vote", 3, "node3")
        for client in clients:
            client.stop().assert_none_failed()
    assert world.vip("vote", "overlay1") == vote.vip


def test_a_task_that_dies_is_replaced(world: World, vote: Vote) -> None:
    """What was just being asked of it fails with it; nothing after that."""
    dead = world.tasks("vote")[0]
    world.lab.docker(dead.node, "kill", dead.container)
    world.wait_replaced("vote", {dead.host}, 3)
    world.wait_ready("vote", 3, "node3")
    assert world.vip("vote", "overlay1") == vote.vip
    seen = world.load.http(CLIENT, *world.every_node(8080), count=100).assert_none_failed()
    assert dead.host not in seen.host
    assert len(seen.host) == 3
    world.load.http(vote.inside.place, f"{vote.vip}:80", count=100).assert_none_failed()
