# SPDX-License-Identifier: Apache-2.0
"""Packets of every size: links whose MTUs differ, and ways that are narrower than both ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ebpfmesh.lab.plan import Place as LabPlace
from ebpfmesh.lab.wire import pass_every_frame

from ..corners import PathMtu
from ..station import LINK, NETWORK, behind_the_client
from ..traffic import CLIENT, MB
from .conftest import Steady

SIZE = 50 * MB
DATAGRAM = 8000
IP_UDP = 28
TUNNEL = 50
MTU = 1500


@contextmanager
def client_mtu(steady: Steady, mtu: int) -> Iterator[None]:
    """Both ends of the client's cable. A veth with XDP at the other end takes no jumbo frames."""
    lab = steady.world.lab

    def change(to: int) -> None:
        lab.run("lan", ["ip", "link", "set", "client", "xdp", "off"])
        lab.run("lan", ["ip", "link", "set", "client", "mtu", str(to)])
        lab.run("client", ["ip", "link", "set", "eth0", "mtu", str(to)])

    change(mtu)
    try:
        yield
    finally:
        change(MTU)
        pass_every_frame(LabPlace.LAN, ["client"])


@pytest.mark.parametrize("mtu", [9000, 1400])
def test_bulk_to_a_client_of_another_mtu(steady: Steady, mtu: int) -> None:
    with client_mtu(steady, mtu):
        for target in steady.mesh:
            steady.world.load.bulk(CLIENT, target, SIZE).assert_intact(SIZE)


def test_datagrams_in_fragments(steady: Steady) -> None:
    """They arrive whole, and so do their answers, from tasks here and elsewhere."""
    for place, target in steady.ways:
        pairs = steady.world.load.udp(place, target, count=200, sockets=20, size=DATAGRAM)
        assert (pairs.lost, pairs.wrong) == (0, 0), target
        assert set(pairs.host) == steady.hosts


def test_a_datagram_too_big_for_the_tunnel_is_refused_once(steady: Steady) -> None:
    """From node3 every task is elsewhere."""
    before = too_big(steady)
    try:
        found = steady.world.corners.path_mtu(CLIENT, steady.mesh[2], MTU - IP_UDP)
        assert found == PathMtu(MTU - TUNNEL, "EMSGSIZE")
        assert too_big(steady) == before + 1
    finally:
        steady.world.lab.run("client", ["ip", "route", "flush", "cache"])


@pytest.mark.parametrize("node", range(3))
def test_a_router_that_has_less_room_is_heeded(steady: Steady, node: int) -> None:
    """Behind it nobody knows of that: it has to tell the task, which asks for all of 1500."""
    lab = steady.world.lab
    with behind_the_client(lab) as station:
        narrow = ["ip", "route", "replace", NETWORK, "dev", LINK]
        lab.run("client", [*narrow, "mtu", "lock", "1300"])
        for task in steady.tasks:
            lab.run(task.node, task.place.argv(["ip", "route", "flush", "cache"]))
        before = told(steady)
        steady.world.load.bulk(station.place, steady.mesh[node], SIZE).assert_intact(SIZE)
        assert told(steady) > before


def too_big(steady: Steady) -> int:
    return steady.world.agents.status("node3").drops.get("too_big", 0)


def told(steady: Steady) -> int:
    """How often the client, as a router, has said that a packet does not go on."""
    line = steady.world.lab.run("client", ["nstat", "-asz", "IcmpOutDestUnreachs"]).stdout
    return int(line.split()[-2])
