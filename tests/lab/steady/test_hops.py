# SPDX-License-Identifier: Apache-2.0
"""What a traceroute shows, by the way that it goes: probes of TTL 1, 2 and so on."""

from __future__ import annotations

from ..corners import Hops
from ..station import ROUTER, behind_the_client
from .conftest import Steady


def test_to_a_published_port_the_node_is_the_last_hop(steady: Steady) -> None:
    """By the address that was asked, wherever the task is; the router before it stays itself."""
    ways = [[ROUTER, target.partition(":")[0]] for target in steady.mesh]
    with behind_the_client(steady.world.lab) as station:
        assert steady.world.corners.hops(station.place, *steady.mesh) == Hops(ways, ways)


def test_a_vip_is_on_the_link(steady: Steady) -> None:
    for task in (steady.near, steady.far):
        assert steady.world.corners.hops(task.place, steady.vip) == Hops([[]], [[]])
