# SPDX-License-Identifier: Apache-2.0
"""Which backend a new flow gets, by the flags of its frontend."""

from __future__ import annotations

import socket
from collections import Counter as Tally
from collections.abc import Callable
from functools import partial

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from .net import (
    CLIENT,
    FROM_CLIENT,
    HERE_TOO_GATEWAY,
    NODE_A,
    NODE_B,
    PUBLISHED,
    TARGET,
    VIP,
    VNI,
    docker_mac,
    sctp,
    tcp,
    udp,
)
from .node import TC_OK, XDP_TX, Node
from .world import AFFINITY, RANDOM, RR, TABLE_SIZE, Service, remote

MakePacket = Callable[..., Packet]

TASKS = [f"10.0.0.{i}" for i in range(20, 25)]
WEBS = [f"10.0.1.{i}" for i in range(20, 25)]
ENTRY = f"{NODE_A}:{PUBLISHED}"
OTHER_ENTRY = "192.0.2.51"


def published(node: Node, flags: int, protocol: int = socket.IPPROTO_TCP) -> Service:
    web = node.port(PUBLISHED, TARGET, protocol).backends(*map(remote, TASKS))
    return web.flagged(flags)


def vip(node: Node, flags: int) -> Service:
    return node.vip(VIP, VNI).backends(*WEBS).flagged(flags)


def entered(node: Node, source: str, to: str = ENTRY, flags: str = "S") -> str:
    """The ingress address of the task that a segment from outside is sent to."""
    return sent_to(node, tcp(source, to, flags, macs=FROM_CLIENT))


def sent_to(node: Node, packet: Packet) -> str:
    result = node.nic_xdp(packet)
    assert result.verdict == XDP_TX
    mac = str(Ether(result.data[50:]).dst)
    return next(task for task in TASKS if docker_mac(task) == mac)


def asked(node: Node, source: str, port: int = 80, make: MakePacket = tcp) -> str:
    """The address of the task that a container's packet to the VIP is sent to."""
    result = node.overlay_ingress(make(source, f"{VIP}:{port}"))
    assert result.verdict == TC_OK
    return str(Ether(result.data)[IP].dst)


# --- affinity: a client's address alone decides


def test_client_gets_one_backend_from_all_its_ports(node: Node) -> None:
    published(node, AFFINITY)
    assert len({entered(node, f"{CLIENT}:{port}") for port in range(4000, 4100)}) == 1


def test_clients_are_spread(node: Node) -> None:
    published(node, AFFINITY)
    tally = Tally(entered(node, f"198.18.{i % 7}.{i % 251}:4000") for i in range(1000))
    assert set(tally) == set(TASKS)
    assert min(tally.values()) > 120
    assert max(tally.values()) < 280


def test_client_gets_the_same_backend_at_every_node(node: Node, node_b: Node) -> None:
    published(node, AFFINITY)
    published(node_b, AFFINITY)
    node.addresses(OTHER_ENTRY)
    # Node B is asked by tc: what it sends itself a packet for, it sends no further.
    for last in range(100, 130):
        source = f"192.0.2.{last}:4000"
        here = entered(node, source)
        assert entered(node, source.replace("4000", "4001"), f"{OTHER_ENTRY}:{PUBLISHED}") == here
        node_b.nic_xdp(tcp(source, f"{NODE_B}:{PUBLISHED}", macs=FROM_CLIENT))
        (entry,) = node_b.flows("entries").values()
        assert TASKS[entry.backend - 1] == here
        node_b.forget("entries")


def test_client_gets_the_same_backend_by_every_protocol(node: Node) -> None:
    published(node, AFFINITY)
    published(node, AFFINITY, socket.IPPROTO_UDP)
    for last in range(100, 130):
        source = f"192.0.2.{last}:4000"
        assert entered(node, source) == sent_to(node, udp(source, ENTRY, macs=FROM_CLIENT))


def test_client_gets_the_same_backend_of_a_vip(node: Node) -> None:
    vip(node, AFFINITY)
    for last in range(100, 120):
        client = f"10.0.1.{last}"
        chosen = {
            asked(node, f"{client}:{source}", port, make)
            for source in (4000, 4001)
            for port in (80, 443)
            for make in (tcp, udp, sctp)
        }
        assert len(chosen) == 1


def test_vip_and_published_port_choose_alike(node: Node) -> None:
    """A container that asks either gets the same task, by one address."""
    vip(node, AFFINITY)
    published(node, AFFINITY)
    for last in range(100, 120):
        address = f"10.0.1.{last}"
        assert WEBS.index(asked(node, f"{address}:4000")) == TASKS.index(
            entered(node, f"{address}:4000")
        )


def test_flow_keeps_its_backend_when_the_table_changes(node: Node) -> None:
    web = published(node, AFFINITY)
    before = entered(node, f"{CLIENT}:4000")
    others = [task for task in TASKS if task != before]
    web.choose(*others)
    assert entered(node, f"{CLIENT}:4000") == before
    assert entered(node, f"{CLIENT}:4001") in others


# --- one after the other


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_backends_take_turns(node: Node, count: int) -> None:
    published(node, RR).choose(*TASKS[:count])
    order = [entered(node, f"{CLIENT}:{4000 + i}") for i in range(4 * count)]
    assert order == TASKS[:count] * 4


def test_turns_go_on_past_the_end_of_the_table(node: Node) -> None:
    """Its size is no multiple of the number of backends: the table's end must not show."""
    web = published(node, RR)
    turns = node.table("turns")
    turns[turns.Key(web.pool)] = turns.Leaf(TABLE_SIZE - 2)
    order = [TASKS.index(entered(node, f"{CLIENT}:{4000 + i}")) for i in range(10)]
    first = (TABLE_SIZE - 2) % len(TASKS)
    assert order == [(first + i) % len(TASKS) for i in range(10)]


def test_packets_of_a_flow_take_one_turn(node: Node) -> None:
    published(node, RR)
    for i in range(10):
        chosen = {entered(node, f"{CLIENT}:{4000 + i}", flags=flags) for flags in ("S", "A", "PA")}
        assert chosen == {TASKS[i % len(TASKS)]}


def test_pools_take_turns_by_themselves(node: Node) -> None:
    published(node, RR)
    vip(node, RR)
    for i in range(10):
        assert entered(node, f"{CLIENT}:{4000 + i}") == TASKS[i % 5]
        assert asked(node, f"10.0.1.100:{4000 + i}") == WEBS[i % 5]


def test_turns_follow_a_smaller_table(node: Node) -> None:
    web = published(node, RR)
    for i in range(4):
        entered(node, f"{CLIENT}:{4000 + i}")
    web.choose(*TASKS[:2])
    tally = Tally(entered(node, f"{CLIENT}:{5000 + i}") for i in range(10))
    assert tally == {TASKS[0]: 5, TASKS[1]: 5}


# --- at random


def test_random_choice_is_balanced(node: Node) -> None:
    """4000 throws at 5 backends: 700 to 900 is four standard deviations."""
    published(node, RANDOM)
    tally = Tally(entered(node, f"198.18.0.{i % 250}:{1024 + i}") for i in range(4000))
    assert set(tally) == set(TASKS)
    assert min(tally.values()) > 690
    assert max(tally.values()) < 910


def test_random_choice_does_not_hang_on_the_flow(node: Node) -> None:
    published(node, RANDOM)
    chosen = set()
    for _ in range(200):
        chosen.add(entered(node, f"{CLIENT}:4000"))
        node.forget("entries")
    assert chosen == set(TASKS)


def test_flow_keeps_what_chance_gave_it(node: Node) -> None:
    published(node, RANDOM)
    vip(node, RANDOM)
    established = partial(tcp, flags="A")
    for port in range(4000, 4010):
        outside, inside = f"{CLIENT}:{port}", f"10.0.1.100:{port}"
        by_port, by_vip = entered(node, outside), asked(node, inside)
        assert {entered(node, outside, flags="A") for _ in range(20)} == {by_port}
        assert {asked(node, inside, make=established) for _ in range(20)} == {by_vip}


@pytest.mark.parametrize("flags", [RANDOM, RR])
def test_without_backends_nobody_is_chosen(node: Node, flags: int) -> None:
    published(node, flags).choose()
    node.nic_ingress(tcp(f"{CLIENT}:4000", ENTRY, macs=FROM_CLIENT))
    assert node.reasons() == {"drop_no_backend": 1}


def test_container_takes_a_turn_like_any_client(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(node.here(), node.here_too()).flagged(RR)
    addresses = []
    for port in range(4000, 4004):
        packet = tcp(
            f"172.18.0.99:{port}", ENTRY, macs=(docker_mac(HERE_TOO_GATEWAY), "02:42:00:00:00:01")
        )
        addresses.append(str(Ether(node.gateway_ingress(packet, "gw1").data)[IP].dst))
    assert addresses[:2] == addresses[2:]
    assert len(set(addresses)) == 2
