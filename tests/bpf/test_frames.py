# SPDX-License-Identifier: Apache-2.0
"""Frames that are none of the programs' business pass, byte for byte, wherever they occur. ARP."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6ND_RA, IPv6
from scapy.layers.l2 import ARP, STP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    HERE_GATEWAY,
    NODE_A,
    NODE_B,
    OTHER_VNI,
    PUBLISHED,
    TARGET,
    VIP,
    VNI,
    WEB_1,
    arp_reply,
    arp_request,
    docker_mac,
    echo,
    tcp,
    udp,
)
from .node import TC_REDIRECT, TC_SHOT, TC_UNSPEC, XDP_PASS, Node, assert_result
from .prog_run import Result

EVERYONE = "ff:ff:ff:ff:ff:ff"
ALL_HOSTS_MAC = "01:00:5e:00:00:01"
SOURCE, ENTRY = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}"

Run = Callable[[Node, Packet], Result]
PLACES = {
    "nic_xdp": Node.nic_xdp,
    "nic_ingress": Node.nic_ingress,
    "gateway_ingress": Node.gateway_ingress,
    "gateway_egress": Node.gateway_egress,
    "overlay_ingress": Node.overlay_ingress,
    "overlay_egress": Node.overlay_egress,
}


@pytest.fixture(autouse=True)
def furniture(node: Node) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    node.port(PUBLISHED, TARGET).backends(node.here())
    node.port(PUBLISHED, TARGET, socket.IPPROTO_UDP).backends(node.here())


def passed(node: Node, place: str, packet: Packet) -> None:
    result = PLACES[place](node, packet)  # type: ignore[operator]
    assert_result(result, XDP_PASS if place == "nic_xdp" else TC_UNSPEC, packet)
    assert not result.metadata
    assert node.flows() == node.flows("replies") == node.flows("entries") == {}


_ETH = Ether(src=FROM_CLIENT[0], dst=FROM_CLIENT[1])
_TO_VIP = tcp(f"{ALICE}:4000", f"{VIP}:80")[IP]
_TO_PORT = tcp(SOURCE, ENTRY)[IP]
FRAMES = {
    "VLAN to a VIP": _ETH / Dot1Q(vlan=5) / _TO_VIP,
    "VLAN to a port": _ETH / Dot1Q(vlan=5) / _TO_PORT,
    "priority tag": _ETH / Dot1Q(vlan=0, prio=5) / _TO_PORT,
    "two tags": _ETH / Dot1AD(vlan=6) / Dot1Q(vlan=5) / _TO_PORT,
    "VLAN with ARP": _ETH / Dot1Q(vlan=5) / ARP(psrc=ALICE, pdst=VIP),
    "IPv6": _ETH / IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=4000, dport=PUBLISHED),
    "neighbour solicitation": _ETH / IPv6(dst="ff02::1:ff00:2") / ICMPv6ND_NS(tgt="2001:db8::2"),
    "router advertisement": _ETH / IPv6(dst="ff02::1") / ICMPv6ND_RA(),
    "spanning tree": Ether(src=FROM_CLIENT[0], dst="01:80:c2:00:00:00", type=0x26) / STP(),
    "unknown type": Ether(src=FROM_CLIENT[0], dst=EVERYONE, type=0x88CC) / bytes(50),
    "broadcast": udp(SOURCE, f"255.255.255.255:{PUBLISHED}", macs=(FROM_CLIENT[0], EVERYONE)),
    "subnet's broadcast": udp(SOURCE, f"192.0.2.255:{PUBLISHED}", macs=(FROM_CLIENT[0], EVERYONE)),
    "multicast": udp(SOURCE, f"224.0.0.1:{PUBLISHED}", macs=(FROM_CLIENT[0], ALL_HOSTS_MAC)),
    "other protocol": _ETH / IP(src=CLIENT, dst=NODE_A, proto=47) / bytes(40),
}
# The kernel gives packets to a task their 4-tuple there, whatever they are addressed to.
TAKES_PART = {("gateway_egress", name) for name in ("broadcast", "subnet's broadcast", "multicast")}
# A container asks another machine's port: it may meet a balanced flow.
TAKES_PART |= {("gateway_ingress", name) for _, name in TAKES_PART}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("place", PLACES)
def test_frame_passes(node: Node, place: str, name: str) -> None:
    if (place, name) not in TAKES_PART:
        passed(node, place, FRAMES[name])
        return
    result = PLACES[place](node, FRAMES[name])  # type: ignore[operator]
    assert_result(result, 0, FRAMES[name])


# --- the node's own traffic


@pytest.mark.parametrize("place", ["nic_xdp", "nic_ingress"])
@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(
            tcp(SOURCE, f"{NODE_A}:22", macs=FROM_CLIENT), id="port that nobody publishes"
        ),
        pytest.param(tcp(SOURCE, f"{NODE_A}:22", "A", macs=FROM_CLIENT), id="its connections"),
        pytest.param(udp(SOURCE, f"{NODE_A}:53", macs=FROM_CLIENT), id="datagrams"),
        pytest.param(
            tcp(f"{CLIENT}:{PUBLISHED}", f"{NODE_A}:50000", "SA", macs=FROM_CLIENT),
            id="answers of such a port elsewhere",
        ),
        pytest.param(
            udp(f"{NODE_B}:4789", f"{NODE_A}:7946", macs=FROM_CLIENT), id="the Swarm's own"
        ),
        pytest.param(echo(CLIENT, NODE_A, macs=FROM_CLIENT), id="ping"),
        pytest.param(echo(CLIENT, NODE_A, macs=FROM_CLIENT, reply=True), id="answer to its ping"),
    ],
)
def test_traffic_of_the_nodes_own_processes(node: Node, place: str, packet: Packet) -> None:
    passed(node, place, packet)


@pytest.mark.parametrize("place", ["nic_xdp", "nic_ingress"])
def test_same_port_of_another_protocol(node: Node, place: str) -> None:
    node.port(9000, TARGET, socket.IPPROTO_TCP).backends(node.here_too())
    passed(node, place, udp(SOURCE, f"{NODE_A}:9000", macs=FROM_CLIENT))


# --- ARP


def announcement(sender: str, operation: int = 1, target: str | None = None) -> Packet:
    """RFC 5227, 1.1: an announcement names one address twice."""
    mac = docker_mac(ALICE)
    arp = ARP(op=operation, hwsrc=mac, psrc=sender, hwdst=EVERYONE, pdst=target or sender)
    return Ether(src=mac, dst=EVERYONE) / arp


def test_probe_for_a_vip_is_answered(node: Node) -> None:
    """The address is taken: who asks that must not use it."""
    result = node.overlay_ingress(announcement("0.0.0.0", target=VIP))
    assert_result(
        result,
        TC_REDIRECT,
        Ether(src=docker_mac(VIP), dst=docker_mac(ALICE))
        / ARP(op=2, hwsrc=docker_mac(VIP), psrc=VIP, hwdst=docker_mac(ALICE), pdst="0.0.0.0"),
    )


@pytest.mark.parametrize("operation", [1, 2])
@pytest.mark.parametrize("target", [VIP, WEB_1, "10.0.1.1"])
def test_nobody_announces_a_vip(node: Node, operation: int, target: str) -> None:
    packet = announcement(VIP, operation, target)
    assert_result(node.overlay_ingress(packet), TC_SHOT, packet)
    assert node.reasons() == {"drop_spoofed_source": 1}


def test_answer_in_a_vips_name_is_dropped(node: Node) -> None:
    packet = arp_reply(VIP, WEB_1)
    packet[ARP].hwsrc = docker_mac(ALICE)
    assert_result(node.overlay_ingress(packet), TC_SHOT, packet)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(announcement(ALICE), id="announcement"),
        pytest.param(announcement(ALICE, 2), id="announcement by a reply"),
        pytest.param(announcement("0.0.0.0", target=ALICE), id="probe"),
        pytest.param(arp_request(ALICE, WEB_1), id="request"),
        pytest.param(arp_reply(ALICE, WEB_1), id="reply"),
    ],
)
def test_containers_own_arp_passes(node: Node, packet: Packet) -> None:
    passed(node, "overlay_ingress", packet)
    passed(node, "overlay_egress", packet)


@pytest.mark.parametrize("place", ["nic_xdp", "nic_ingress", "gateway_ingress", "gateway_egress"])
@pytest.mark.parametrize(
    "packet", [announcement(VIP), announcement("0.0.0.0", target=VIP), arp_request(ALICE, VIP)]
)
def test_a_vip_means_nothing_outside_its_network(node: Node, place: str, packet: Packet) -> None:
    passed(node, place, packet)


@pytest.mark.parametrize("packet", [announcement(VIP), arp_request(ALICE, VIP)])
def test_nor_in_another_network(node: Node, packet: Packet) -> None:
    assert_result(node.overlay_ingress(packet, OTHER_VNI), TC_UNSPEC, packet)


def test_arp_of_the_task_passes(node: Node) -> None:
    passed(node, "gateway_egress", arp_request(NODE_A, HERE_GATEWAY))
