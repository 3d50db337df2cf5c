# SPDX-License-Identifier: Apache-2.0
"""Processes of the node that ask a published port: which task they are led to, by its labels.

Nobody has to answer: the map of origins tells whom each socket was led to.
"""

from __future__ import annotations

import socket
from collections import Counter as Tally
from collections.abc import Iterator

import pytest
from scapy.layers.l2 import Ether

from ebpfmesh.datapath.loader import Module

from .net import FROM_CLIENT, NODE_A, NODE_B, PUBLISHED, TARGET, docker_mac, udp
from .node import XDP_TX, Node
from .sockets import Processes
from .world import (
    AFFINITY,
    LEAST_CONN,
    MAGLEV,
    RANDOM,
    RR,
    Service,
    Task,
    dotted,
    remote,
)

# Stand for the docker_gwbridge addresses of three tasks.
GATEWAYS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
TASKS = ["10.0.0.20", "10.0.0.21", "10.0.0.22"]

_CONNECT = f"""
for _ in range(%d):
    with socket.socket(type=socket.SOCK_DGRAM) as s:
        s.connect(('127.0.0.1', {PUBLISHED}))
"""
_SEND = f"""
with socket.socket(type=socket.SOCK_DGRAM) as s:
    for _ in range(20):
        s.sendto(b'x', ('{NODE_A}', {PUBLISHED}))
"""


@pytest.fixture
def own(sock_module: Module) -> Iterator[Node]:
    node = Node(sock_module)
    node.addresses(NODE_A)
    node.node(NODE_A, NODE_B)
    yield node
    node.table("sock_origins").clear()
    node.clear()


@pytest.fixture
def web(own: Node) -> Service:
    """Three tasks of this node."""
    tasks = [Task(f"10.0.0.{i}", gateway=to, ifindex=1) for i, to in enumerate(GATEWAYS, 20)]
    return own.port(PUBLISHED, TARGET, socket.IPPROTO_UDP).backends(*tasks)


def led_to(node: Node) -> Tally[str]:
    """How many sockets were led to each task."""
    return Tally(dotted(key.address) for key in node.table("sock_origins"))


def test_sockets_take_turns(own: Node, web: Service, processes: Processes) -> None:
    web.flagged(RR)
    processes.run(_CONNECT % 12)
    assert led_to(own) == dict.fromkeys(GATEWAYS, 4)


@pytest.mark.parametrize("flags", [MAGLEV, RANDOM])
def test_sockets_are_spread(own: Node, web: Service, processes: Processes, flags: int) -> None:
    web.flagged(flags)
    processes.run(_CONNECT % 300)
    assert set(led_to(own)) == set(GATEWAYS)
    assert min(led_to(own).values()) > 60


def test_sockets_keep_away_from_the_busiest_task(
    own: Node, web: Service, processes: Processes
) -> None:
    web.flagged(LEAST_CONN)
    own.maps.put_live(web.ids["10.0.0.21"], 1000)
    processes.run(_CONNECT % 60)
    assert set(led_to(own)) == {GATEWAYS[0], GATEWAYS[2]}


@pytest.mark.parametrize("flags", [MAGLEV, RANDOM, RR, LEAST_CONN, AFFINITY])
def test_socket_that_does_not_connect_keeps_its_task(
    own: Node, web: Service, processes: Processes, flags: int
) -> None:
    web.flagged(flags)
    processes.run(_SEND)
    assert len(led_to(own)) == 1


def test_all_sockets_of_the_node_are_one_client(
    own: Node, web: Service, processes: Processes
) -> None:
    web.flagged(AFFINITY)
    processes.run(_CONNECT % 50)
    processes.run(_SEND)
    assert len(led_to(own)) == 1


def test_node_gets_the_same_task_from_inside_and_outside(own: Node, processes: Processes) -> None:
    """Where its address comes in at another node, that one chooses alike."""
    own.addresses(NODE_B)
    web = own.port(PUBLISHED, TARGET, socket.IPPROTO_UDP).backends(*map(remote, TASKS))
    web.flagged(AFFINITY)
    result = own.nic_xdp(udp(f"{NODE_A}:4000", f"{NODE_B}:{PUBLISHED}", macs=FROM_CLIENT))
    assert result.verdict == XDP_TX
    chosen = next(t for t in TASKS if docker_mac(t) == Ether(result.data[50:]).dst)
    own.clear()
    own.addresses(NODE_A)
    local = [
        Task(task, gateway=gateway, ifindex=1)
        for task, gateway in zip(TASKS, GATEWAYS, strict=True)
    ]
    again = own.port(PUBLISHED, TARGET, socket.IPPROTO_UDP).backends(*local)
    again.flagged(AFFINITY)
    processes.run(_CONNECT % 5)
    assert led_to(own) == {GATEWAYS[TASKS.index(chosen)]: 5}


def test_list_of_allowed_clients_does_not_concern_the_node(
    own: Node, web: Service, processes: Processes
) -> None:
    web.allow("10.0.0.0/8")
    processes.run(_CONNECT % 5)
    assert sum(led_to(own).values()) == 5
    assert own.reasons() == {}
