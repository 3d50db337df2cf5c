# SPDX-License-Identifier: Apache-2.0
"""Two flows that translation would bring to one 4-tuple at the task."""

from __future__ import annotations

import socket

import pytest

from .conftest import MakeNode
from .net import ALICE, VIP, VNI, WEB_1, between, sctp, tcp, udp
from .node import TC_OK, TC_SHOT, TC_UNSPEC, Node, assert_result, source_port
from .world import Service

CLIENT = f"{ALICE}:4000"
SERVER = f"{VIP}:80"
TASK = f"{WEB_1}:80"
OTHER_VIP = "10.0.1.22"
TO_TASK, FROM_TASK = between(ALICE, WEB_1), between(WEB_1, ALICE)


@pytest.fixture(autouse=True)
def web(node: Node) -> Service:
    return node.vip(VIP, VNI).backends(WEB_1)


def establish(node: Node, server: str) -> None:
    node.overlay_ingress(tcp(CLIENT, server))
    node.overlay_egress(tcp(TASK, CLIENT, "SA"))


def close(node: Node, server: str) -> None:
    node.overlay_ingress(tcp(CLIENT, server, "FA"))
    node.overlay_egress(tcp(TASK, CLIENT, "FA"))


@pytest.mark.parametrize(
    ("first", "second"),
    [pytest.param(SERVER, TASK, id="vip, direct"), pytest.param(TASK, SERVER, id="direct, vip")],
)
def test_later_connection_gets_another_source_port(node: Node, first: str, second: str) -> None:
    establish(node, first)
    moved = node.overlay_ingress(tcp(CLIENT, second))
    port = source_port(moved)
    assert port not in {4000, 0}
    assert_result(moved, TC_OK, tcp(f"{ALICE}:{port}", TASK, macs=TO_TASK))
    for server, at_task in ((first, CLIENT), (second, f"{ALICE}:{port}")):
        answer = node.overlay_egress(tcp(TASK, at_task, "A", macs=FROM_TASK))
        assert_result(answer, TC_OK, tcp(server, CLIENT, "A", macs=FROM_TASK))
        asked = node.overlay_ingress(tcp(CLIENT, server, "A"))
        assert_result(asked, TC_OK, tcp(at_task, TASK, "A", macs=TO_TASK))


def test_later_datagrams_get_another_source_port(node: Node) -> None:
    node.overlay_ingress(udp(CLIENT, SERVER))
    moved = node.overlay_ingress(udp(CLIENT, TASK))
    port = source_port(moved)
    assert port != 4000
    answer = node.overlay_egress(udp(TASK, f"{ALICE}:{port}", macs=FROM_TASK))
    assert_result(answer, TC_OK, udp(TASK, CLIENT, macs=FROM_TASK))
    answer = node.overlay_egress(udp(TASK, CLIENT, macs=FROM_TASK))
    assert_result(answer, TC_OK, udp(SERVER, CLIENT, macs=FROM_TASK))


def test_two_vips_of_one_task(node: Node) -> None:
    node.vip(OTHER_VIP, VNI).backends(WEB_1)
    node.overlay_ingress(tcp(CLIENT, SERVER))
    moved = node.overlay_ingress(tcp(CLIENT, f"{OTHER_VIP}:80"))
    port = source_port(moved)
    assert port != 4000
    answer = node.overlay_egress(tcp(TASK, f"{ALICE}:{port}", "SA", macs=FROM_TASK))
    assert_result(answer, TC_OK, tcp(f"{OTHER_VIP}:80", CLIENT, "SA", macs=FROM_TASK))


def test_later_association_gets_another_source_port(node: Node) -> None:
    node.vip(OTHER_VIP, VNI).backends(WEB_1)
    node.overlay_ingress(sctp(CLIENT, SERVER))
    moved = node.overlay_ingress(sctp(CLIENT, f"{OTHER_VIP}:80"))
    port = source_port(moved)
    assert port != 4000
    assert_result(moved, TC_OK, sctp(f"{ALICE}:{port}", TASK, macs=TO_TASK))
    answer = node.overlay_egress(sctp(TASK, f"{ALICE}:{port}", macs=FROM_TASK))
    assert_result(answer, TC_OK, sctp(f"{OTHER_VIP}:80", CLIENT, macs=FROM_TASK))


@pytest.mark.parametrize(
    ("first", "second"),
    [pytest.param(SERVER, TASK, id="vip, direct"), pytest.param(TASK, SERVER, id="direct, vip")],
)
def test_closed_connection_gives_its_port_up(node: Node, first: str, second: str) -> None:
    establish(node, first)
    close(node, first)
    again = node.overlay_ingress(tcp(CLIENT, second))
    assert_result(again, TC_OK, tcp(CLIENT, TASK, macs=TO_TASK))
    answer = node.overlay_egress(tcp(TASK, CLIENT, "SA", macs=FROM_TASK))
    assert_result(answer, TC_OK, tcp(second, CLIENT, "SA", macs=FROM_TASK))
    assert len(node.flows()) == len(node.flows("replies")) == 1


def test_half_closed_connection_keeps_its_port(node: Node) -> None:
    establish(node, SERVER)
    node.overlay_ingress(tcp(CLIENT, SERVER, "FA"))
    assert source_port(node.overlay_ingress(tcp(CLIENT, TASK))) != 4000


@pytest.mark.parametrize(
    ("seconds", "kept"), [(59, True), (61, False)], ids=["waits", "was given up"]
)
def test_unanswered_syn_gives_its_port_up(node: Node, seconds: int, kept: bool) -> None:
    node.overlay_ingress(tcp(CLIENT, SERVER))
    node.age("replies", seconds)
    assert (source_port(node.overlay_ingress(tcp(CLIENT, TASK))) != 4000) is kept


def test_idle_connection_keeps_its_port_for_days(node: Node) -> None:
    establish(node, SERVER)
    node.age("flows", 4 * 24 * 3600)
    node.age("replies", 4 * 24 * 3600)
    assert source_port(node.overlay_ingress(tcp(CLIENT, TASK))) != 4000


def test_direct_datagram_where_a_flow_has_died(node: Node) -> None:
    node.overlay_ingress(udp(CLIENT, SERVER))
    node.age("flows", 181)
    node.age("replies", 181)
    question = udp(CLIENT, TASK)
    assert_result(node.overlay_ingress(question), TC_UNSPEC, question)
    answer = udp(TASK, CLIENT, macs=FROM_TASK)
    result = node.overlay_egress(answer)
    assert_result(result, TC_UNSPEC, answer)


def test_direct_datagrams_alone_are_not_tracked(node: Node) -> None:
    question = udp(CLIENT, TASK)
    assert_result(node.overlay_ingress(question), TC_UNSPEC, question)
    assert node.flows() == {}


@pytest.mark.parametrize("holders", ["transient_replies", "replies"])
def test_no_free_port(make_node: MakeNode, holders: str) -> None:
    node = make_node(MAX_FLOWS=262144)
    node.vip(VIP, VNI).backends(WEB_1)
    node.vip(OTHER_VIP, VNI).backends(WEB_1)
    establish(node, SERVER)
    if holders == "replies":
        node.overlay_ingress(tcp(CLIENT, SERVER, "A"))
    take_all_ports(node, holders)
    packet = tcp(CLIENT, f"{OTHER_VIP}:80")
    assert_result(node.overlay_ingress(packet), TC_SHOT, packet)
    assert node.reasons() == {"drop_no_port": 1}
    assert len(node.flows()) == 1
    if holders == "replies":
        assert node.transient("replies") == {}
    node.clear()


def take_all_ports(node: Node, holders: str) -> None:
    """Copies the one reply entry to every port that the client might be given."""
    replies = node.table(holders)
    ((key, leaf),) = list(replies.items())
    for port in range(1024, 65536):
        key.t.dport = socket.htons(port)
        replies[key] = leaf


def test_flow_that_another_cpu_has_just_seen_is_not_dead(node: Node) -> None:
    """A moment after the clock was asked for the packet that wants its 4-tuple."""
    establish(node, SERVER)
    node.age("replies", -1)
    assert source_port(node.overlay_ingress(tcp(CLIENT, TASK))) != 4000
