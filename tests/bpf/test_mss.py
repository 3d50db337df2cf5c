# SPDX-License-Identifier: Apache-2.0
"""Where a connection goes through the tunnel, its ends are told to leave room for it."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from .net import (
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    NODE_A,
    NODE_A_MAC,
    NODE_B,
    NODE_B_MAC,
    PUBLISHED,
    TARGET,
    THERE,
    TUNNEL_MSS,
    docker_mac,
    tcp,
    tunnel_port,
    wrapped,
)
from .node import TC_REDIRECT, XDP_TX, Node, assert_result
from .world import remote

SOURCE = f"{CLIENT}:4000"
ENTRY = f"{NODE_A}:{PUBLISHED}"
TASK = f"{HERE_GATEWAY}:{TARGET}"
ARRIVED = (NODE_A_MAC, NODE_B_MAC)
INTO_TASK = (NODE_A_MAC, docker_mac(HERE_GATEWAY))
RETURNED = (NODE_B_MAC, NODE_A_MAC)
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")

Options = list[Any]
NOP: Any = ("NOP", None)
EOL: Any = ("EOL", None)

CASES = [
    pytest.param([("MSS", 1460)], [("MSS", TUNNEL_MSS)], id="alone"),
    pytest.param([("MSS", 65495)], [("MSS", TUNNEL_MSS)], id="of a loopback"),
    pytest.param([("MSS", TUNNEL_MSS)], [("MSS", TUNNEL_MSS)], id="just right"),
    pytest.param([("MSS", 536)], [("MSS", 536)], id="lower already"),
    pytest.param([], [], id="no options"),
    pytest.param([("WScale", 7), NOP], [("WScale", 7), NOP], id="absent"),
    pytest.param(
        [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 2)), NOP, ("WScale", 7)],
        [("MSS", TUNNEL_MSS), ("SAckOK", b""), ("Timestamp", (1, 2)), NOP, ("WScale", 7)],
        id="as Linux sends it",
    ),
    pytest.param([NOP, NOP, ("MSS", 1460)], [NOP, NOP, ("MSS", TUNNEL_MSS)], id="behind two NOPs"),
    pytest.param(
        [NOP, ("MSS", 1460), NOP, NOP, NOP],
        [NOP, ("MSS", TUNNEL_MSS), NOP, NOP, NOP],
        id="at an odd place",
    ),
    pytest.param(
        [("WScale", 7), ("MSS", 1460), NOP],
        [("WScale", 7), ("MSS", TUNNEL_MSS), NOP],
        id="at an odd place, behind an option",
    ),
    pytest.param(
        [("Timestamp", (1, 2)), ("SAckOK", b""), ("MSS", 1460)],
        [("Timestamp", (1, 2)), ("SAckOK", b""), ("MSS", TUNNEL_MSS)],
        id="last",
    ),
    pytest.param(
        [EOL, ("MSS", 1460), NOP, NOP, NOP],
        [EOL, ("MSS", 1460), NOP, NOP, NOP],
        id="behind the end",
    ),
]


def arrive(node: Node, packet: Packet | bytes, padding: bytes = b"") -> Any:
    packet = Ether(bytes(packet))
    tunnel = wrapped(packet, (NODE_A, NODE_B), (NODE_A, HERE), 0xC001, ARRIVED)
    return node.nic_ingress(bytes(tunnel) + padding)


@pytest.mark.parametrize("payload", [b"", b"odd"], ids=["bare", "with data"])
@pytest.mark.parametrize(("sent", "expected"), CASES)
def test_syn(node_b: Node, sent: Options, expected: Options, payload: bytes) -> None:
    node_b.port(PUBLISHED, TARGET).backends(node_b.here())
    result = arrive(node_b, tcp(SOURCE, ENTRY, macs=ARRIVED, options=sent, payload=payload))
    at_task = tcp(SOURCE, TASK, macs=INTO_TASK, options=expected, payload=payload)
    assert_result(result, TC_REDIRECT, at_task)


@pytest.mark.parametrize("payload", [b"", b"odd"], ids=["bare", "with data"])
@pytest.mark.parametrize(("sent", "expected"), CASES)
def test_syn_at_its_entry_node(
    node: Node, sent: Options, expected: Options, payload: bytes
) -> None:
    """Which may have less room for the answers than the node of the task."""
    node.port(PUBLISHED, TARGET).backends(remote(THERE))
    packet = tcp(SOURCE, ENTRY, macs=FROM_CLIENT, options=sent, payload=payload)
    clamped = tcp(SOURCE, ENTRY, macs=FROM_CLIENT, options=expected, payload=payload)
    port = tunnel_port(packet)
    inner = (NODE_A, THERE)
    by_xdp = wrapped(clamped, (NODE_A, NODE_B), inner, port)
    assert_result(node.nic_xdp(packet), XDP_TX, by_xdp)
    by_tc = wrapped(clamped, (NODE_A, NODE_B), inner, port, FROM_CLIENT)
    assert_result(node.nic_ingress(packet), TC_REDIRECT, by_tc)


def test_syn_at_its_entry_node_whose_answers_go_straight(node_dsr: Node) -> None:
    node_dsr.port(PUBLISHED, TARGET).backends(remote(THERE, NODE_A))
    packet = tcp(SOURCE, f"{NODE_B}:{PUBLISHED}", macs=FROM_CLIENT, options=[("MSS", 1460)])
    for result in (node_dsr.nic_xdp(packet), node_dsr.nic_ingress(packet)):
        assert result.data.endswith(bytes(packet)[14:])


@pytest.mark.parametrize(("sent", "expected"), CASES)
def test_syn_ack(node_b: Node, sent: Options, expected: Options) -> None:
    node_b.port(PUBLISHED, TARGET).backends(node_b.here())
    arrive(node_b, tcp(SOURCE, ENTRY, macs=ARRIVED))
    reply = tcp(TASK, SOURCE, "SA", macs=OUT_OF_TASK, options=sent)
    clamped = tcp(ENTRY, SOURCE, "SA", options=expected)
    returned = wrapped(clamped, (NODE_B, NODE_A), (NODE_B, NODE_A), tunnel_port(reply), OUT_OF_TASK)
    assert_result(node_b.gateway_ingress(reply), TC_REDIRECT, returned)


@pytest.mark.parametrize("program", ["nic_xdp", "nic_ingress"])
@pytest.mark.parametrize(("sent", "expected"), CASES)
def test_syn_ack_at_its_entry_node(
    node: Node, program: str, sent: Options, expected: Options
) -> None:
    """Which may have less room for the questions than the node of the task."""
    node.port(PUBLISHED, TARGET).backends(remote(THERE))
    node.nic_ingress(tcp(SOURCE, ENTRY, macs=FROM_CLIENT))
    answer = tcp(ENTRY, SOURCE, "SA", macs=RETURNED, options=sent)
    tunnel = wrapped(answer, (NODE_B, NODE_A), (NODE_B, NODE_A), 0xC001, RETURNED)
    result = getattr(node, program)(tunnel)
    clamped = tcp(ENTRY, SOURCE, "SA", macs=RETURNED, options=expected)
    assert bytes(result.data)[14:] == bytes(clamped)[14:]
    assert result.verdict in {XDP_TX, TC_REDIRECT}


@pytest.mark.parametrize("value", range(TUNNEL_MSS - 2, TUNNEL_MSS + 300, 7))
@pytest.mark.parametrize("nops", [0, 1, 2, 3])
def test_checksum_is_right_at_any_place(node_b: Node, value: int, nops: int) -> None:
    node_b.port(PUBLISHED, TARGET).backends(node_b.here())
    options = [NOP] * nops + [("MSS", value)]
    result = arrive(node_b, tcp(SOURCE, ENTRY, macs=ARRIVED, options=options))
    options[-1] = ("MSS", min(value, TUNNEL_MSS))
    assert_result(result, TC_REDIRECT, tcp(SOURCE, TASK, macs=INTO_TASK, options=options))


@pytest.mark.parametrize("padding", [b"\x02\x04\x05\xb4", b"\x02\x04\x05\xb4" * 10])
def test_what_is_behind_the_packet_is_none_of_its_options(
    node: Node, node_b: Node, padding: bytes
) -> None:
    """Ethernet pads; a header that claims to reach so far is thrown away by its receiver."""
    node_b.port(PUBLISHED, TARGET).backends(node_b.here())
    node.port(PUBLISHED, TARGET).backends(remote(THERE))
    packet = tcp(SOURCE, ENTRY, macs=ARRIVED)
    packet[TCP].dataofs = 5 + len(padding) // 4
    at_task = tcp(SOURCE, TASK, macs=INTO_TASK)
    at_task[TCP].dataofs = packet[TCP].dataofs
    assert arrive(node_b, bytes(packet), padding).data == bytes(at_task) + padding
    for result in (
        node.nic_xdp(bytes(packet) + padding),
        node.nic_ingress(bytes(packet) + padding),
    ):
        assert result.data.endswith(bytes(packet)[14:] + padding)


def test_only_a_syn_is_changed(node_b: Node) -> None:
    node_b.port(PUBLISHED, TARGET).backends(node_b.here())
    options = [("MSS", 1460)]
    result = arrive(node_b, tcp(SOURCE, ENTRY, "A", macs=ARRIVED, options=options))
    assert_result(result, TC_REDIRECT, tcp(SOURCE, TASK, "A", macs=INTO_TASK, options=options))


def test_local_connection_keeps_its_segments(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(node.here())
    options = [("MSS", 1460)]
    into = (FROM_CLIENT[0], docker_mac(HERE_GATEWAY))
    asked = node.nic_ingress(tcp(SOURCE, ENTRY, macs=FROM_CLIENT, options=options))
    assert_result(asked, TC_REDIRECT, tcp(SOURCE, TASK, macs=into, options=options))
    answered = node.gateway_ingress(tcp(TASK, SOURCE, "SA", macs=OUT_OF_TASK, options=options))
    expected = tcp(ENTRY, SOURCE, "SA", macs=OUT_OF_TASK, options=options)
    assert_result(answered, TC_REDIRECT, expected)


def test_answers_that_go_straight_leave_the_syn_alone(node_dsr: Node) -> None:
    """Only what the client sends passes the tunnel then, and the answer to the SYN."""
    node_dsr.port(PUBLISHED, TARGET).backends(node_dsr.here())
    options = [("MSS", 1460)]
    asked = arrive(node_dsr, tcp(SOURCE, ENTRY, macs=ARRIVED, options=options))
    assert_result(asked, TC_REDIRECT, tcp(SOURCE, TASK, macs=INTO_TASK, options=options))
    reply = tcp(TASK, SOURCE, "SA", macs=OUT_OF_TASK, options=options)
    clamped = tcp(ENTRY, SOURCE, "SA", options=[("MSS", TUNNEL_MSS)])
    returned = wrapped(clamped, (NODE_B, NODE_A), (NODE_B, NODE_A), tunnel_port(reply), OUT_OF_TASK)
    assert_result(node_dsr.gateway_ingress(reply), TC_REDIRECT, returned)
