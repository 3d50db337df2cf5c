# SPDX-License-Identifier: Apache-2.0
"""What finds no room in the tunnel, and may not be fragmented: its sender is told the room."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from .net import (
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    NODE_A,
    NODE_B,
    PUBLISHED,
    TARGET,
    THERE,
    docker_mac,
    fragments,
    udp,
    wrapped,
)
from .node import TC_REDIRECT, TC_SHOT, Node, assert_result
from .world import remote

SOURCE, ENTRY = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}"
ROOM = 1500 - 50
HEADERS = 28


def fragmentation_needed(packet: Packet, room: int = ROOM) -> Packet:
    """As if sent by whom the packet was for, with its header and eight bytes more."""
    eth, ip = packet[Ether], packet[IP]
    quoted = IP(bytes(ip)[:HEADERS])
    answer = IP(src=ip.dst, dst=ip.src, id=0, flags="DF", ttl=64)
    error = ICMP(type=3, code=4, nexthopmtu=room)
    return Ether(src=eth.dst, dst=eth.src) / answer / error / quoted


def datagram(source: str, destination: str, length: int, macs: tuple[str, str]) -> Packet:
    """A datagram whose IPv4 packet has that length."""
    packet = udp(source, destination, macs=macs, payload=bytes(length - HEADERS))
    packet[IP].flags = "DF"
    return packet


@pytest.fixture
def node_b(node: Node) -> Node:
    node.addresses(NODE_A)
    node.node(NODE_B)
    return node


@pytest.mark.parametrize("length", [ROOM + 1, 1500])
def test_client_is_told(node_b: Node, length: int) -> None:
    node_b.port(PUBLISHED, TARGET, 17).backends(remote(THERE))
    packet = datagram(SOURCE, ENTRY, length, FROM_CLIENT)
    assert_result(node_b.nic_ingress(packet), TC_REDIRECT, fragmentation_needed(packet))
    assert node_b.reasons() == {"drop_too_big": 1}


def test_what_just_fits_goes_on(node_b: Node) -> None:
    node_b.port(PUBLISHED, TARGET, 17).backends(remote(THERE))
    packet = datagram(SOURCE, ENTRY, ROOM, FROM_CLIENT)
    result = node_b.nic_ingress(packet)
    assert (result.verdict, len(result.data)) == (TC_REDIRECT, len(packet) + 50)


def test_task_is_told(node_b: Node) -> None:
    node_b.port(PUBLISHED, TARGET, 17).backends(node_b.here())
    request = udp(SOURCE, f"{NODE_B}:{PUBLISHED}")
    node_b.nic_ingress(wrapped(request, (NODE_B, NODE_A), (NODE_B, HERE), 50000))
    out = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")
    answer = datagram(f"{HERE_GATEWAY}:{TARGET}", SOURCE, 1500, out)
    assert_result(node_b.gateway_ingress(answer), TC_REDIRECT, fragmentation_needed(answer))


@pytest.mark.parametrize(("place", "told"), [(0, True), (1, False)])
def test_only_the_first_fragment_is_answered(node_b: Node, place: int, told: bool) -> None:
    node_b.port(PUBLISHED, TARGET, 17).backends(remote(THERE))
    pieces = fragments(datagram(SOURCE, ENTRY, 4000, FROM_CLIENT))
    node_b.nic_ingress(pieces[0])
    piece = pieces[place]
    if told:
        assert_result(node_b.nic_ingress(piece), TC_REDIRECT, fragmentation_needed(piece))
    else:
        assert node_b.nic_ingress(piece).verdict == TC_SHOT
    assert node_b.reasons() == {"drop_too_big": 2}
