# SPDX-License-Identifier: Apache-2.0
"""Timeouts are constants of the node: an idle flow gives its 4-tuple up when its own is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from scapy.packet import Packet

from .conftest import MakeNode
from .net import ALICE, VIP, VNI, WEB_1, tcp, udp
from .node import Node, source_port
from .world import SECOND

CLIENT = f"{ALICE}:4000"
SERVER, TASK = f"{VIP}:80", f"{WEB_1}:80"


@pytest.fixture
def node(make_node: MakeNode) -> Iterator[Node]:
    """Timeouts of 10, 20 and 90 seconds: none is a default."""
    short = make_node(
        SYN_TIMEOUT_NS=10 * SECOND, UDP_TIMEOUT_NS=20 * SECOND, TCP_TIMEOUT_NS=90 * SECOND
    )
    short.vip(VIP, VNI).backends(WEB_1)
    yield short
    short.clear()


def unanswered(node: Node) -> Packet:
    node.overlay_ingress(tcp(CLIENT, SERVER))
    return tcp(CLIENT, TASK)


def established(node: Node) -> Packet:
    node.overlay_ingress(tcp(CLIENT, SERVER))
    node.overlay_egress(tcp(TASK, CLIENT, "SA"))
    node.overlay_ingress(tcp(CLIENT, SERVER, "A"))
    return tcp(CLIENT, TASK)


def datagrams(node: Node) -> Packet:
    node.overlay_ingress(udp(CLIENT, SERVER))
    node.overlay_egress(udp(TASK, CLIENT))
    return udp(CLIENT, TASK)


@pytest.mark.parametrize(
    ("begin", "timeout_s"), [(unanswered, 10), (datagrams, 20), (established, 90)]
)
@pytest.mark.parametrize("over", [False, True])
def test_idle_flow_keeps_its_4_tuple_until_its_timeout(
    node: Node, begin: Callable[[Node], Packet], timeout_s: int, over: bool
) -> None:
    direct = begin(node)
    idle = timeout_s + (1 if over else -5)
    node.age("flows", idle)
    node.age("replies", idle)
    assert (source_port(node.overlay_ingress(direct)) == 4000) is over
