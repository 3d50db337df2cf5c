# SPDX-License-Identifier: Apache-2.0
"""Who may put packets into the tunnel: the other nodes of the Swarm, and nobody else."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from .conftest import MakeNode
from .net import (
    ALICE,
    CLIENT,
    HERE,
    HERE_GATEWAY,
    HERE_TOO_GATEWAY,
    NODE_A,
    NODE_A_MAC,
    NODE_B,
    NODE_B_MAC,
    NODE_C,
    PUBLISHED,
    STRANGER,
    TARGET,
    THERE,
    VIP,
    VNI,
    docker_mac,
    tcp,
    udp,
    wrapped,
)
from .node import TC_REDIRECT, TC_SHOT, TC_UNSPEC, XDP_DROP, XDP_PASS, Node, assert_result
from .test_collisions import take_all_ports
from .world import Service, remote

BACK = (NODE_B_MAC, NODE_A_MAC)
BRIDGE_MAC = "02:42:00:00:00:01"
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), BRIDGE_MAC)
QUESTION = tcp(f"{CLIENT}:4000", f"{NODE_B}:{PUBLISHED}", macs=BACK)
ANSWER = tcp(f"{NODE_A}:{PUBLISHED}", f"{CLIENT}:4000", "SA", macs=BACK)


@pytest.fixture(autouse=True)
def web(node: Node) -> Service:
    return node.port(PUBLISHED, TARGET).backends(node.here())


def arriving(
    packet: Packet, source: str = NODE_B, to: str = HERE, entry: str = "", **fields: object
) -> Packet:
    return wrapped(packet, (source, NODE_A), (entry or source, to), 0xC123, BACK, **fields)  # type: ignore[arg-type]


def assert_nothing_kept(node: Node) -> None:
    assert node.flows() == node.flows("replies") == node.flows("entries") == {}


# --- in by the NIC

FORGED = [
    pytest.param(STRANGER, id="a stranger"),
    pytest.param(NODE_A, id="this node itself"),
    pytest.param("127.0.0.1", id="loopback"),
    pytest.param("0.0.0.0", id="nobody"),
    pytest.param("255.255.255.255", id="everybody"),
    pytest.param(HERE_GATEWAY, id="a container"),
]


@pytest.mark.parametrize("source", FORGED)
@pytest.mark.parametrize(
    ("packet", "to"), [(QUESTION, HERE), (ANSWER, NODE_A)], ids=["question", "answer"]
)
def test_only_other_nodes_wrap(node: Node, source: str, packet: Packet, to: str) -> None:
    forged = arriving(packet, source, to)
    assert_result(node.nic_xdp(forged), XDP_DROP, forged)
    assert_result(node.nic_ingress(forged), TC_SHOT, forged)
    assert node.reasons() == {"drop_bad_outer_source": 2}
    assert_nothing_kept(node)


@pytest.mark.parametrize("entry", [STRANGER, CLIENT, NODE_C, "0.0.0.0"])
def test_entry_node_is_who_has_wrapped(node: Node, entry: str) -> None:
    """Answers would go to an address of the sender's choice, wrapped."""
    forged = arriving(QUESTION, entry=entry)
    assert_result(node.nic_xdp(forged), XDP_DROP, forged)
    assert_result(node.nic_ingress(forged), TC_SHOT, forged)
    assert node.reasons() == {"drop_bad_inner": 2}
    assert_nothing_kept(node)


@pytest.mark.parametrize("length", [0, 39, 41, 65535])
def test_inner_length_is_true(node: Node, length: int) -> None:
    packet = QUESTION.copy()
    packet[IP].len = length
    forged = arriving(packet)
    assert_result(node.nic_xdp(forged), XDP_DROP, forged)
    assert_result(node.nic_ingress(forged), TC_SHOT, forged)
    assert node.reasons() == {"drop_bad_inner": 2}
    assert_nothing_kept(node)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        pytest.param(36, b"\x12\xb6", id="port"),
        pytest.param(46, b"\x00\x10\x01", id="network"),
        pytest.param(42, b"\x00", id="flags"),
        pytest.param(42, b"\x0c", id="more flags"),
        pytest.param(23, b"\x06", id="protocol"),
        pytest.param(30, b"\xc0\x00\x02\x0c", id="to another"),
    ],
)
def test_other_than_our_tunnel_is_not_unwrapped(node: Node, place: int, value: bytes) -> None:
    packet = bytearray(bytes(arriving(QUESTION)))
    packet[place : place + len(value)] = value
    assert_result(node.nic_xdp(bytes(packet)), XDP_PASS, bytes(packet))
    assert_result(node.nic_ingress(bytes(packet)), TC_UNSPEC, bytes(packet))
    assert_nothing_kept(node)


@pytest.mark.parametrize("port", [TARGET, 22, PUBLISHED + 1])
def test_only_published_ports_are_reached_through_the_tunnel(node: Node, port: int) -> None:
    node.nic_ingress(arriving(tcp(f"{CLIENT}:4000", f"{NODE_B}:{port}", macs=BACK)))
    node.nic_ingress(arriving(udp(f"{CLIENT}:4000", f"{NODE_B}:{PUBLISHED}", macs=BACK)))
    assert node.reasons() == {"drop_not_published": 2}
    assert_nothing_kept(node)


def test_backend_that_two_nodes_take_for_the_others(node: Node, node_b: Node) -> None:
    """Stale views must not let a packet go round: what came wrapped is wrapped again but once."""
    node.port(8081, 8081).backends(remote(THERE, NODE_B))
    node_b.port(8081, 8081).backends(remote(THERE, NODE_A))
    asked = tcp(f"{CLIENT}:4000", f"{NODE_A}:8081", macs=(NODE_B_MAC, NODE_A_MAC))
    sent = node.nic_xdp(asked)
    back = node_b.nic_ingress(sent.data)
    assert back.verdict == TC_REDIRECT
    assert node_b.reasons() == {"retry_second_chance": 1}
    assert node.nic_ingress(back.data).verdict == TC_SHOT
    assert node.reasons() == {"drop_no_backend": 1}


def test_nested_tunnel_is_unwrapped_once(node: Node) -> None:
    """The inner one is for a port that no service publishes."""
    twice = arriving(arriving(QUESTION))
    assert node.nic_ingress(twice).verdict == TC_SHOT
    assert node.reasons() == {"drop_not_published": 1}
    assert_nothing_kept(node)


# --- out of a container


@pytest.mark.parametrize("to", [NODE_B, NODE_A, NODE_C])
@pytest.mark.parametrize("vni", [15461121, VNI, 0])
def test_container_does_not_speak_vxlan_to_a_node(node: Node, to: str, vni: int) -> None:
    """The kernel would masquerade it: it would come from a node of the Swarm."""
    inside = tcp(f"{STRANGER}:4000", f"{NODE_A}:{PUBLISHED}")
    forged = wrapped(inside, (HERE_GATEWAY, to), (NODE_A, THERE), 4789, OUT_OF_TASK, vni)
    assert_result(node.gateway_ingress(forged), TC_SHOT, forged)
    assert node.reasons() == {"drop_forged_tunnel": 1}
    assert_nothing_kept(node)


def test_container_speaks_vxlan_to_others(node: Node) -> None:
    own = wrapped(QUESTION, (HERE_GATEWAY, STRANGER), (NODE_A, THERE), 4789, OUT_OF_TASK, 5)
    assert_result(node.gateway_ingress(own), TC_UNSPEC, own)


def test_tunnel_is_not_unwrapped_on_an_overlay(node: Node) -> None:
    node.vip(VIP, VNI).backends("10.0.1.5")
    forged = wrapped(QUESTION, (ALICE, NODE_A), (NODE_B, HERE), 0xC123)
    assert_result(node.overlay_ingress(forged), TC_UNSPEC, forged)
    assert_result(node.overlay_egress(forged), TC_UNSPEC, forged)
    assert_nothing_kept(node)


@pytest.mark.parametrize("port", [TARGET, 22])
def test_neighbours_gateway_address_is_not_a_way_in(node: Node, port: int) -> None:
    """Docker's rules for docker_gwbridge judge it: it must reach them."""
    asked = tcp(f"{HERE_TOO_GATEWAY}:4000", f"{HERE_GATEWAY}:{port}")
    assert_result(node.gateway_ingress(asked, "gw1"), TC_UNSPEC, asked)
    assert node.reasons() == {"handback_no_frontend": 1}
    assert_nothing_kept(node)


# --- lies that a packet tells of itself


@pytest.mark.parametrize("length", [51, 90, 65535])
def test_icmp_error_that_lies_about_its_length(node: Node, length: int) -> None:
    node.port(8081, 8081, 17).backends(remote(THERE))
    node.nic_ingress(udp(f"{CLIENT}:4000", f"{NODE_A}:8081", macs=BACK))
    quoted = udp(f"{NODE_A}:8081", f"{CLIENT}:4000")
    error = (
        Ether(src=BACK[0], dst=BACK[1])
        / IP(src=CLIENT, dst=NODE_A, len=length)
        / ICMP(type=3, code=3)
        / Raw(bytes(quoted[IP])[:28])
    )
    assert_result(node.nic_ingress(error), TC_UNSPEC, error)
    assert node.reasons() == {"handback_other_protocol": 1}
    error[IP].len = 56
    assert node.nic_ingress(error).verdict == TC_REDIRECT


def test_one_packet_is_counted_once(make_node: MakeNode) -> None:
    """A question to another machine that finds no free 4-tuple."""
    node = make_node(MAX_FLOWS=262144)
    node.addresses(NODE_A)
    node.port(PUBLISHED, PUBLISHED).backends(remote(THERE))
    node.gateway_ingress(tcp(f"{HERE_GATEWAY}:4000", f"{NODE_A}:{PUBLISHED}", macs=OUT_OF_TASK))
    take_all_ports(node, "transient_replies")
    packet = tcp(f"{HERE_GATEWAY}:4000", f"{NODE_B}:{PUBLISHED}", macs=OUT_OF_TASK)
    assert_result(node.gateway_ingress(packet), TC_SHOT, packet)
    assert node.reasons() == {"drop_no_port": 1}
    node.clear()
