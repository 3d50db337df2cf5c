# SPDX-License-Identifier: Apache-2.0
"""IPv4 options: off, where a packet is balanced; untouched, where it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scapy.layers.inet import (
    IP,
    IPOption_EOL,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
    IPOption_Timestamp,
)
from scapy.packet import Packet

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    HERE_GATEWAY,
    NODE_A,
    OTHER_VNI,
    PUBLISHED,
    STRANGER,
    TARGET,
    VIP,
    VNI,
    WEB_1,
    between,
    docker_mac,
    echo,
    sctp,
    tcp,
    udp,
)
from .node import TC_OK, TC_REDIRECT, TC_UNSPEC, XDP_PASS, Node, assert_result

ASKING, SERVER = f"{ALICE}:4000", f"{VIP}:80"
SOURCE, ENTRY = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}"
TASK = f"{HERE_GATEWAY}:{TARGET}"
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")
INTO_TASK = (FROM_CLIENT[0], docker_mac(HERE_GATEWAY))

OPTIONS = [
    pytest.param([IPOption_NOP(), IPOption_EOL()], id="4 bytes"),
    pytest.param([IPOption_Router_Alert()], id="router alert"),
    pytest.param([IPOption_RR(routers=["0.0.0.0"] * 9, pointer=4), IPOption_EOL()], id="40 bytes"),
    pytest.param([IPOption_Timestamp(timestamp=0)], id="time stamp"),
]
MAKERS = [
    pytest.param(tcp, 6, id="tcp"),
    pytest.param(udp, 17, id="udp"),
    pytest.param(sctp, 132, id="sctp"),
]
MakePacket = Callable[..., Packet]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("make", "protocol"), MAKERS)
def test_packet_to_a_vip_goes_on_without(
    node: Node, make: MakePacket, protocol: int, options: list[Packet]
) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    result = node.overlay_ingress(make(ASKING, SERVER, payload=b"hello", options_of_ip=options))
    assert_result(result, TC_OK, make(ASKING, f"{WEB_1}:80", payload=b"hello"))
    assert node.reasons() == {}
    assert len(node.flows()) == 1


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("make", "protocol"), MAKERS)
def test_packet_to_a_published_port_goes_on_without(
    node: Node, make: MakePacket, protocol: int, options: list[Packet]
) -> None:
    node.port(PUBLISHED, TARGET, protocol).backends(node.here())
    packet = make(SOURCE, ENTRY, macs=FROM_CLIENT, payload=b"hello", options_of_ip=options)
    assert_result(node.nic_xdp(packet), XDP_PASS, packet)
    expected = make(SOURCE, TASK, macs=INTO_TASK, payload=b"hello", ttl=63)
    assert_result(node.nic_ingress(packet), TC_REDIRECT, expected)
    assert node.reasons() == {}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("make", "protocol"), MAKERS)
def test_answer_from_behind_a_vip_goes_on_without(
    node: Node, make: MakePacket, protocol: int, options: list[Packet]
) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    node.overlay_ingress(make(ASKING, SERVER))
    answer = make(f"{WEB_1}:80", ASKING, payload=b"hello", options_of_ip=options)
    expected = make(SERVER, ASKING, macs=between(WEB_1, ALICE), payload=b"hello")
    assert_result(node.overlay_egress(answer), TC_OK, expected)
    assert node.reasons() == {}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("make", "protocol"), MAKERS)
def test_answer_to_a_published_port_goes_on_without(
    node: Node, make: MakePacket, protocol: int, options: list[Packet]
) -> None:
    node.port(PUBLISHED, TARGET, protocol).backends(node.here())
    node.nic_ingress(make(SOURCE, ENTRY, macs=FROM_CLIENT))
    answer = make(TASK, SOURCE, macs=OUT_OF_TASK, payload=b"hello", options_of_ip=options)
    expected = make(ENTRY, SOURCE, macs=OUT_OF_TASK, payload=b"hello", ttl=63)
    assert_result(node.gateway_ingress(answer), TC_REDIRECT, expected)
    assert node.reasons() == {}


def test_answer_of_nobody_keeps_them(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(node.here())
    options = [IPOption_Router_Alert()]
    for result, packet in (
        (node.gateway_ingress, tcp(TASK, SOURCE, "SA", macs=OUT_OF_TASK, options_of_ip=options)),
        (node.overlay_egress, tcp(f"{WEB_1}:80", ASKING, "SA", options_of_ip=options)),
    ):
        assert_result(result(packet), TC_UNSPEC, packet)
    assert node.reasons() == {"handback_ip_options": 1}


@pytest.mark.parametrize("options", OPTIONS)
def test_ping_of_a_vip_is_answered_without(node: Node, options: list[Packet]) -> None:
    node.vip(VIP, VNI)
    result = node.overlay_ingress(echo(ALICE, VIP, options=options))
    assert_result(result, TC_REDIRECT, echo(VIP, ALICE, reply=True))


def test_vip_without_backends_refuses_them_too(node: Node) -> None:
    node.vip(VIP, VNI)
    result = node.overlay_ingress(tcp(ASKING, SERVER, options_of_ip=[IPOption_Router_Alert()]))
    assert result.verdict == TC_REDIRECT
    assert node.reasons() == {"drop_no_backend": 1}


@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_not_balanced_keeps_them(node: Node, options: list[Packet]) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    node.port(PUBLISHED, TARGET).backends(node.here())
    direct = tcp(ASKING, "10.0.1.99:80", options_of_ip=options)
    assert_result(node.overlay_ingress(direct), TC_UNSPEC, direct)
    elsewhere = tcp(ASKING, SERVER, options_of_ip=options)
    assert_result(node.overlay_ingress(elsewhere, OTHER_VNI), TC_UNSPEC, elsewhere)
    for packet in (
        tcp(SOURCE, f"{NODE_A}:81", macs=FROM_CLIENT, options_of_ip=options),
        udp(SOURCE, ENTRY, macs=FROM_CLIENT, options_of_ip=options),
        tcp(SOURCE, f"{STRANGER}:{PUBLISHED}", macs=FROM_CLIENT, options_of_ip=options),
        echo(CLIENT, NODE_A, options=options),
    ):
        assert_result(node.nic_ingress(packet), TC_UNSPEC, packet)
    assert node.reasons() == {"handback_ip_options": 6}
    assert node.flows() == node.flows("entries") == {}


def test_wrong_header_is_not_made_right(node: Node) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    packet = bytearray(bytes(tcp(ASKING, SERVER, options_of_ip=[IPOption_Router_Alert()])))
    packet[22] ^= 1
    assert_result(node.overlay_ingress(bytes(packet)), TC_UNSPEC, bytes(packet))
    assert node.reasons() == {"handback_ip_options": 1}


@pytest.mark.parametrize("ihl", [6, 10, 15])
def test_header_longer_than_the_packet(node: Node, ihl: int) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    packet = bytearray(bytes(udp(ASKING, SERVER, payload=b""))[:38])
    packet[14] = 0x40 | ihl
    assert_result(node.overlay_ingress(bytes(packet)), TC_UNSPEC, bytes(packet))
    assert node.flows() == {}


def test_task_behind_the_vip_is_the_same_with_and_without(node: Node) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    node.overlay_ingress(tcp(ASKING, SERVER))
    late = tcp(ASKING, SERVER, "A", options_of_ip=[IPOption_NOP()])
    expected = tcp(ASKING, f"{WEB_1}:80", "A", macs=between(ALICE, WEB_1))
    assert_result(node.overlay_ingress(late), TC_OK, expected)
    assert IP(bytes(late[IP])).ihl == 6
