# SPDX-License-Identifier: Apache-2.0
"""A client of a service without backends is told so at once, as a kernel would."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from .net import (
    ALICE,
    CLIENT,
    CLIENT6,
    FROM_CLIENT,
    HERE,
    NODE_A,
    NODE_A6,
    NODE_B,
    PUBLISHED,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    Macs,
    between,
    sctp,
    surrogate,
    tcp,
    udp,
    wrapped,
)
from .node import TC_OK, TC_REDIRECT, TC_SHOT, Node, assert_result
from .world import GONE, STOPPING

SOURCE, SERVER = f"{ALICE}:4000", f"{VIP}:80"
BACK = between(VIP, ALICE)


def reset(source: str, destination: str, macs: Macs, flags: str, **fields: int) -> Packet:
    """What a kernel answers for a closed port."""
    packet = tcp(source, destination, flags, macs=macs, id=0, ttl=64)
    packet[IP].flags = "DF"
    for name, value in {"seq": 0, "ack": 0, "window": 0, **fields}.items():
        setattr(packet[TCP], name, value)
    return packet


def unreachable(refused: Packet) -> Packet:
    """ICMP "port unreachable", with all of the datagram in it."""
    eth, quoted = refused[Ether], refused[IP]
    answer = IP(src=quoted.dst, dst=quoted.src, id=0, flags="DF", ttl=64)
    frame: Packet = Ether(src=eth.dst, dst=eth.src) / answer / ICMP(type=3, code=3) / quoted
    return frame


@pytest.fixture
def empty(node: Node) -> Node:
    """A node with a VIP and a published port that nobody serves."""
    node.addresses(NODE_A)
    node.vip(VIP, VNI)
    node.port(PUBLISHED, 80)
    return node


@pytest.mark.parametrize("payload", [b"", b"odd", b"x" * 1000])
def test_syn_to_a_vip_is_reset(empty: Node, payload: bytes) -> None:
    result = empty.overlay_ingress(tcp(SOURCE, SERVER, payload=payload))
    answer = reset(SERVER, SOURCE, BACK, "RA", ack=1000 + 1 + len(payload))
    assert_result(result, TC_REDIRECT, answer)
    assert empty.reasons() == {"drop_no_backend": 1}
    assert empty.flows() == {}


@pytest.mark.parametrize("make", [tcp, sctp], ids=["tcp", "sctp"])
def test_no_address_of_an_overlay_stands_for_an_ipv6_client(
    empty: Node, make: Callable[..., Packet]
) -> None:
    """Whatever a container calls itself, its answer stays in its network."""
    source = f"{surrogate(CLIENT6)}:4000"
    empty.stands_for(surrogate(CLIENT6), CLIENT6, NODE_A6)
    result = empty.overlay_ingress(make(source, SERVER))
    assert (result.verdict, result.data[12:14]) == (TC_REDIRECT, b"\x08\x00")
    assert empty.reasons() == {"drop_no_backend": 1}


def test_syn_with_options_is_reset(empty: Node) -> None:
    syn = tcp(SOURCE, SERVER, options=[("MSS", 1460), ("NOP", None), ("WScale", 7)])
    result = empty.overlay_ingress(syn)
    assert_result(result, TC_REDIRECT, reset(SERVER, SOURCE, BACK, "RA", ack=1001))


def test_segment_of_a_connection_is_reset_where_it_acknowledges(empty: Node) -> None:
    segment = tcp(SOURCE, SERVER, "PA", payload=b"data")
    segment[TCP].ack = 7777
    result = empty.overlay_ingress(segment)
    assert_result(result, TC_REDIRECT, reset(SERVER, SOURCE, BACK, "R", seq=7777))


def test_reset_is_not_answered(empty: Node) -> None:
    assert empty.overlay_ingress(tcp(SOURCE, SERVER, "R")).verdict == TC_SHOT


@pytest.mark.parametrize("payload", [b"", b"odd", b"question", b"x" * 520])
def test_datagram_to_a_vip_is_unreachable(empty: Node, payload: bytes) -> None:
    datagram = udp(SOURCE, SERVER, payload=payload)
    assert_result(empty.overlay_ingress(datagram), TC_REDIRECT, unreachable(datagram))
    assert empty.reasons() == {"drop_no_backend": 1}


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(udp(SOURCE, SERVER, payload=b"x" * 521), id="too long to quote"),
        pytest.param(udp(SOURCE, SERVER, checksum=0), id="without a checksum"),
    ],
)
def test_what_cannot_be_answered_is_dropped(empty: Node, packet: Packet) -> None:
    assert empty.overlay_ingress(packet).verdict == TC_SHOT
    assert empty.reasons() == {"drop_no_backend": 1}


def test_published_port_is_refused_to_the_client(empty: Node) -> None:
    source, server = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}"
    result = empty.nic_ingress(tcp(source, server, macs=FROM_CLIENT))
    back = FROM_CLIENT[1], FROM_CLIENT[0]
    assert_result(result, TC_REDIRECT, reset(server, source, back, "RA", ack=1001))


def test_connection_is_reset_when_its_backend_has_gone(node: Node) -> None:
    web = node.vip(VIP, VNI).backends(WEB_1, WEB_2).choose(WEB_1)
    node.overlay_ingress(tcp(SOURCE, SERVER))
    web.state(WEB_1, GONE).choose(WEB_2)
    result = node.overlay_ingress(tcp(SOURCE, SERVER, "A"))
    assert_result(result, TC_REDIRECT, reset(SERVER, SOURCE, BACK, "R"))
    assert node.reasons() == {"drop_backend_gone": 1}


def test_syn_chooses_anew_when_the_backend_has_gone(node: Node) -> None:
    """From the same port, of a client that has forgotten its connection: at once, and for good."""
    web = node.vip(VIP, VNI).backends(WEB_1, WEB_2).choose(WEB_1)
    for flags in ("S", "A"):
        node.overlay_ingress(tcp(SOURCE, SERVER, flags))
    web.state(WEB_1, GONE).choose(WEB_2)
    for flags in ("S", "A"):
        moved = tcp(SOURCE, f"{WEB_2}:80", flags)
        moved[Ether].src = between(ALICE, VIP)[0]
        assert_result(node.overlay_ingress(tcp(SOURCE, SERVER, flags)), TC_OK, moved)


@pytest.mark.parametrize("state", [STOPPING, GONE])
def test_datagrams_move_on_when_their_backend_has_gone(node: Node, state: int) -> None:
    """Or will have, as it has been told to stop."""
    web = node.vip(VIP, VNI).backends(WEB_1, WEB_2).choose(WEB_1)
    node.overlay_ingress(udp(SOURCE, SERVER))
    web.state(WEB_1, state).choose(WEB_2)
    result = node.overlay_ingress(udp(SOURCE, SERVER))
    moved = udp(SOURCE, f"{WEB_2}:80")
    moved[Ether].src = between(ALICE, VIP)[0]
    assert_result(result, TC_OK, moved)


def test_task_that_has_gone_is_refused_through_the_tunnel(node: Node) -> None:
    """The entry node knows no better yet; the answer goes back by the way that the packet came.

    No other task is ready: else nobody would be refused.
    """
    node.addresses(NODE_A)
    node.node(NODE_B)
    node.port(PUBLISHED, 80).backends(node.here()).state(HERE, GONE).choose()
    source, server = f"{CLIENT}:4000", f"{NODE_B}:{PUBLISHED}"
    syn = tcp(source, server)
    result = node.nic_ingress(wrapped(syn, (NODE_B, NODE_A), (NODE_B, HERE), 50000))
    outer = Ether(result.data)
    assert result.verdict == TC_REDIRECT
    assert (outer[IP].src, outer[IP].dst, outer[UDP].dport) == (NODE_A, NODE_B, 4789)
    inner = result.data[14 + 50 :]
    assert inner == bytes(reset(server, source, BACK, "RA", ack=1001)[IP])
    assert node.reasons() == {"drop_backend_gone": 1}
