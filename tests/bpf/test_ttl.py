# SPDX-License-Identifier: Apache-2.0
"""TTL: one hop to a published port's task, one back; none to a VIP.

Headers' checksums are scapy's, so every change of one is checked.
"""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    HERE_TOO_GATEWAY,
    NODE_A,
    NODE_B,
    NODE_B_MAC,
    PUBLISHED,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    between,
    docker_mac,
    sctp,
    tcp,
    tunnel_port,
    udp,
    wrapped,
)
from .node import TC_OK, TC_REDIRECT, XDP_TX, Node, assert_result
from .world import Service, remote

SOURCE, ENTRY = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}"
TASK = f"{HERE_GATEWAY}:{TARGET}"
INTO_TASK = (FROM_CLIENT[0], docker_mac(HERE_GATEWAY))
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")
TUNNELLED = (NODE_B_MAC, FROM_CLIENT[1])
BY_B = f"{NODE_B}:{PUBLISHED}"
MAKERS = [pytest.param(tcp, 6, id="tcp"), pytest.param(udp, 17, id="udp")]


@pytest.fixture
def web(node: Node) -> Service:
    return node.port(PUBLISHED, TARGET).backends(node.here())


def expired(packet: Packet, source: str) -> Packet:
    """ICMP "time exceeded in transit" from `source`, with the header and eight bytes more."""
    eth, ip = packet[Ether], IP(bytes(packet[IP])[:28])
    answer = IP(src=source, dst=ip.src, id=0, flags="DF", ttl=64)
    frame: Packet = Ether(src=eth.dst, dst=eth.src) / answer / ICMP(type=11, code=0) / ip
    return frame


@pytest.mark.parametrize("ttl", [2, 3, 64, 128, 255])
def test_one_hop_each_way(node: Node, web: Service, ttl: int) -> None:
    asked = node.nic_ingress(tcp(SOURCE, ENTRY, macs=FROM_CLIENT, ttl=ttl))
    assert_result(asked, TC_REDIRECT, tcp(SOURCE, TASK, macs=INTO_TASK, ttl=ttl - 1))
    answered = node.gateway_ingress(tcp(TASK, SOURCE, "SA", macs=OUT_OF_TASK, ttl=ttl))
    assert_result(answered, TC_REDIRECT, tcp(ENTRY, SOURCE, "SA", macs=OUT_OF_TASK, ttl=ttl - 1))


def test_header_checksum_follows_for_every_address(node: Node, web: Service) -> None:
    for last in range(1, 255):
        source = f"203.0.113.{last}:4000"
        asked = node.nic_ingress(tcp(source, ENTRY, macs=FROM_CLIENT, id=last * 257))
        expected = tcp(source, TASK, macs=INTO_TASK, id=last * 257, ttl=63)
        assert_result(asked, TC_REDIRECT, expected)


def test_one_hop_through_two_nodes_too(node: Node, node_b: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(remote(HERE))
    node_b.port(PUBLISHED, TARGET).backends(node_b.here())
    sent = node.nic_xdp(tcp(SOURCE, ENTRY, macs=FROM_CLIENT, ttl=9))
    assert (sent.verdict, Ether(sent.data)[IP].ttl) == (XDP_TX, 64)
    delivered = node_b.nic_ingress(sent.data)
    assert Ether(delivered.data)[IP].ttl == 8
    replied = node_b.gateway_ingress(tcp(TASK, SOURCE, "SA", macs=OUT_OF_TASK, ttl=9))
    returned = node.nic_xdp(replied.data)
    assert (returned.verdict, Ether(returned.data)[IP].ttl) == (XDP_TX, 8)


@pytest.mark.parametrize(("make", "protocol"), [*MAKERS, pytest.param(sctp, 132, id="sctp")])
@pytest.mark.parametrize("ttl", [0, 1])
def test_client_is_told_by_the_address_it_asked(
    node: Node, make: type, protocol: int, ttl: int
) -> None:
    node.port(PUBLISHED, TARGET, protocol).backends(node.here())
    packet = make(SOURCE, ENTRY, macs=FROM_CLIENT, ttl=ttl)
    assert_result(node.nic_ingress(packet), TC_REDIRECT, expired(packet, NODE_A))
    assert node.reasons() == {"drop_ttl_exceeded": 1}
    assert node.flows() == node.flows("replies") == {}


def test_client_is_told_through_the_tunnel(node: Node, web: Service) -> None:
    """The task's node tells, in the name of the node that was asked."""
    packet = tcp(SOURCE, BY_B, macs=TUNNELLED, ttl=1)
    result = node.nic_ingress(wrapped(packet, (NODE_B, NODE_A), (NODE_B, HERE), 50000, TUNNELLED))
    outer = Ether(result.data)
    assert result.verdict == TC_REDIRECT
    assert (outer[IP].src, outer[IP].dst, outer[UDP].dport) == (NODE_A, NODE_B, 4789)
    assert result.data[14 + 50 :] == bytes(expired(packet, NODE_B)[IP])


def test_client_is_told_straight_away(node_dsr: Node) -> None:
    """But of a SYN, which is answered through the entry node."""
    node_dsr.port(PUBLISHED, TARGET).backends(node_dsr.here())
    packet = tcp(SOURCE, ENTRY, "A", macs=TUNNELLED, ttl=1)
    tunnel = wrapped(packet, (NODE_A, NODE_B), (NODE_A, HERE), 50000, TUNNELLED)
    result = node_dsr.nic_ingress(tunnel)
    assert_result(result, TC_REDIRECT, expired(packet, NODE_A))


def test_known_flow_is_no_exception(node: Node, web: Service) -> None:
    node.nic_ingress(tcp(SOURCE, ENTRY, macs=FROM_CLIENT))
    packet = tcp(SOURCE, ENTRY, "A", macs=FROM_CLIENT, ttl=1, payload=b"data" * 100)
    assert_result(node.nic_ingress(packet), TC_REDIRECT, expired(packet, NODE_A))


@pytest.mark.parametrize("through_b", [True, False])
def test_task_is_told_by_the_node(node: Node, web: Service, through_b: bool) -> None:
    request = tcp(SOURCE, BY_B if through_b else ENTRY, macs=FROM_CLIENT)
    if through_b:
        request = wrapped(request, (NODE_B, NODE_A), (NODE_B, HERE), 50000)
    node.nic_ingress(request)
    answer = tcp(TASK, SOURCE, "SA", macs=OUT_OF_TASK, ttl=1)
    assert_result(node.gateway_ingress(answer), TC_REDIRECT, expired(answer, NODE_A))
    assert node.reasons() == {"drop_ttl_exceeded": 1}


def test_container_that_asks_its_node_is_one_hop_away(node: Node, web: Service) -> None:
    neighbour = f"{HERE_TOO_GATEWAY}:4000"
    macs = (docker_mac(HERE_TOO_GATEWAY), OUT_OF_TASK[1])
    packet = tcp(neighbour, ENTRY, macs=macs, ttl=1)
    assert_result(node.gateway_ingress(packet, "gw1"), TC_REDIRECT, expired(packet, NODE_A))
    asked = node.gateway_ingress(tcp(neighbour, ENTRY, macs=macs, ttl=2), "gw1")
    assert Ether(asked.data)[IP].ttl == 1


def test_what_the_kernel_routes_is_not_counted_twice(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(remote(THERE))
    neighbour = f"{HERE_TOO_GATEWAY}:4000"
    macs = (docker_mac(HERE_TOO_GATEWAY), OUT_OF_TASK[1])
    asked = node.gateway_ingress(tcp(neighbour, ENTRY, macs=macs), "gw1")
    assert_result(asked, TC_OK, tcp(neighbour, BY_B, macs=macs))


@pytest.mark.parametrize("ttl", [1, 64])
def test_a_vip_is_on_the_link(node: Node, ttl: int) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    asked = node.overlay_ingress(tcp(f"{ALICE}:4000", f"{VIP}:80", ttl=ttl))
    assert_result(asked, TC_OK, tcp(f"{ALICE}:4000", f"{WEB_1}:80", ttl=ttl))
    macs = between(WEB_1, ALICE)
    answered = node.overlay_egress(tcp(f"{WEB_1}:80", f"{ALICE}:4000", "SA", macs=macs, ttl=ttl))
    assert_result(answered, TC_OK, tcp(f"{VIP}:80", f"{ALICE}:4000", "SA", macs=macs, ttl=ttl))


def test_answer_that_leaves_wrapped_has_lost_its_hop(node: Node, web: Service) -> None:
    request = tcp(SOURCE, BY_B)
    node.nic_ingress(wrapped(request, (NODE_B, NODE_A), (NODE_B, HERE), 50000))
    reply = tcp(TASK, SOURCE, "A", macs=OUT_OF_TASK, ttl=30)
    inner = tcp(BY_B, SOURCE, "A", ttl=29)
    ends = (NODE_A, NODE_B)
    expected = wrapped(inner, ends, ends, tunnel_port(reply), OUT_OF_TASK)
    assert_result(node.gateway_ingress(reply), TC_REDIRECT, expected)
