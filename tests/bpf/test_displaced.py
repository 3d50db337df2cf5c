# SPDX-License-Identifier: Apache-2.0
"""A flow whose answers' entry the LRU has taken, and whose 4-tuple another flow has claimed since.

It would be answered in the other one's name; so it takes another source port, or ends.
"""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    HERE_TOO,
    NODE_A,
    NODE_B,
    NODE_C,
    PUBLISHED,
    TARGET,
    VIP,
    VNI,
    WEB_1,
    between,
    docker_mac,
    tcp,
    udp,
)
from .node import TC_OK, TC_REDIRECT, Node, assert_result, source_port
from .sandbox import ifindex

SOURCE, TASK = f"{CLIENT}:4000", f"{HERE_GATEWAY}:{TARGET}"
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")

ASKS, WEB = f"{ALICE}:4000", f"{WEB_1}:80"
OTHER_VIP = "10.0.1.22"
FROM_WEB = between(WEB_1, ALICE)


@pytest.fixture
def two_ways(node: Node) -> Node:
    """A node that is asked for its task at two addresses, as one of two entry nodes may be."""
    node.port(PUBLISHED, TARGET, 17).backends(node.here())
    node.port(PUBLISHED, TARGET).backends(node.here())
    node.addresses(NODE_B)
    return node


def ask(node: Node, address: str) -> int:
    """The source port by which a datagram of the one client port gets to the task."""
    asked = node.nic_ingress(udp(SOURCE, f"{address}:{PUBLISHED}", macs=FROM_CLIENT))
    assert asked.verdict == TC_REDIRECT
    return source_port(asked)


def answers_as(node: Node, port: int) -> str:
    """In whose name the task's answer to a port gets to the client."""
    answered = node.gateway_ingress(udp(TASK, f"{CLIENT}:{port}", macs=OUT_OF_TASK))
    packet = Ether(answered.data)[IP]
    assert (answered.verdict, packet.dst, packet.payload.dport) == (TC_REDIRECT, CLIENT, 4000)
    return str(packet.src)


@pytest.mark.parametrize("first", [1, 2], ids=["one datagram", "established"])
@pytest.mark.parametrize("second", [1, 2], ids=["by one datagram", "by an established flow"])
def test_datagrams_of_a_published_port_are_answered_in_their_own_name(
    two_ways: Node, first: int, second: int
) -> None:
    """Which of the maps the two are in by then makes no difference."""
    node = two_ways
    for _ in range(first):
        assert answers_as(node, ask(node, NODE_A)) == NODE_A
    node.forget("replies")
    for _ in range(second):
        assert ask(node, NODE_B) == 4000
        assert answers_as(node, 4000) == NODE_B
    node.age("flows", 2)
    port = ask(node, NODE_A)
    assert port != 4000
    assert (answers_as(node, port), answers_as(node, 4000)) == (NODE_A, NODE_B)
    assert (ask(node, NODE_A), ask(node, NODE_B)) == (port, 4000)


def test_a_connection_is_reset_by_its_task(two_ways: Node) -> None:
    """Under another source port it is none that the task knows, and the client hears so."""
    node = two_ways
    by_a, by_b = f"{NODE_A}:{PUBLISHED}", f"{NODE_B}:{PUBLISHED}"
    node.nic_ingress(tcp(SOURCE, by_a, macs=FROM_CLIENT))
    node.forget("replies")
    node.nic_ingress(tcp(SOURCE, by_b, macs=FROM_CLIENT))
    node.age("flows", 2)
    port = source_port(node.nic_ingress(tcp(SOURCE, by_a, "A", macs=FROM_CLIENT)))
    assert port != 4000
    reset = node.gateway_ingress(tcp(TASK, f"{CLIENT}:{port}", "R", macs=OUT_OF_TASK))
    assert_result(reset, TC_REDIRECT, tcp(by_a, SOURCE, "R", macs=OUT_OF_TASK))


def test_what_an_ended_flow_has_left_ends_with_it_alone(node: Node) -> None:
    """Its answers' entry outlives it; by then the same client port has another flow."""
    node.addresses(NODE_B, NODE_C)
    web = node.port(PUBLISHED, TARGET).backends(node.here(), node.here_too()).choose(HERE)

    def asks(address: str, flags: str = "S") -> int:
        asked = tcp(SOURCE, f"{address}:{PUBLISHED}", flags, macs=FROM_CLIENT)
        return source_port(node.nic_ingress(asked))

    asks(NODE_A)
    node.gateway_ingress(tcp(TASK, SOURCE, "R", macs=OUT_OF_TASK))
    node.forget("flows")
    node.forget("entries")
    web.choose(HERE_TOO)
    asks(NODE_B)
    port = asks(NODE_A)
    assert port != 4000
    web.choose(HERE)
    assert asks(NODE_C) == 4000
    assert asks(NODE_A, "A") == port


def ask_vip(node: Node, vip: str) -> int:
    asked = node.overlay_ingress(udp(ASKS, f"{vip}:80"))
    assert asked.verdict == TC_OK
    return source_port(asked)


def vip_answers_as(node: Node, port: int) -> str:
    answered = node.overlay_egress(udp(WEB, f"{ALICE}:{port}", macs=FROM_WEB))
    packet = Ether(answered.data)[IP]
    assert (answered.verdict, packet.payload.dport) == (TC_OK, 4000)
    return str(packet.src)


@pytest.fixture
def two_vips(node: Node) -> Node:
    """A task that two VIPs lead to."""
    node.vip(VIP, VNI).backends(WEB_1)
    node.vip(OTHER_VIP, VNI).backends(WEB_1)
    return node


def test_datagrams_to_a_vip_are_answered_in_its_name(two_vips: Node) -> None:
    node = two_vips
    ask_vip(node, VIP)
    node.forget("replies")
    assert ask_vip(node, OTHER_VIP) == 4000
    node.age("flows", 2)
    port = ask_vip(node, VIP)
    assert port != 4000
    assert (vip_answers_as(node, port), vip_answers_as(node, 4000)) == (VIP, OTHER_VIP)


def test_noted_flow_that_was_displaced(two_vips: Node) -> None:
    """Nobody tells it what the LRU takes, but whoever claims a 4-tuple does (bpf/recent.h)."""
    node = two_vips
    node.endpoint(ALICE, VNI, ifindex("gw0"))
    for _ in range(3):
        assert (ask_vip(node, VIP), vip_answers_as(node, 4000)) == (4000, VIP)
    node.table("replies").clear()
    assert ask_vip(node, OTHER_VIP) == 4000
    assert vip_answers_as(node, 4000) == OTHER_VIP
    node.age("flows", 2)
    port = ask_vip(node, VIP)
    assert port != 4000
    assert (vip_answers_as(node, port), vip_answers_as(node, 4000)) == (VIP, OTHER_VIP)
    assert (ask_vip(node, VIP), ask_vip(node, OTHER_VIP)) == (port, 4000)


def test_a_connection_to_a_vip_is_reset(two_vips: Node) -> None:
    node = two_vips
    node.overlay_ingress(tcp(ASKS, f"{VIP}:80"))
    node.forget("replies")
    node.overlay_ingress(tcp(ASKS, f"{OTHER_VIP}:80"))
    node.age("flows", 2)
    refused = node.overlay_ingress(tcp(ASKS, f"{VIP}:80", "A"))
    assert Ether(refused.data)[TCP].flags == "R"
    assert node.reasons() == {"drop_backend_gone": 1}
