# SPDX-License-Identifier: Apache-2.0
"""The mesh where the driver has no XDP, and where there is none at all: tc does it."""

from __future__ import annotations

from ebpfmesh.lab.plan import CLIENT_ADDRESS

from .traffic import CLIENT, MB
from .world import World, on


def test_the_mesh_works_without_native_xdp(world: World, xdp: str) -> None:
    for node in world.agents.nodes:
        assert world.agents.status(node).datapath.xdp == xdp
    world.service("vote", replicas=2, publish=["8080:80", "8080:80/udp"], options=on("node1"))
    targets = world.every_node(8080)
    seen = world.load.http(CLIENT, *targets, count=300).assert_none_failed()
    assert seen.peer == {CLIENT_ADDRESS: 900}
    pairs = world.load.udp(CLIENT, *targets, count=3000)
    assert (pairs.lost, pairs.wrong) == (0, 0)
    for target in targets:
        world.load.bulk(CLIENT, target, 20 * MB).assert_intact(20 * MB)
