# SPDX-License-Identifier: Apache-2.0
"""Published ports from outside the Swarm, in both return modes."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, ip_address

import pytest

from ebpfmesh.lab.plan import CLIENT_ADDRESS, plan_nodes

from .conftest import Session, world_in
from .traffic import CLIENT, MB, Http
from .world import Task, World, assert_shares, on

REQUESTS = 1000
PAIRS = 10_000
SURROGATES = IPv4Network("240.0.0.0/5")


@pytest.fixture(scope="module")
def vote(session: Session, return_mode: str) -> Iterator[list[Task]]:
    """Two tasks on two of three nodes."""
    publish = ["8080:80", "8080:80/udp"]
    with world_in(session) as world:
        world.service("vote", replicas=2, publish=publish, options=on("node1", "node2"))
        yield world.tasks("vote")


def test_every_node_balances_and_the_task_sees_the_client(world: World, vote: list[Task]) -> None:
    seen: dict[str, Http] = {}
    for target in world.every_node(8080):
        seen[target] = world.load.http(CLIENT, target, count=REQUESTS).assert_none_failed()
        assert seen[target].ok == REQUESTS
        assert seen[target].peer == {CLIENT_ADDRESS: REQUESTS}
        assert seen[target].local_port == {"80": REQUESTS}
        assert_shares(seen[target].host, vote)


def test_bulk_is_intact_from_local_and_remote_tasks(world: World, vote: list[Task]) -> None:
    local = {task.host: task.node for task in vote}
    for node in ("node1", "node3"):
        target = f"{world.address(node)}:8080"
        met: set[bool] = set()
        wanted = {True, False} if node == "node1" else {False}
        for _ in range(20):
            answer = world.load.bulk(CLIENT, target, 50 * MB)
            answer.assert_intact(50 * MB)
            met.add(local[answer.host] == node)
            if met == wanted:
                break
        assert met == wanted


def test_udp_loses_nothing_and_answers_from_the_address_asked(
    world: World, vote: list[Task]
) -> None:
    targets = world.every_node(8080)
    for connected in (False, True):
        pairs = world.load.udp(CLIENT, *targets, count=PAIRS, connected=connected, sockets=60)
        assert (pairs.lost, pairs.wrong) == (0, 0)
        assert pairs.peer == {CLIENT_ADDRESS: PAIRS}
        assert pairs.host.keys() == {task.host for task in vote}


def test_one_source_port_through_two_nodes_at_once(world: World, vote: list[Task]) -> None:
    targets = world.every_node(8080)[:2]
    seen = world.load.collide(CLIENT, *targets, source_port=20000, count=200)
    seen.assert_none_failed()
    assert seen.ok == 200 * 2 * 2
    assert seen.peer == {CLIENT_ADDRESS: seen.ok}


def test_clients_by_ipv6(world: World, vote: list[Task]) -> None:
    """The tasks, here and on other nodes, see an address that stands for the client's."""
    for node in plan_nodes(3, 1):
        target = f"[{node.address6}]:8080"
        seen = world.load.http(CLIENT, target, count=60).assert_none_failed()
        assert seen.host.keys() == {task.host for task in vote}
        assert all(ip_address(peer) in SURROGATES for peer in seen.peer)
        for connected in (False, True):
            pairs = world.load.udp(CLIENT, target, count=200, connected=connected)
            assert (pairs.lost, pairs.wrong) == (0, 0)
            assert pairs.host.keys() == {task.host for task in vote}
            assert pairs.peer.keys() == seen.peer.keys()
        world.load.bulk(CLIENT, target, MB).assert_intact(MB)
