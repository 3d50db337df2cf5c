# SPDX-License-Identifier: Apache-2.0
"""Who has just sent something is answered at once: its MAC is not asked for in vain."""

from __future__ import annotations

import pytest
from scapy.layers.l2 import ARP, Ether
from scapy.layers.sctp import SCTPChunkInit
from scapy.packet import Packet

from .net import ALICE, OTHER_VNI, VNI, WEB_1, WEB_2, arp_reply, arp_request, sctp, tcp, udp
from .node import TC_REDIRECT, TC_UNSPEC, Node, assert_result

SYN = tcp(f"{ALICE}:40000", f"{WEB_1}:80", flags="S")
QUESTION = arp_request(WEB_1, ALICE)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(SYN, id="TCP"),
        pytest.param(sctp(f"{ALICE}:40000", f"{WEB_1}:80", chunk=SCTPChunkInit()), id="SCTP"),
        pytest.param(udp(f"{ALICE}:40000", f"{WEB_1}:80"), id="UDP"),
    ],
)
def test_container_is_told_who_has_sent_it_something(node: Node, first: Packet) -> None:
    assert_result(node.overlay_egress(first), TC_UNSPEC, first)
    assert_result(node.overlay_ingress(QUESTION), TC_REDIRECT, arp_reply(ALICE, WEB_1))
    assert node.reasons() == {}


def with_a_mac_of_its_own() -> Packet:
    packet = SYN.copy()
    packet[Ether].src = "02:00:00:00:00:01"
    return packet


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(tcp(f"{WEB_2}:40000", f"{WEB_1}:80", flags="S"), id="of somebody else"),
        pytest.param(with_a_mac_of_its_own(), id="with a MAC of its own"),
    ],
)
def test_nobody_else_is_known(node: Node, packet: Packet) -> None:
    node.overlay_egress(packet)
    assert_result(node.overlay_ingress(QUESTION), TC_UNSPEC, QUESTION)


def test_in_another_network_it_is_somebody_else(node: Node) -> None:
    node.overlay_egress(SYN, OTHER_VNI)
    assert_result(node.overlay_ingress(QUESTION, VNI), TC_UNSPEC, QUESTION)


def test_soon_docker_knows(node: Node) -> None:
    node.overlay_egress(SYN)
    node.age_newcomers(2.1)
    assert_result(node.overlay_ingress(QUESTION), TC_UNSPEC, QUESTION)


@pytest.mark.parametrize("sender", [ALICE, "0.0.0.0"])
def test_nobody_is_told_of_his_own_address(node: Node, sender: str) -> None:
    """He would believe that another has it. RFC 5227."""
    node.overlay_egress(SYN)
    question = arp_request(ALICE, ALICE)
    question[ARP].psrc = sender
    assert_result(node.overlay_ingress(question), TC_UNSPEC, question)
