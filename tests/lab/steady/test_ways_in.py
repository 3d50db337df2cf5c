# SPDX-License-Identifier: Apache-2.0
"""Addresses, NICs and bridges by which a published port is reached, beside the LAN's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ebpfmesh.lab import images
from ebpfmesh.lab.processes import wait_until

from ..station import ADDRESS, ROUTER, station_at
from ..traffic import CLIENT, MB, Place
from .conftest import Steady

NODES = ["node1", "node2", "node3"]
ADDED = "192.0.2.50"
TIMEOUT_S = 30


def assert_served(steady: Steady, place: Place, target: str) -> None:
    """Over TCP and both kinds of UDP; the answers come from what was asked."""
    load = steady.world.load
    seen = load.http(place, target, count=60).assert_none_failed()
    assert seen.host.keys() == steady.hosts
    assert seen.asked == {target: 60}
    for connected in (False, True):
        pairs = load.udp(place, target, count=200, connected=connected)
        assert (pairs.lost, pairs.wrong) == (0, 0), (place, target, connected)
        assert pairs.host.keys() == steady.hosts


def wait_served(steady: Steady, place: Place, target: str) -> None:
    load = steady.world.load
    assert wait_until(lambda: load.http(place, target).failed == 0, TIMEOUT_S, 0.1)


@pytest.mark.parametrize("node", ["node1", "node3"])
def test_an_address_that_is_added(steady: Steady, node: str) -> None:
    target = f"{ADDED}:8080"
    change = ["ip", "address", "add", f"{ADDED}/24", "dev", "eth0"]
    steady.world.lab.run(node, change)
    try:
        for place in (CLIENT, *map(Place, NODES), steady.near.place, steady.far.place):
            wait_served(steady, place, target)
            assert_served(steady, place, target)
    finally:
        steady.world.lab.run(node, ["del" if word == "add" else word for word in change])
        for name in ("client", *NODES):
            steady.world.lab.run(name, ["ip", "neighbour", "flush", "to", ADDED])


@pytest.mark.parametrize("node", ["node1", "node3"])
def test_a_second_nic(steady: Steady, node: str) -> None:
    with station_at(steady.world.lab, node) as station:
        target = f"{ROUTER}:8080"
        wait_served(steady, station.place, target)
        assert_served(steady, station.place, target)
        seen = steady.world.load.http(station.place, target, count=60)
        assert seen.peer == {ADDRESS: 60}
        steady.world.load.bulk(station.place, target, 20 * MB).assert_intact(20 * MB)
        assert_served(steady, Place(node), target)


@contextmanager
def container(steady: Steady, node: str, *options: str) -> Iterator[Place]:
    """A plain one, not of the Swarm."""
    lab = steady.world.lab
    made = lab.docker(node, "run", "--detach", *options, images.BUSYBOX)
    try:
        yield steady.world.place(node, made)
    finally:
        lab.docker(node, "rm", "--force", made)


@pytest.mark.parametrize("node", ["node1", "node3"])
def test_containers_of_the_default_bridge(steady: Steady, node: str) -> None:
    with container(steady, node) as place:
        for target in steady.mesh:
            wait_served(steady, place, target)
            assert_served(steady, place, target)


@pytest.mark.parametrize("node", ["node1", "node3"])
def test_containers_of_a_bridge_of_their_own(steady: Steady, node: str) -> None:
    lab = steady.world.lab
    lab.docker(node, "network", "create", "own")
    try:
        with container(steady, node, "--network=own") as place:
            for target in steady.mesh:
                wait_served(steady, place, target)
                assert_served(steady, place, target)
    finally:
        lab.docker(node, "network", "rm", "own")


@pytest.mark.parametrize("host", ["[::1]", "[::ffff:127.0.0.1]", "localhost"])
def test_a_nodes_own_processes_by_ipv6(steady: Steady, host: str) -> None:
    for node in NODES:
        hosts = set()
        for _ in range(20):
            curl = ["curl", "-gsSf", "-m", "10", f"http://{host}:8080/"]
            hosts.add(json.loads(steady.world.lab.run(node, curl).stdout)["host"])
        assert hosts == steady.hosts, node
