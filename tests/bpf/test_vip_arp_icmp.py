# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP
from scapy.packet import Packet

from .net import ALICE, OTHER_VNI, VIP, VNI, WEB_1, arp_reply, arp_request, docker_mac, echo
from .node import TC_REDIRECT, TC_UNSPEC, Node, assert_result


@pytest.fixture(autouse=True)
def vip(node: Node) -> None:
    node.vip(VIP, VNI).backends(WEB_1)


def test_arp_request_for_the_vip_is_answered(node: Node) -> None:
    result = node.overlay_ingress(arp_request(ALICE, VIP))
    assert_result(result, TC_REDIRECT, arp_reply(VIP, ALICE))
    assert node.reasons() == {}


def test_vip_has_the_mac_of_dockers_own_load_balancer(node: Node) -> None:
    """What is left to the kernel, now or after the programs are off, has to get there."""
    balancer = "10.0.1.9"
    node.endpoint(balancer, VNI, 0)
    node.endpoint("10.0.2.9", OTHER_VNI, 0)
    answer = arp_reply(VIP, ALICE)
    answer.src = answer[ARP].hwsrc = docker_mac(balancer)
    assert_result(node.overlay_ingress(arp_request(ALICE, VIP)), TC_REDIRECT, answer)


@pytest.mark.parametrize("target", ["10.0.1.1", ALICE, WEB_1])
def test_arp_request_for_others_passes(node: Node, target: str) -> None:
    request = arp_request(ALICE, target)
    assert_result(node.overlay_ingress(request), TC_UNSPEC, request)
    assert node.reasons() == {"handback_not_ipv4": 1}


def test_arp_request_in_another_network_passes(node: Node) -> None:
    request = arp_request(ALICE, VIP)
    assert_result(node.overlay_ingress(request, OTHER_VNI), TC_UNSPEC, request)


def test_arp_reply_passes(node: Node) -> None:
    reply = arp_reply(ALICE, VIP)
    assert_result(node.overlay_ingress(reply), TC_UNSPEC, reply)


@pytest.mark.parametrize("ttl", [1, 32, 63, 64, 65, 128, 255])
def test_echo_to_the_vip_is_answered(node: Node, ttl: int) -> None:
    request = echo(ALICE, VIP, ttl=ttl)
    answer = echo(VIP, ALICE, reply=True, ttl=64)
    assert_result(node.overlay_ingress(request), TC_REDIRECT, answer)
    assert node.reasons() == {}


def test_echo_checksum_is_right_for_any_payload(node: Node) -> None:
    for word in range(0, 0x10000, 251):
        request = between_alice_and_vip(ICMP(type=8, id=word, seq=~word & 0xFFFF))
        result = node.overlay_ingress(request)
        assert result.verdict == TC_REDIRECT
        message = result.data[34:]
        assert ones_complement_sum(message) == 0xFFFF


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        pytest.param(echo(ALICE, "10.0.1.9"), "handback_other_protocol", id="another address"),
        pytest.param(echo(ALICE, VIP, reply=True), "handback_other_protocol", id="echo reply"),
        pytest.param(echo(ALICE, VIP, flags="MF"), "handback_fragment", id="fragment"),
    ],
)
def test_other_icmp_passes(node: Node, packet: Packet, reason: str) -> None:
    assert_result(node.overlay_ingress(packet), TC_UNSPEC, packet)
    assert node.reasons() == {reason: 1}


def between_alice_and_vip(message: Packet) -> Packet:
    request = echo(ALICE, VIP)
    request[IP].remove_payload()
    return request / message


def ones_complement_sum(data: bytes) -> int:
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
