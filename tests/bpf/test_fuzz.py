# SPDX-License-Identifier: Apache-2.0
"""Arbitrary packets: a program ends with a verdict of its own, and makes no flow of nonsense."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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
from .node import TC_OK, TC_REDIRECT, TC_SHOT, TC_UNSPEC, XDP_DROP, XDP_PASS, XDP_TX, Node
from .prog_run import Result
from .world import remote

Run = Callable[[Node, bytes], Result]  # without the further arguments that some programs take

TC_VERDICTS = {TC_UNSPEC, TC_OK, TC_SHOT, TC_REDIRECT}
PROGRAMS: dict[str, tuple[Run, set[int]]] = {
    "nic_xdp": (Node.nic_xdp, {XDP_DROP, XDP_PASS, XDP_TX}),
    "nic_ingress": (Node.nic_ingress, TC_VERDICTS),
    "gateway_ingress": (Node.gateway_ingress, TC_VERDICTS),
    "gateway_egress": (Node.gateway_egress, {TC_UNSPEC, TC_OK, TC_SHOT}),
    "overlay_ingress": (Node.overlay_ingress, TC_VERDICTS),
    "overlay_egress": (Node.overlay_egress, {TC_UNSPEC, TC_OK, TC_SHOT}),
}
SHORTEST = 34  # the kernel refuses to run a tc program on less than an IPv4 header

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


def _mutated(seed: Packet, changes: list[tuple[int, int]], length: int) -> bytes:
    data = bytearray(bytes(seed))
    for place, value in changes:
        data[place % len(data)] = value
    return bytes(data[: max(SHORTEST, len(data) - length)])


_CHANGE = st.tuples(st.integers(0, 160), st.integers(0, 255))
mutations = st.builds(
    _mutated, st.sampled_from(SEEDS), st.lists(_CHANGE, max_size=4), st.integers(0, 80)
)
noise = st.binary(min_size=SHORTEST, max_size=200)
packets = st.one_of(mutations, noise)


@pytest.fixture(autouse=True, params=[True, False], ids=["local", "remote"])
def furniture(node: Node, request: pytest.FixtureRequest) -> None:
    for protocol, target in ((6, TARGET), (17, TARGET), (132, PUBLISHED)):
        node.port(PUBLISHED, target, protocol).backends(
            node.here() if request.param else remote(THERE)
        )
    node.vip(VIP, VNI).backends(WEB_1)


fuzz = settings(
    max_examples=300,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("name", PROGRAMS)
@fuzz
@given(packet=packets)
def test_verdict(node: Node, name: str, packet: bytes) -> None:
    run, verdicts = PROGRAMS[name]
    result = run(node, packet)
    assert result.verdict in verdicts
    passed = {XDP_PASS} if name == "nic_xdp" else {TC_UNSPEC}
    if result.verdict in passed and not result.metadata:
        assert result.data == packet


def _untouched(node: Node) -> bool:
    return not (node.flows() or node.flows("replies") or node.flows("entries"))


@pytest.mark.parametrize("name", PROGRAMS)
@fuzz
@given(packet=st.one_of(noise, mutations.map(lambda data: data[:40])))
def test_no_flow_of_what_has_no_headers(node: Node, name: str, packet: bytes) -> None:
    """Less than an IPv4 and a UDP header, or mere noise."""
    PROGRAMS[name][0](node, packet)
    assert _untouched(node)


HANDED_BACK = [
    pytest.param(12, 0x81, id="VLAN"),
    pytest.param(14, 0x55, id="version"),
    pytest.param(14, 0x44, id="header too short"),
    pytest.param(14, 0x46, id="options"),
    pytest.param(20, 0x20, id="more fragments"),
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
        PROGRAMS[name][0](node, bytes(data))
        assert _untouched(node)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("length", [0, 20, 27, 1400, 65535])
def test_no_flow_of_a_packet_whose_length_is_not_true(node: Node, name: str, length: int) -> None:
    """Its IPv4 header claims more than there is, or less than the headers need."""
    for seed in UNWRAPPED:
        data = bytearray(bytes(seed))
        data[16:18] = length.to_bytes(2, "big")
        result = PROGRAMS[name][0](node, bytes(data))
        assert result.data == data
        assert _untouched(node)


@pytest.mark.parametrize("seed", UNWRAPPED[:3])
def test_padding_is_no_hindrance(node: Node, seed: Packet) -> None:
    padded = bytes(seed) + bytes(20)
    assert node.nic_xdp(padded).verdict in {XDP_PASS, XDP_TX}
    assert len(node.flows("entries")) == 1
