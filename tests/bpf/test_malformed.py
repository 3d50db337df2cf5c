# SPDX-License-Identifier: Apache-2.0
"""Packets that are not what they claim to be make no flow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scapy.packet import Packet

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    NODE_A,
    NODE_B,
    NODE_B_MAC,
    PUBLISHED,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    arp_request,
    echo,
    sctp,
    tcp,
    udp,
    wrapped,
)
from .node import XDP_PASS, XDP_TX, Node
from .prog_run import Result
from .world import remote

PROGRAMS: dict[str, Callable[[Node, bytes], Result]] = {
    "nic_xdp": Node.nic_xdp,
    "nic_ingress": Node.nic_ingress,
    "gateway_ingress": Node.gateway_ingress,
    "gateway_egress": Node.gateway_egress,
    "overlay_ingress": Node.overlay_ingress,
    "overlay_egress": Node.overlay_egress,
}
_ARRIVED = (NODE_B_MAC, FROM_CLIENT[1])
_SYN = tcp(f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}", macs=FROM_CLIENT, options=[("MSS", 1460)])
_BY_B = tcp(f"{CLIENT}:4000", f"{NODE_B}:{PUBLISHED}", options=[("MSS", 1460)])
_ANSWER = tcp(f"{NODE_A}:{PUBLISHED}", f"{CLIENT}:4000", "SA")

SEEDS: list[Packet] = [
    _SYN,
    udp(f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}", macs=FROM_CLIENT),
    sctp(f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}", macs=FROM_CLIENT),
    wrapped(_BY_B, (NODE_B, NODE_A), (NODE_B, HERE), 0xC001, _ARRIVED),
    wrapped(_ANSWER, (NODE_B, NODE_A), (NODE_B, NODE_A), 0xC001, _ARRIVED),
    tcp(f"{HERE_GATEWAY}:{TARGET}", f"{CLIENT}:4000", "SA", options=[("MSS", 1460)]),
    tcp(f"{ALICE}:4000", f"{VIP}:80"),
    tcp(f"{WEB_1}:4000", f"{VIP}:80"),
    udp(f"{WEB_1}:53", f"{ALICE}:4000"),
    echo(ALICE, VIP),
    arp_request(ALICE, VIP),
]


@pytest.fixture(autouse=True, params=[True, False], ids=["local", "remote"])
def furniture(node: Node, request: pytest.FixtureRequest) -> None:
    for protocol, target in ((6, TARGET), (17, TARGET), (132, PUBLISHED)):
        node.port(PUBLISHED, target, protocol).backends(
            node.here() if request.param else remote(THERE)
        )
    node.vip(VIP, VNI).backends(WEB_1)


def _untouched(node: Node) -> bool:
    return not (node.flows() or node.flows("replies") or node.flows("entries"))


HANDED_BACK = [
    pytest.param(12, 0x81, id="VLAN"),
    pytest.param(14, 0x55, id="version"),
    pytest.param(14, 0x44, id="header too short"),
    pytest.param(14, 0x46, id="options"),
    pytest.param(21, 0x01, id="fragment offset"),
    pytest.param(23, 0x29, id="protocol"),
]
UNWRAPPED = SEEDS[:3] + SEEDS[6:8]


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(("place", "value"), HANDED_BACK)
def test_no_flow_of_a_packet_that_is_handed_back(
    node: Node, name: str, place: int, value: int
) -> None:
    for seed in UNWRAPPED:
        data = bytearray(bytes(seed))
        data[place] = value
        PROGRAMS[name](node, bytes(data))
        assert _untouched(node)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("length", [0, 20, 27, 1400, 65535])
def test_no_flow_of_a_packet_whose_length_is_not_true(node: Node, name: str, length: int) -> None:
    """Its IPv4 header claims more than there is, or less than the headers need."""
    for seed in UNWRAPPED:
        data = bytearray(bytes(seed))
        data[16:18] = length.to_bytes(2, "big")
        result = PROGRAMS[name](node, bytes(data))
        assert result.data == data
        assert _untouched(node)


@pytest.mark.parametrize("seed", UNWRAPPED[:3])
def test_padding_is_no_hindrance(node: Node, seed: Packet) -> None:
    padded = bytes(seed) + bytes(20)
    assert node.nic_xdp(padded).verdict in {XDP_PASS, XDP_TX}
    assert len(node.flows("entries")) == 1
