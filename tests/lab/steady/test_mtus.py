# SPDX-License-Identifier: Apache-2.0
"""Nodes on one link whose MTUs differ, and no router between them to tell of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from ebpfmesh.lab.lab import Lab
from ebpfmesh.lab.plan import Place
from ebpfmesh.lab.wire import pass_every_frame

from ..traffic import CLIENT, MB
from .conftest import Steady

SIZE = 50 * MB
MTUS = {"node1": 9000, "node2": 1500, "node3": 1400, "client": 9000}
USUAL = dict.fromkeys(MTUS, 1500)


def set_mtus(lab: Lab, mtus: Mapping[str, int]) -> None:
    """At both ends of each cable: neither takes in what the other could not send."""
    for name, mtu in mtus.items():
        lab.run(Place.LAN, ["ip", "link", "set", name, "xdp", "off"])
        lab.run(Place.LAN, ["ip", "link", "set", name, "mtu", str(mtu)])
        lab.run(name, ["ip", "link", "set", "eth0", "mtu", str(mtu)])


@pytest.fixture
def mixed(steady: Steady) -> Iterator[Steady]:
    """Generic XDP, as a veth with XDP in its driver takes no jumbo frames."""
    lab, agents = steady.world.lab, steady.world.agents
    agents.use(xdp="generic")
    try:
        set_mtus(lab, MTUS)
        agents.restart()
        yield steady
    finally:
        set_mtus(lab, USUAL)
        pass_every_frame(Place.LAN, list(MTUS))
        agents.use()


def test_bulk_through_nodes_of_different_mtus(mixed: Steady) -> None:
    """Tasks are on node1 and node2; node3 has the least room of all."""
    for target in mixed.mesh:
        for _ in mixed.tasks:
            mixed.world.load.bulk(CLIENT, target, SIZE).assert_intact(SIZE)
