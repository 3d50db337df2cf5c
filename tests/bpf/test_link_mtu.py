# SPDX-License-Identifier: Apache-2.0
"""Answers of this node's tasks, by a NIC that has less room than docker_gwbridge."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scapy.layers.inet import IP
from scapy.packet import Packet

from .net import (
    CLIENT,
    FROM_CLIENT,
    HERE_GATEWAY,
    NODE_A,
    NODE_A_MAC,
    PUBLISHED,
    TARGET,
    docker_mac,
    fragments,
    sctp,
    tcp,
    udp,
)
from .node import TC_REDIRECT, Node, assert_result
from .test_split import SPLIT_MARK
from .test_too_big import datagram, fragmentation_needed

MTU = 1400
TASK = f"{HERE_GATEWAY}:{TARGET}"
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")
OTHER, OTHER_CLIENT, OTHER_MAC = "198.51.100.1", "198.51.100.7", "02:00:00:00:01:07"
CONTENT = bytes(range(251)) * 33
UDP, SCTP = socket.IPPROTO_UDP, 132

# The NIC to the other nodes, whose MTU is compiled in, and another one.
WAYS = [
    ("nic0", CLIENT, NODE_A, FROM_CLIENT),
    ("nic1", OTHER_CLIENT, OTHER, (OTHER_MAC, NODE_A_MAC)),
]


class Way:
    """A NIC, a client behind it, and the address of the node that this one asks."""

    def __init__(self, node: Node, way: tuple[str, str, str, tuple[str, str]]) -> None:
        self.node = node
        self.device, client, address, self.macs = way
        self.source, self.entry = f"{client}:4000", f"{address}:{PUBLISHED}"
        node.addresses(address)
        for protocol in (socket.IPPROTO_TCP, UDP, SCTP):
            node.port(PUBLISHED, TARGET, protocol).backends(node.here())

    def ask(self, packet: Packet) -> bytes:
        return self.node.nic_ingress(packet, device=self.device).data


@contextmanager
def mtu(device: str, size: int) -> Iterator[None]:
    def change(to: int) -> None:
        subprocess.run(["ip", "link", "set", device, "mtu", str(to)], check=True)

    change(size)
    try:
        yield
    finally:
        change(1500)


@pytest.fixture(params=WAYS, ids=["nic0", "nic1"])
def way(make_node: object, request: pytest.FixtureRequest) -> Iterator[Way]:
    """Of a node that was made when its NIC had less room already."""
    node: Node = make_node(NODE_A, UNDERLAY_MTU=MTU)  # type: ignore[operator]
    with mtu(request.param[0], MTU):
        yield Way(node, request.param)
    node.clear()


@pytest.mark.parametrize("mss", [1460, MTU - 40, 1000])
def test_task_is_told_the_size_of_segments(way: Way, mss: int) -> None:
    asked = way.ask(tcp(way.source, way.entry, macs=way.macs, options=[("MSS", mss)]))
    into = (way.macs[0], docker_mac(HERE_GATEWAY))
    options = [("MSS", min(mss, MTU - 40))]
    assert asked == bytes(tcp(way.source, TASK, macs=into, options=options))


@pytest.mark.parametrize("mss", [1460, MTU - 40, 1000])
def test_client_is_told_the_size_of_segments(way: Way, mss: int) -> None:
    """What the NIC would not send it may not take in either."""
    way.ask(tcp(way.source, way.entry, macs=way.macs))
    answer = tcp(TASK, way.source, "SA", macs=OUT_OF_TASK, options=[("MSS", mss)])
    options = [("MSS", min(mss, MTU - 40))]
    told = tcp(way.entry, way.source, "SA", macs=OUT_OF_TASK, options=options, ttl=63)
    assert_result(way.node.gateway_ingress(answer), TC_REDIRECT, told)


@pytest.mark.parametrize("length", [MTU + 1, 1500])
def test_task_is_told_of_what_may_not_be_fragmented(way: Way, length: int) -> None:
    way.ask(udp(way.source, way.entry, macs=way.macs))
    answer = datagram(TASK, way.source, length, OUT_OF_TASK)
    told = fragmentation_needed(answer, MTU)
    assert_result(way.node.gateway_ingress(answer), TC_REDIRECT, told)
    assert way.node.reasons() == {"drop_too_big": 1}


def test_what_just_fits_goes_on(way: Way) -> None:
    way.ask(udp(way.source, way.entry, macs=way.macs))
    answer = datagram(TASK, way.source, MTU, OUT_OF_TASK)
    expected = datagram(way.entry, way.source, MTU, OUT_OF_TASK)
    expected[IP].ttl = 63
    assert_result(way.node.gateway_ingress(answer), TC_REDIRECT, expected)


def test_what_may_be_fragmented_is_split(way: Way) -> None:
    way.ask(udp(way.source, way.entry, macs=way.macs))
    answer = udp(TASK, way.source, macs=OUT_OF_TASK, payload=CONTENT[:1472], id=7)
    whole = udp(way.entry, way.source, macs=OUT_OF_TASK, payload=CONTENT[:1472], id=7)
    for mark, part in zip((0, SPLIT_MARK), fragments(whole, 1328), strict=True):
        assert_result(way.node.gateway_ingress(answer, "nic1", mark), TC_REDIRECT, part)
    assert way.node.reasons() == {}


def test_sctp_is_told_though_it_may_be_fragmented(way: Way) -> None:
    way.ask(sctp(way.source, way.entry, macs=way.macs))
    answer = sctp(TASK, way.source, macs=OUT_OF_TASK, payload=bytes(1400))
    told = fragmentation_needed(answer, MTU)
    assert_result(way.node.gateway_ingress(answer), TC_REDIRECT, told)
