# SPDX-License-Identifier: Apache-2.0
"""What a packet of a known flow does not ask for is right all the same."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ebpfmesh.datapath.maps import Maps
from ebpfmesh.model import Frontend, FrontendKey, FrontendKind, PoolKey, Protocol

from .net import (
    CLIENT,
    FROM_CLIENT,
    NODE_A,
    NODE_B,
    NODE_B_MAC,
    NODE_C,
    NODE_C_MAC,
    PUBLISHED,
    TARGET,
    THERE,
    tcp,
    udp,
)
from .node import XDP_DROP, XDP_PASS, XDP_TX, Node
from .world import SECOND, Service, be32, remote

SOURCE, ENTRY = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}"
ALSO_THERE = "10.0.0.7"
OTHER_MAC = "02:00:00:00:00:bb"
BALANCED = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
_HOUR_NS = 3600 * SECOND


@pytest.fixture
def web(node: Node) -> Service:
    """With a flow that is known."""
    made = node.port(PUBLISHED, TARGET).backends(remote(THERE))
    assert node.nic_xdp(packet("S")).verdict == XDP_TX
    return made


def packet(flags: str = "A") -> Packet:
    return tcp(SOURCE, ENTRY, flags, macs=FROM_CLIENT)


def published(protocol: Protocol = Protocol.TCP, *, restricted: bool = False) -> Frontend:
    key = FrontendKey(0, "0.0.0.0", PUBLISHED, protocol)
    return Frontend(
        key, FrontendKind.PORT, PoolKey("web", 1), target_port=TARGET, restricted=restricted
    )


def open_protocols(node: Node) -> set[Protocol]:
    byte = node.table("open_ports")[ctypes.c_uint32(PUBLISHED)].value
    return {one for one in BALANCED if byte & 1 << (int(one) & 7)}


def beyond_ticks(node: Node) -> int:
    return int(node.table("beyond_ticks")[ctypes.c_uint32(0)].value)


def put_beyond_ticks(node: Node, value: int) -> None:
    table = node.table("beyond_ticks")
    table[ctypes.c_uint32(0)] = ctypes.c_uint64(value)


def test_port_that_is_published_no_more_is_the_kernels(node: Node, web: Service) -> None:
    assert node.nic_xdp(packet()).verdict == XDP_TX
    node.maps.delete_frontend(published().key)
    assert node.nic_xdp(packet()).verdict == XDP_PASS


def test_list_of_allowed_clients_holds_at_once(node: Node, web: Service) -> None:
    node.maps.put_frontend(published(restricted=True), web.frontend, web.pool)
    assert node.nic_xdp(packet()).verdict == XDP_DROP
    node.maps.put_frontend(published(), web.frontend, web.pool)
    assert node.nic_xdp(packet()).verdict == XDP_TX


def test_ports_without_a_list_are_open_each_for_its_protocol(node: Node) -> None:
    for protocol in BALANCED:
        node.maps.put_frontend(published(protocol), 1, 1)
    assert open_protocols(node) == set(BALANCED)
    node.maps.put_frontend(published(Protocol.UDP, restricted=True), 1, 1)
    assert open_protocols(node) == {Protocol.TCP, Protocol.SCTP}
    node.maps.delete_frontend(published(Protocol.SCTP).key)
    assert open_protocols(node) == {Protocol.TCP}


def test_open_port_is_said_again(node: Node) -> None:
    node.maps.open_port(published())
    node.maps.open_port(published(Protocol.UDP, restricted=True))
    assert open_protocols(node) == {Protocol.TCP}
    node.maps.delete_frontend(published().key)


def test_backend_on_another_node_has_another_next_hop(node: Node, web: Service) -> None:
    first = Ether(node.nic_xdp(packet()).data).dst
    node.set_backend(web.ids[THERE], vtep=be32(NODE_C))
    assert (first, Ether(node.nic_xdp(packet()).data).dst) == (NODE_B_MAC, NODE_C_MAC)


@contextmanager
def neighbour(change: str) -> Iterator[None]:
    """Another one in place of node B; then it is as before."""
    ip("neigh", *change.split(), "dev", "nic0")
    try:
        yield
    finally:
        ip("neigh", *f"replace {NODE_B} lladdr {NODE_B_MAC} nud permanent".split(), "dev", "nic0")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def a_moment_later(node: Node, service: Service) -> None:
    """What is known of the way to the backend is older than it is believed."""
    table, key = node.table("next_hops"), ctypes.c_uint32(service.ids[THERE])
    leaf = table[key]
    leaf.resolved_ns -= 2 * SECOND
    table[key] = leaf


def test_node_with_another_mac_is_found_a_moment_later(node: Node, web: Service) -> None:
    with neighbour(f"replace {NODE_B} lladdr {OTHER_MAC} nud permanent"):
        a_moment_later(node, web)
        assert Ether(node.nic_xdp(packet()).data).dst == OTHER_MAC
    a_moment_later(node, web)
    assert Ether(node.nic_xdp(packet()).data).dst == NODE_B_MAC


def test_way_to_a_node_that_is_lost_is_the_kernels_to_find(node: Node, web: Service) -> None:
    with neighbour(f"del {NODE_B}"):
        a_moment_later(node, web)
        assert [node.nic_xdp(packet()).verdict for _ in range(2)] == [XDP_PASS] * 2
    assert node.nic_xdp(packet()).verdict == XDP_TX


def test_way_that_leads_out_of_another_nic_is_the_kernels(node: Node, web: Service) -> None:
    ip("route", "add", NODE_B, "via", "198.51.100.7", "dev", "nic1")
    try:
        a_moment_later(node, web)
        asked = [node.nic_xdp(packet(), device) for device in ("nic0", "nic0", "nic1", "nic0")]
        assert [result.verdict for result in asked] == [XDP_PASS, XDP_PASS, XDP_TX, XDP_PASS]
    finally:
        ip("route", "del", NODE_B)
    a_moment_later(node, web)
    assert node.nic_xdp(packet()).verdict == XDP_TX


def test_node_that_has_left_gets_nothing_from_xdp(node: Node, web: Service) -> None:
    node.maps.delete_node(NODE_B)
    a_moment_later(node, web)
    assert node.nic_xdp(packet()).verdict == XDP_PASS


def test_port_is_open_only_while_its_frontend_is_there(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known flows go by what is said of the port alone."""
    written: list[str] = []

    def noted(name: str) -> None:
        whole = getattr(Maps, name)

        def write(maps: Maps, table: str, *arguments: Any) -> None:
            whole(maps, table, *arguments)
            written.append(f"{table} {len(open_protocols(node))}")

        monkeypatch.setattr(Maps, name, write)

    noted("_update")
    noted("_delete")
    node.maps.put_frontend(published(), 1, 1)
    node.maps.put_frontend(published(restricted=True), 1, 1)
    node.maps.put_frontend(published(), 1, 1)
    node.maps.delete_frontend(published().key)
    assert written == [
        *("frontends 0", "open_ports 1"),
        *("open_ports 0", "frontends 0"),
        *("frontends 0", "open_ports 1"),
        *("open_ports 0", "frontends 0"),
    ]


@pytest.mark.parametrize("off_ns", [_HOUR_NS, -_HOUR_NS])
def test_clock_that_ticks_tell_wrong_is_asked(node: Node, off_ns: int) -> None:
    web = node.port(PUBLISHED, TARGET, Protocol.UDP).backends(remote(THERE), remote(ALSO_THERE))
    web.choose(THERE)
    asked = udp(SOURCE, ENTRY, macs=FROM_CLIENT)
    first = node.nic_xdp(asked).data
    web.choose(ALSO_THERE)
    known = beyond_ticks(node)
    put_beyond_ticks(node, (known + off_ns) % 2**64)
    again = node.nic_xdp(asked)
    assert (again.verdict, again.data) == (XDP_TX, first), "the flow goes on"
    assert abs(beyond_ticks(node) - known) < SECOND, "and what was wrong is put right"
