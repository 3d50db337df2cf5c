# SPDX-License-Identifier: Apache-2.0
"""A router between two nodes finds the tunnel's packets too big: whose packet it was is told."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from .net import (
    CLIENT,
    CLIENT6,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    NODE_A,
    NODE_A6,
    NODE_A_MAC,
    NODE_B,
    NODE_B_MAC,
    PUBLISHED,
    TARGET,
    THERE,
    docker_mac,
    tcp,
    tcp6,
    udp,
    wrapped,
)
from .node import TC_REDIRECT, TC_UNSPEC, XDP_TX, Node, assert_result
from .world import remote

ROUTER, MTU = "192.0.2.1", 1400
SOURCE, ENTRY = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}"
TASK = f"{HERE_GATEWAY}:{TARGET}"
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")
LONGEST = 576 - 28  # of a packet, in what a router says: RFC 1812, 4.3.2.3


def too_big(sent: bytes, mtu: int = MTU, length: int = LONGEST) -> Packet:
    """What the router says of a frame that a node has sent."""
    ip = Ether(sent)[IP]
    frame: Packet = Ether(src="02:00:00:00:00:01", dst=NODE_A_MAC)
    frame /= IP(src=ROUTER, dst=ip.src, id=9, ttl=60)
    return frame / ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(bytes(ip)[:length])


def told(macs: tuple[str, str], ip: IP, quoted: bytes, mtu: int = MTU - 50) -> Packet:
    frame: Packet = Ether(src=macs[0], dst=macs[1]) / ip
    return frame / ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(quoted[: LONGEST - 50])


@pytest.fixture
def entered(node: Node) -> bytes:
    """What A, the entry node, has sent to B of a client's connection."""
    node.port(PUBLISHED, TARGET).backends(remote(THERE))
    node.nic_xdp(tcp(SOURCE, ENTRY, macs=FROM_CLIENT))
    packet = tcp(SOURCE, ENTRY, "A", macs=FROM_CLIENT, payload=bytes(1400))
    sent = node.nic_xdp(packet)
    assert sent.verdict == XDP_TX
    return sent.data


def test_client_is_told(node: Node, entered: bytes) -> None:
    quoted = entered[64:]
    ip = IP(src=NODE_A, dst=CLIENT, id=0, flags="DF", ttl=64)
    expected = told(("02:00:00:00:00:01", NODE_A_MAC), ip, quoted)
    assert_result(node.nic_ingress(too_big(entered)), TC_REDIRECT, expected)
    assert node.reasons() == {}


@pytest.mark.parametrize(("make", "protocol"), [(tcp, 6), (udp, 17)], ids=["tcp", "udp"])
def test_task_is_told(node_b: Node, make: object, protocol: int) -> None:
    """By the packet that it has sent itself, not as it was translated."""
    node_b.port(PUBLISHED, TARGET, protocol).backends(node_b.here())
    ask = make(SOURCE, ENTRY)  # type: ignore[operator]
    node_b.nic_ingress(wrapped(ask, (NODE_A, NODE_B), (NODE_A, HERE), 50000))
    answer = make(TASK, SOURCE, macs=OUT_OF_TASK, payload=bytes(1300))  # type: ignore[operator]
    sent = node_b.gateway_ingress(answer)
    assert sent.verdict == TC_REDIRECT
    error = too_big(sent.data)
    ip = IP(src=ROUTER, dst=HERE_GATEWAY, id=0, flags="DF", ttl=64)
    as_sent = bytearray(bytes(answer[IP]))
    as_sent[8] -= 1  # the hop that it had behind it
    quoted = IP(bytes(as_sent))
    del quoted.chksum
    # The quoted transport checksum stays that of the translated packet: nobody looks at it.
    check = 36 if make is tcp else 26
    raw = bytearray(bytes(quoted))
    raw[check : check + 2] = sent.data[64 + check : 64 + check + 2]
    expected = told(("02:00:00:00:00:01", docker_mac(HERE_GATEWAY)), ip, bytes(raw))
    assert_result(node_b.nic_ingress(error), TC_REDIRECT, expected)
    assert node_b.reasons() == {}


def test_client_of_ipv6_is_told(node: Node) -> None:
    node.addresses(NODE_A6)
    node.port(PUBLISHED, TARGET).backends(remote(THERE))
    node.nic_ip6(tcp6((CLIENT6, 4000), (NODE_A6, PUBLISHED)))
    packet = tcp6((CLIENT6, 4000), (NODE_A6, PUBLISHED), "A", payload=bytes(1300))
    sent = node.nic_ip6(packet)
    assert sent.verdict == TC_REDIRECT
    result = node.nic_ingress(too_big(sent.data))
    assert result.verdict == TC_REDIRECT
    assert result.data[12:14] == b"\x86\xdd"
    assert result.data[54:56] == b"\x02\x00"  # packet too big
    assert int.from_bytes(result.data[58:62], "big") == MTU - 50 + 20
    assert node.reasons() == {}


def forged(**fields: object) -> bytes:
    """A frame of the tunnel, but for these fields."""
    inside = tcp(SOURCE, ENTRY, "A", payload=bytes(1400))
    frame = wrapped(inside, (NODE_A, NODE_B), (NODE_A, THERE), 50000, (NODE_A_MAC, NODE_B_MAC))
    for name, value in fields.items():
        layer = VXLAN if name == "vni" else UDP if name == "dport" else IP
        setattr(frame[layer], name, value)
    del frame[IP].chksum
    return bytes(frame)


OTHER_FLOW = wrapped(tcp(f"{CLIENT}:4001", ENTRY, "A"), (NODE_A, NODE_B), (NODE_A, THERE), 50000)
KERNELS = [
    pytest.param(too_big(forged(vni=4097)), id="an overlay's"),
    pytest.param(too_big(forged(dport=4790)), id="another port's"),
    pytest.param(too_big(forged(dst="192.0.2.99")), id="to no node"),
    pytest.param(too_big(forged(src=NODE_B)), id="of another node"),
    pytest.param(too_big(bytes(OTHER_FLOW)), id="an unknown flow's"),
    pytest.param(too_big(forged(), mtu=575), id="below 576"),
    pytest.param(too_big(forged(), mtu=0), id="of a router that says no size"),
    pytest.param(too_big(forged(), mtu=1500), id="no news"),
    pytest.param(too_big(forged(), length=28), id="quotes too little"),
    pytest.param(too_big(forged(), length=50 + 20 + 7), id="quotes nearly enough"),
]


@pytest.mark.parametrize("message", KERNELS)
def test_what_is_no_news_of_ours_is_the_kernels(
    node: Node, entered: bytes, message: Packet
) -> None:
    assert entered[64:72] == forged()[64:72]
    message[IP].dst = NODE_A
    assert_result(node.nic_ingress(message), TC_UNSPEC, message)
    assert node.reasons() == {"handback_other_protocol": 1}


def test_it_has_to_come_from_the_nodes(node: Node, entered: bytes) -> None:
    """By the NIC to the other nodes, where the tunnel is."""
    message = too_big(entered)
    assert_result(node.nic_ingress(message, device="nic1"), TC_UNSPEC, message)
