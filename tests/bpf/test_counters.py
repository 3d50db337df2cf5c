# SPDX-License-Identifier: Apache-2.0
"""Packets, bytes and flows, by frontend and by backend; each packet once."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP
from scapy.packet import Packet

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    NODE_A,
    NODE_B,
    NODE_B_MAC,
    PUBLISHED,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    tcp,
    udp,
    wrapped,
)
from .node import Node
from .world import Counter, Service, remote

SOURCE = f"{CLIENT}:4000"
ENTRY = f"{NODE_A}:{PUBLISHED}"
TASK = f"{HERE_GATEWAY}:{TARGET}"


def size(*packets: Packet) -> tuple[int, int]:
    """How many packets these are, and how many bytes from the IP header on."""
    return len(packets), sum(len(packet[IP]) for packet in packets)


@pytest.fixture
def vip(node: Node) -> Service:
    return node.vip(VIP, VNI).backends(WEB_1)


def test_nothing_is_counted_at_first(node: Node, vip: Service) -> None:
    assert node.counter("frontend", vip.frontend) == Counter()
    assert node.reasons() == {}


def test_flow_to_a_vip(node: Node, vip: Service) -> None:
    out = [tcp(f"{ALICE}:4000", f"{VIP}:80", f, payload=bytes(n)) for f, n in (("S", 0), ("A", 9))]
    back = [tcp(f"{WEB_1}:80", f"{ALICE}:4000", "A", payload=bytes(n)) for n in (0, 100, 1000)]
    for packet in out:
        node.overlay_ingress(packet)
    for packet in back:
        node.overlay_egress(packet)
    expected = Counter(size(*out), size(*back), connections=1)
    assert node.counter("frontend", vip.frontend) == expected
    assert node.counter("backend", vip.ids[WEB_1]) == expected
    assert node.counter("entry", vip.frontend) == Counter()


def test_flows_are_counted_with_the_backend_that_they_get(node: Node, vip: Service) -> None:
    packets = [udp(f"{ALICE}:{port}", f"{VIP}:53") for port in range(4000, 4010)]
    for packet in packets:
        node.overlay_ingress(packet)
    vip.backends(WEB_2).choose(WEB_2)
    for packet in packets[:3]:
        node.overlay_ingress(packet)
    node.overlay_ingress(udp(f"{ALICE}:5000", f"{VIP}:53"))
    assert node.counter("frontend", vip.frontend).connections == 11
    assert node.counter("backend", vip.ids[WEB_1]) == Counter(
        size(*packets, *packets[:3]), connections=10
    )
    assert node.counter("backend", vip.ids[WEB_2]) == Counter(size(packets[0]), connections=1)


def test_task_balanced_to_itself(node: Node, vip: Service) -> None:
    asked = udp(f"{WEB_1}:4000", f"{VIP}:53")
    answered = udp(f"{WEB_1}:53", f"{VIP}:4000", payload=bytes(300))
    node.overlay_ingress(asked)
    node.overlay_ingress(answered)
    expected = Counter(size(asked), size(answered), connections=1)
    assert node.counter("frontend", vip.frontend) == expected


def test_direct_flows_are_not_counted(node: Node, vip: Service) -> None:
    node.overlay_ingress(tcp(f"{ALICE}:4000", f"{WEB_1}:80"))
    node.overlay_egress(tcp(f"{WEB_1}:80", f"{ALICE}:4000", "SA"))
    assert node.counter("frontend", 0) == node.counter("backend", 0) == Counter()
    assert node.counter("backend", vip.ids[WEB_1]) == Counter()
    assert node.reasons() == {}


def test_offloaded_segments_are_counted_one_by_one(node: Node) -> None:
    web = node.port(PUBLISHED, TARGET).backends(node.here())
    packet = tcp(SOURCE, ENTRY, "A", macs=FROM_CLIENT, payload=bytes(2800))
    node.nic_ingress(packet, gso_segs=2, gso_size=1400)
    _, volume = size(packet)
    assert node.counter("frontend", web.frontend) == Counter((2, volume), connections=1)


def test_entry_node(node: Node) -> None:
    web = node.port(PUBLISHED, TARGET).backends(remote(THERE))
    packets = [tcp(SOURCE, ENTRY, f, macs=FROM_CLIENT) for f in ("S", "A", "PA")]
    for packet in packets:
        node.nic_xdp(packet)
    assert node.counter("entry", web.frontend) == Counter(size(*packets), connections=1)
    assert node.counter("frontend", web.frontend) == Counter()
    assert node.counter("backend", web.ids[THERE]) == Counter()


def test_backends_node(node: Node) -> None:
    web = node.port(PUBLISHED, TARGET).backends(node.here())
    macs = (NODE_B_MAC, FROM_CLIENT[1])
    asked = tcp(SOURCE, f"{NODE_B}:{PUBLISHED}", macs=macs, payload=b"hello")
    node.nic_ingress(wrapped(asked, (NODE_B, NODE_A), (NODE_B, HERE), 0xC001, macs))
    answered = tcp(TASK, SOURCE, "A", payload=bytes(500))
    node.gateway_ingress(answered)
    expected = Counter(size(asked), size(answered), connections=1)
    assert node.counter("frontend", web.frontend) == expected
    assert node.counter("backend", web.ids[HERE]) == expected
    assert node.counter("entry", web.frontend) == Counter()


def test_node_that_is_both(node: Node) -> None:
    web = node.port(PUBLISHED, TARGET).backends(node.here())
    asked = tcp(SOURCE, ENTRY, macs=FROM_CLIENT)
    node.nic_ingress(asked)
    expected = Counter(size(asked), connections=1)
    assert node.counter("entry", web.frontend) == expected
    assert node.counter("frontend", web.frontend) == expected


def test_refused_packets_are_not_counted_as_balanced(node: Node) -> None:
    web = node.port(PUBLISHED, TARGET).backends(node.here()).choose()
    node.nic_ingress(tcp(SOURCE, ENTRY, macs=FROM_CLIENT))
    assert node.counter("entry", web.frontend) == Counter()
    assert node.reasons() == {"drop_no_backend": 1}


def test_xdp_leaves_the_count_to_tc(node: Node) -> None:
    """What XDP passes on without a tag meets tc next, and is counted there."""
    packet = tcp(SOURCE, f"{NODE_A}:81", macs=FROM_CLIENT)
    node.nic_xdp(packet)
    assert node.reasons() == {}
    node.nic_ingress(packet)
    assert node.reasons() == {"handback_no_frontend": 1}


def test_reasons_add_up(node: Node) -> None:
    for _ in range(5):
        node.nic_ingress(tcp(SOURCE, f"{NODE_A}:81", macs=FROM_CLIENT))
    for _ in range(3):
        node.overlay_ingress(tcp(SOURCE, ENTRY, frag=185))
    assert node.reasons() == {"handback_no_frontend": 5, "handback_fragment": 3}
