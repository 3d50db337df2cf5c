# SPDX-License-Identifier: Apache-2.0
"""Many connections at once: from one range of ports, and beside a flood of forged ones."""

from __future__ import annotations

import pytest

from ebpfmesh.lab.plan import CLIENT_ADDRESS

from ..traffic import CLIENT
from .conftest import Steady

CROWD = 10_000
FLOOD = 20_000
HELD = 50


def test_ten_thousand_connections_from_one_range_of_ports(steady: Steady) -> None:
    """All open at once, through three nodes to two tasks: many meet in one 4-tuple there."""
    count = -(-CROWD // 3)
    seen = steady.world.load.collide(CLIENT, *steady.mesh, source_port=22000, count=count, uses=1)
    assert seen.assert_none_failed().ok == count * 3
    assert seen.peer == {CLIENT_ADDRESS: count * 3}
    assert seen.host.keys() == steady.hosts


@pytest.mark.parametrize("target", range(3))
def test_a_flood_of_syns_breaks_no_connection(steady: Steady, target: int) -> None:
    """Their sources are nobody's: no answer gets farther than this LAN."""
    with steady.world.corners.kept(CLIENT, *steady.mesh, count=HELD) as kept:
        assert set(kept.opened) == steady.hosts
        steady.world.corners.flood(CLIENT, steady.mesh[target], FLOOD)
        assert kept.says() == kept.opened
    steady.world.load.http(CLIENT, *steady.mesh, count=50).assert_none_failed()
