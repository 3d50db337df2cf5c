# SPDX-License-Identifier: Apache-2.0
"""ICMP errors about translated flows: outside and inside (the quoted packet) turned back."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    NODE_A,
    NODE_B,
    PUBLISHED,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    Macs,
    between,
    docker_mac,
    tcp,
    udp,
    wrapped,
)
from .node import TC_OK, TC_REDIRECT, TC_UNSPEC, XDP_PASS, Node, assert_result
from .world import remote

ROUTER = "10.0.1.254"
PORT_UNREACHABLE = {"type": 3, "code": 3}
TOO_BIG = {"type": 3, "code": 4, "nexthopmtu": 1400}
EXPIRED = {"type": 11, "code": 0}
ERRORS = [
    pytest.param(PORT_UNREACHABLE, id="port unreachable"),
    pytest.param(TOO_BIG, id="fragmentation needed"),
    pytest.param(EXPIRED, id="time exceeded"),
]


def error(source: str, about: Packet, macs: Macs, fields: dict[str, Any]) -> Packet:
    """From `source` to the sender of `about`, quoting its header and eight bytes more."""
    quoted = IP(bytes(about[IP])[:28])
    answer = IP(src=source, dst=about[IP].src)
    return Ether(src=macs[0], dst=macs[1]) / answer / ICMP(**fields) / quoted


@pytest.fixture
def web(node: Node) -> Node:
    node.vip(VIP, VNI).backends(WEB_1)
    return node


@pytest.mark.parametrize("fields", ERRORS)
@pytest.mark.parametrize("sender", [WEB_1, ROUTER])
def test_client_knows_its_packet_again(web: Node, fields: dict[str, Any], sender: str) -> None:
    asked = tcp(f"{ALICE}:4000", f"{VIP}:80")
    translated = web.overlay_ingress(asked)
    macs = between(WEB_1, ALICE)
    result = web.overlay_egress(error(sender, Ether(translated.data), macs, fields))
    shown = VIP if sender == WEB_1 else sender
    assert result.verdict == TC_OK
    assert_addresses(result.data, error(shown, asked, macs, fields))
    assert checksums_are_right(result.data)


def assert_addresses(data: bytes, expected: Packet) -> None:
    found, wanted = Ether(data), Ether(bytes(expected))
    assert (found.src, found.dst) == (wanted.src, wanted.dst)
    assert (found[IP].src, found[IP].dst) == (wanted[IP].src, wanted[IP].dst)
    inner, inner_wanted = bytes(found[ICMP].payload), bytes(wanted[ICMP].payload)
    assert inner[10:24] == inner_wanted[10:24]  # header checksum, addresses, ports


def checksums_are_right(data: bytes) -> bool:
    """Of the outer header, of ICMP, and of the quoted header."""
    spans = (data[14:34], data[34:], data[42:62])
    return all(_sum(span) == 0xFFFF for span in spans)


def _sum(data: bytes) -> int:
    padded = data + bytes(len(data) % 2)
    total = sum(int.from_bytes(padded[i : i + 2]) for i in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("fields", ERRORS)
def test_backend_knows_its_answer_again(web: Node, fields: dict[str, Any]) -> None:
    web.overlay_ingress(udp(f"{ALICE}:4000", f"{VIP}:80"))
    answer = udp(f"{WEB_1}:80", f"{ALICE}:4000")
    seen = Ether(web.overlay_egress(answer).data)
    result = web.overlay_ingress(error(ALICE, seen, between(ALICE, VIP), fields))
    assert result.verdict == TC_OK
    assert_addresses(result.data, error(ALICE, answer, between(ALICE, WEB_1), fields))
    assert checksums_are_right(result.data)


def test_error_about_a_changed_port_names_the_clients_own(web: Node) -> None:
    """The flow got another source port, because a direct one had the first."""
    web.overlay_ingress(tcp(f"{ALICE}:4000", f"{WEB_1}:80"))
    asked = tcp(f"{ALICE}:4000", f"{VIP}:80")
    translated = Ether(web.overlay_ingress(asked).data)
    assert translated.sport != 4000
    macs = between(WEB_1, ALICE)
    result = web.overlay_egress(error(WEB_1, translated, macs, PORT_UNREACHABLE))
    assert_addresses(result.data, error(VIP, asked, macs, PORT_UNREACHABLE))
    assert checksums_are_right(result.data)


def test_error_about_a_strangers_packet_passes(web: Node) -> None:
    about = udp(f"{ALICE}:4000", f"{WEB_1}:80")
    packet = error(WEB_1, about, between(WEB_1, ALICE), PORT_UNREACHABLE)
    assert_result(web.overlay_egress(packet), TC_UNSPEC, packet)


SOURCE, ENTRY = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}"
TASK = f"{HERE_GATEWAY}:{TARGET}"
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")


@pytest.fixture
def published(node: Node) -> Node:
    node.addresses(NODE_A)
    node.node(NODE_B)
    node.port(PUBLISHED, TARGET, 17).backends(node.here())
    return node


@pytest.mark.parametrize("fields", ERRORS)
def test_task_hears_of_its_answer(published: Node, fields: dict[str, Any]) -> None:
    published.nic_ingress(udp(SOURCE, ENTRY, macs=FROM_CLIENT))
    answer = udp(TASK, SOURCE, macs=OUT_OF_TASK, ttl=63)  # as it was when it left
    seen = udp(ENTRY, SOURCE, macs=(FROM_CLIENT[1], FROM_CLIENT[0]))
    result = published.nic_ingress(error(CLIENT, seen, FROM_CLIENT, fields))
    assert result.verdict == TC_REDIRECT
    into_task = (FROM_CLIENT[0], docker_mac(HERE_GATEWAY))
    assert_addresses(result.data, error(CLIENT, answer, into_task, fields))
    assert checksums_are_right(result.data)


def test_client_hears_that_the_tasks_port_is_closed(published: Node) -> None:
    asked = udp(SOURCE, ENTRY, macs=FROM_CLIENT)
    translated = Ether(published.nic_ingress(asked).data)
    closed = error(HERE_GATEWAY, translated, OUT_OF_TASK, PORT_UNREACHABLE)
    result = published.gateway_ingress(closed)
    assert result.verdict == TC_REDIRECT
    asked[IP].ttl = 63  # as the task has seen it
    assert_addresses(result.data, error(NODE_A, asked, OUT_OF_TASK, PORT_UNREACHABLE))
    assert checksums_are_right(result.data)


def test_error_goes_on_to_the_tasks_node(node: Node) -> None:
    node.addresses(NODE_A)
    node.node(NODE_B)
    node.port(PUBLISHED, TARGET, 17).backends(remote(THERE))
    node.nic_xdp(udp(SOURCE, ENTRY, macs=FROM_CLIENT))
    seen = udp(ENTRY, SOURCE)
    packet = error(CLIENT, seen, FROM_CLIENT, TOO_BIG)
    assert node.nic_xdp(packet).verdict == XDP_PASS  # only tc can translate it
    result = node.nic_ingress(packet)
    assert result.verdict == TC_REDIRECT
    assert (Ether(result.data)[IP].src, Ether(result.data)[IP].dst) == (NODE_A, NODE_B)
    assert result.data[14 + 50 :] == bytes(packet[IP])


def test_error_through_the_tunnel_reaches_the_task(published: Node) -> None:
    entry_b = f"{NODE_B}:{PUBLISHED}"
    request = udp(SOURCE, entry_b)
    published.nic_ingress(wrapped(request, (NODE_B, NODE_A), (NODE_B, HERE), 50000))
    packet = error(CLIENT, udp(entry_b, SOURCE), FROM_CLIENT, TOO_BIG)
    tunnelled = wrapped(packet, (NODE_B, NODE_A), (NODE_B, HERE), 50000)
    assert published.nic_xdp(tunnelled).verdict == XDP_PASS
    result = published.nic_ingress(tunnelled)
    assert result.verdict == TC_REDIRECT
    answer = udp(TASK, SOURCE, ttl=63)
    found = Ether(result.data)
    assert (found[IP].src, found[IP].dst) == (CLIENT, HERE_GATEWAY)
    assert bytes(found[ICMP].payload)[10:24] == bytes(answer[IP])[10:24]
    assert checksums_are_right(result.data)


def test_error_about_nothing_of_ours_is_the_kernels(published: Node) -> None:
    packet = error(CLIENT, udp(f"{NODE_A}:53", SOURCE), FROM_CLIENT, PORT_UNREACHABLE)
    assert_result(published.nic_ingress(packet), TC_UNSPEC, packet)
    assert published.reasons() == {"handback_other_protocol": 1}
