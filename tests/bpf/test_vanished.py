# SPDX-License-Identifier: Apache-2.0
"""A task of this node whose link has gone, while no agent is there to say so."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from scapy.packet import Packet

from .net import (
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    HERE_TOO,
    HERE_TOO_GATEWAY,
    NODE_A,
    NODE_A_MAC,
    NODE_B,
    NODE_B_MAC,
    PUBLISHED,
    TARGET,
    docker_mac,
    tcp,
    udp,
    wrapped,
)
from .node import TC_REDIRECT, TC_SHOT, Node, assert_result
from .prog_run import Result
from .world import DRAINING, READY, STOPPING, Service

SOURCE = f"{CLIENT}:4000"
ENTRY = f"{NODE_A}:{PUBLISHED}"
NOBODYS_LINK = 1 << 30
FROM_B = (NODE_B_MAC, NODE_A_MAC)
FROM_NEIGHBOUR = (docker_mac(HERE_TOO_GATEWAY), "02:42:00:00:00:01")

KINDS = [pytest.param(6, tcp, id="tcp"), pytest.param(17, udp, id="udp")]


def asking(node: Node, protocol: int) -> Service:
    """Two tasks here; the table names the first."""
    found = node.port(PUBLISHED, TARGET, protocol).backends(node.here(), node.here_too())
    return found.choose(HERE)


def vanish(node: Node, web: Service) -> None:
    node.set_backend(web.ids[HERE], gateway_ifindex=NOBODYS_LINK)


def state(node: Node, web: Service) -> int:
    return int(node.table("backends")[web.ids[HERE]].state)


def into_other(packet: Packet, source: str = SOURCE) -> Packet:
    macs = (FROM_CLIENT[0], docker_mac(HERE_TOO_GATEWAY))
    make = tcp if packet.haslayer("TCP") else udp
    return make(source, f"{HERE_TOO_GATEWAY}:{TARGET}", macs=macs)


def assert_dropped(node: Node, result: Result) -> None:
    assert result.verdict == TC_SHOT
    assert node.reasons() == {"drop_backend_gone": 1}


def test_datagrams_that_come_again_go_to_another_task(node: Node) -> None:
    web = asking(node, socket.IPPROTO_UDP)
    packet = udp(SOURCE, ENTRY, macs=FROM_CLIENT)
    assert node.nic_ingress(packet).verdict == TC_REDIRECT
    vanish(node, web)
    assert_dropped(node, node.nic_ingress(packet))
    web.choose(HERE, HERE_TOO)
    assert_result(node.nic_ingress(packet), TC_REDIRECT, into_other(packet))


@pytest.mark.parametrize(("protocol", "make"), KINDS)
def test_new_flows_look_past_it(node: Node, protocol: int, make: Callable[..., Packet]) -> None:
    """Whatever the table says: another socket's is one that this task would have got."""
    web = asking(node, protocol)
    vanish(node, web)
    assert_dropped(node, node.nic_ingress(make(SOURCE, ENTRY, macs=FROM_CLIENT)))
    web.choose(*[HERE] * 3, HERE_TOO)
    for port in range(5000, 5010):
        source = f"{CLIENT}:{port}"
        packet = make(source, ENTRY, macs=FROM_CLIENT)
        assert_result(node.nic_ingress(packet), TC_REDIRECT, into_other(packet, source))
    assert node.reasons() == {"drop_backend_gone": 1}


def test_what_other_nodes_send_gets_a_second_chance(node: Node) -> None:
    web = asking(node, socket.IPPROTO_UDP)
    packet = udp(SOURCE, f"{NODE_B}:{PUBLISHED}", macs=FROM_B)
    tunnel = wrapped(packet, (NODE_B, NODE_A), (NODE_B, HERE), 0xC123, FROM_B)
    assert node.nic_ingress(tunnel).verdict == TC_REDIRECT
    vanish(node, web)
    assert_dropped(node, node.nic_ingress(tunnel))
    web.choose(HERE, HERE_TOO)
    into = (FROM_B[0], docker_mac(HERE_TOO_GATEWAY))
    expected = udp(SOURCE, f"{HERE_TOO_GATEWAY}:{TARGET}", macs=into)
    assert_result(node.nic_ingress(tunnel), TC_REDIRECT, expected)


def test_a_container_that_asks_its_node(node: Node) -> None:
    web = asking(node, socket.IPPROTO_UDP)
    vanish(node, web)
    packet = udp(f"{HERE_TOO_GATEWAY}:4000", ENTRY, macs=FROM_NEIGHBOUR)
    assert_dropped(node, node.gateway_ingress(packet, "gw1"))
    assert state(node, web) == STOPPING


def test_a_connection_is_not_asked_about(node: Node) -> None:
    """Its link may be made again: it would go on."""
    web = asking(node, socket.IPPROTO_TCP)
    node.nic_ingress(tcp(SOURCE, ENTRY, macs=FROM_CLIENT))
    vanish(node, web)
    asked = node.nic_ingress(tcp(SOURCE, ENTRY, "A", macs=FROM_CLIENT))
    task = f"{HERE_GATEWAY}:{TARGET}"
    into = (FROM_CLIENT[0], docker_mac(HERE_GATEWAY))
    assert_result(asked, TC_REDIRECT, tcp(SOURCE, task, "A", macs=into))
    assert (state(node, web), node.reasons()) == (READY, {})


@pytest.mark.parametrize("before", [READY, DRAINING])
def test_it_is_left_as_one_that_stops(node: Node, before: int) -> None:
    web = asking(node, socket.IPPROTO_UDP)
    packet = udp(SOURCE, ENTRY, macs=FROM_CLIENT)
    node.nic_ingress(packet)
    web.state(HERE, before)
    vanish(node, web)
    assert_dropped(node, node.nic_ingress(packet))
    assert state(node, web) == STOPPING


def test_a_task_that_is_there_is_left_alone(node: Node) -> None:
    web = asking(node, socket.IPPROTO_UDP)
    for _ in range(3):
        assert node.nic_ingress(udp(SOURCE, ENTRY, macs=FROM_CLIENT)).verdict == TC_REDIRECT
    assert (state(node, web), node.reasons()) == (READY, {})
