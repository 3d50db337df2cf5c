# SPDX-License-Identifier: Apache-2.0
"""Wrapped packets: at the backend's node, and the answers at the entry node. XDP and tc alike."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP
from scapy.packet import Packet

from .net import (
    CLIENT,
    CLIENT_MAC,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    NODE_A,
    NODE_A_MAC,
    NODE_B,
    NODE_B_MAC,
    NODE_C,
    PUBLISHED,
    STRANGER,
    TARGET,
    docker_mac,
    sctp,
    tcp,
    udp,
    wrapped,
)
from .node import TC_REDIRECT, TC_SHOT, TC_UNSPEC, XDP_DROP, XDP_PASS, XDP_TX, Node, assert_result
from .world import DRAINING, GONE, Service, be32

SOURCE = f"{CLIENT}:4000"
ENTRY = f"{NODE_B}:{PUBLISHED}"
TAG_MAGIC, TAG_DELIVER, TAG_RETURN = 0xEBF0DA7A, 1, 3
BACK = (NODE_B_MAC, NODE_A_MAC)
SHORTEST_SKB = 34  # the kernel refuses to run a tc program on less than an IPv4 header
INTO_TASK = (NODE_B_MAC, docker_mac(HERE_GATEWAY))


@pytest.fixture
def web(node: Node) -> Service:
    """At node A; its clients come in at node B."""
    return node.port(PUBLISHED, TARGET).backends(node.here())


def request(flags: str = "S", **fields: object) -> Packet:
    return tcp(SOURCE, ENTRY, flags, macs=BACK, **fields)  # type: ignore[arg-type]


def arriving(packet: Packet, source: str = NODE_B, to: str = HERE, **outer: object) -> Packet:
    return wrapped(packet, (source, NODE_A), (NODE_B, to), 0xC123, BACK, **outer)  # type: ignore[arg-type]


def answer(source: str = f"{NODE_A}:{PUBLISHED}", to: str = SOURCE, **fields: object) -> Packet:
    """What a backend's node sends to the client."""
    return tcp(source, to, "SA", macs=BACK, **fields)  # type: ignore[arg-type]


def returning(packet: Packet, **outer: object) -> Packet:
    return wrapped(packet, (NODE_B, NODE_A), (NODE_B, NODE_A), 0xC123, BACK, **outer)  # type: ignore[arg-type]


def test_wrapped_packet_is_unwrapped_and_told_to_tc(node: Node, web: Service) -> None:
    result = node.nic_xdp(arriving(request()))
    assert_result(result, XDP_PASS, request())
    expected = struct.pack("=IIII", TAG_MAGIC, TAG_DELIVER, web.ids[HERE], be32(NODE_B))
    assert result.metadata == expected
    assert node.reasons() == {}


@pytest.mark.parametrize(("make", "protocol"), [(tcp, 6), (udp, 17)], ids=["tcp", "udp"])
def test_wrapped_packet_is_delivered_by_tc_alone(
    node: Node, make: Callable[..., Packet], protocol: int
) -> None:
    node.port(PUBLISHED, TARGET, protocol).backends(node.here())
    packet = make(SOURCE, ENTRY, macs=BACK, payload=b"hello")
    result = node.nic_ingress(arriving(packet))
    expected = make(SOURCE, f"{HERE_GATEWAY}:{TARGET}", macs=INTO_TASK, payload=b"hello")
    assert_result(result, TC_REDIRECT, expected)


def _fragment() -> Packet:
    packet = request()
    packet[IP].frag = 1
    return packet


DROPPED = [
    pytest.param(arriving(request(), STRANGER), "drop_bad_outer_source", id="from a stranger"),
    pytest.param(arriving(_fragment()), "drop_bad_inner", id="bad fragment inside"),
    pytest.param(returning(answer(f"{STRANGER}:80")), "drop_bad_inner", id="answer of a stranger"),
]


@pytest.mark.parametrize(("packet", "reason"), DROPPED)
def test_bad_tunnel_packet_is_dropped_by_xdp(
    node: Node, web: Service, packet: Packet, reason: str
) -> None:
    assert_result(node.nic_xdp(packet), XDP_DROP, packet)
    assert node.reasons() == {reason: 1}


@pytest.mark.parametrize(("packet", "reason"), DROPPED)
def test_bad_tunnel_packet_is_dropped_by_tc(
    node: Node, web: Service, packet: Packet, reason: str
) -> None:
    assert_result(node.nic_ingress(packet), TC_SHOT, packet)
    assert node.reasons() == {reason: 1}
    assert node.flows() == {}


NOT_OURS = [
    pytest.param(arriving(request(), vni=4097), id="another VNI"),
    pytest.param(wrapped(request(), (NODE_B, NODE_C), (NODE_B, HERE), 1, BACK), id="for another"),
    pytest.param(arriving(request(), flags="MF"), id="outer fragment"),
]


@pytest.mark.parametrize("packet", NOT_OURS)
def test_other_tunnels_pass(node: Node, web: Service, packet: Packet) -> None:
    assert_result(node.nic_xdp(packet), XDP_PASS, packet)
    assert_result(node.nic_ingress(packet), TC_UNSPEC, packet)
    assert node.flows() == {}


def test_every_truncated_tunnel_packet_is_harmless(node: Node, web: Service) -> None:
    whole = bytes(arriving(request()))
    for length in range(14, len(whole)):
        part = whole[:length]
        assert_result(node.nic_xdp(part), XDP_DROP if length >= 64 else XDP_PASS, part)
        if length < SHORTEST_SKB:
            continue
        assert_result(node.nic_ingress(part), TC_SHOT if length >= 64 else TC_UNSPEC, part)
    assert node.flows() == {}


def test_task_of_another_service_is_not_reached(node: Node, web: Service) -> None:
    packet = arriving(tcp(SOURCE, f"{NODE_B}:9999", macs=BACK))
    assert node.nic_ingress(packet).verdict == TC_SHOT
    assert node.reasons() == {"drop_not_published": 1}
    node.port(9999, TARGET)
    assert node.nic_ingress(packet).verdict == TC_SHOT
    assert node.reasons() == {"drop_not_published": 2}


def test_draining_task_gets_what_was_sent_to_it(node: Node, web: Service) -> None:
    node.nic_ingress(arriving(request()))
    web.state(HERE, DRAINING)
    result = node.nic_ingress(arriving(request("A")))
    expected = tcp(SOURCE, f"{HERE_GATEWAY}:{TARGET}", "A", macs=INTO_TASK)
    assert_result(result, TC_REDIRECT, expected)


def test_gone_task_gets_nothing(node: Node, web: Service) -> None:
    node.nic_ingress(arriving(request()))
    web.state(HERE, GONE)
    refused = node.nic_ingress(arriving(request("A")))
    assert refused.verdict == TC_REDIRECT  # back through the tunnel: see test_refuse
    assert node.reasons() == {"drop_backend_gone": 1}


# --- answers, at the entry node


def test_answer_goes_on_to_the_client(node: Node) -> None:
    result = node.nic_xdp(returning(answer(payload=b"hello")))
    expected = answer(payload=b"hello")
    expected.src, expected.dst = NODE_A_MAC, CLIENT_MAC
    assert_result(result, XDP_TX, expected)


def test_answer_goes_on_to_the_client_by_tc_alone(node: Node) -> None:
    result = node.nic_ingress(returning(answer()))
    assert_result(result, TC_REDIRECT, answer())
    assert node.reasons() == {}


def test_answer_to_an_unresolved_neighbour_is_left_to_tc(node: Node) -> None:
    packet = answer(to="192.0.2.200:4000")
    result = node.nic_xdp(returning(packet))
    assert_result(result, XDP_PASS, packet)
    assert result.metadata == struct.pack("=IIII", TAG_MAGIC, TAG_RETURN, 0, 0)
    assert_result(node.nic_ingress(returning(packet)), TC_REDIRECT, packet)


def test_answer_by_another_nic_is_left_to_tc(node: Node) -> None:
    packet = answer(to="198.51.100.7:4000")
    result = node.nic_xdp(returning(packet))
    assert_result(result, XDP_PASS, packet)
    assert result.metadata == struct.pack("=IIII", TAG_MAGIC, TAG_RETURN, 0, 0)


def test_answer_without_a_route_is_dropped_by_tc(node: Node) -> None:
    packet = answer(to="203.0.113.9:4000")
    assert node.nic_ingress(returning(packet)).verdict == TC_SHOT
    assert node.reasons() == {"drop_bad_inner": 1}


# --- the whole way: client, node A, node B, task, node B, node A, client


@pytest.mark.parametrize(
    ("make", "protocol"),
    [(tcp, 6), (udp, 17), (sctp, 132)],
    ids=["tcp", "udp", "sctp"],
)
def test_question_and_answer_through_two_nodes(
    node: Node, node_b: Node, make: Callable[..., Packet], protocol: int
) -> None:
    node.port(PUBLISHED, TARGET, protocol).backends(node.here()._replace(vtep=NODE_B, gateway=""))
    node_b.port(PUBLISHED, TARGET, protocol).backends(node_b.here())
    asked = make(SOURCE, f"{NODE_A}:{PUBLISHED}", macs=FROM_CLIENT, payload=b"question")
    sent = node.nic_xdp(asked)
    assert sent.verdict == XDP_TX
    delivered = node_b.nic_ingress(sent.data)
    task = f"{HERE_GATEWAY}:{TARGET}"
    into = (NODE_A_MAC, docker_mac(HERE_GATEWAY))
    assert_result(delivered, TC_REDIRECT, make(SOURCE, task, macs=into, payload=b"question"))
    out = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")
    replied = node_b.gateway_ingress(make(task, SOURCE, macs=out, payload=b"answer"))
    assert replied.verdict == TC_REDIRECT
    returned = node.nic_xdp(replied.data)
    home = (NODE_A_MAC, CLIENT_MAC)
    expected = make(f"{NODE_A}:{PUBLISHED}", SOURCE, macs=home, payload=b"answer")
    assert_result(returned, XDP_TX, expected)
    assert node.reasons() == node_b.reasons() == {}
