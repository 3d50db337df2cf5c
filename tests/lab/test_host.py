# SPDX-License-Identifier: Apache-2.0
"""Published ports asked from the nodes themselves, and from containers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import Session, world_in
from .traffic import Place
from .world import Task, World, on

NODES = ["node1", "node2", "node3"]


@pytest.fixture(scope="module")
def vote(session: Session) -> Iterator[list[Task]]:
    """Two tasks on two of three nodes, in no network of their own."""
    session.agents.use()
    publish = ["8080:80", "8080:80/udp"]
    with world_in(session) as world:
        world.service("vote", replicas=2, publish=publish, options=on("node1", "node2"))
        yield world.tasks("vote")


def test_nodes_ask_themselves_and_each_other(world: World, vote: list[Task]) -> None:
    hosts = {task.host for task in vote}
    for node in NODES:
        for target in ("127.0.0.1:8080", *world.every_node(8080)):
            seen = world.load.http(Place(node), target, count=100).assert_none_failed()
            assert seen.host.keys() == hosts, (node, target)
            assert seen.local_port == {"80": 100}
            assert seen.asked == {target: 100}


@pytest.mark.parametrize("connected", [False, True])
def test_nodes_ask_over_udp(world: World, vote: list[Task], connected: bool) -> None:
    hosts = {task.host for task in vote}
    for node in NODES:
        for target in ("127.0.0.1:8080", *world.every_node(8080)):
            pairs = world.load.udp(Place(node), target, count=500, connected=connected)
            assert (pairs.lost, pairs.wrong) == (0, 0), (node, target)
            assert pairs.host.keys() == hosts, (node, target)


@pytest.mark.parametrize("node", NODES)
def test_containers_ask_every_node(world: World, vote: list[Task], node: str) -> None:
    """Their own node too, where the backend may be beside them or on another node."""
    client = world.idle("client", world.network("overlay1"), node).place
    assert_all_served(world, client, vote)


def test_a_task_asks_the_port_that_it_serves(world: World, vote: list[Task]) -> None:
    assert_all_served(world, vote[0].place, vote)


def assert_all_served(world: World, client: Place, vote: list[Task]) -> None:
    hosts = {task.host for task in vote}
    for target in world.every_node(8080):
        seen = world.load.http(client, target, count=100).assert_none_failed()
        assert seen.host.keys() == hosts, target
        assert seen.asked == {target: 100}
        pairs = world.load.udp(client, target, count=500)
        assert (pairs.lost, pairs.wrong) == (0, 0), target
        assert pairs.host.keys() == hosts, target
