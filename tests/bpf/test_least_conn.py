# SPDX-License-Identifier: Apache-2.0
"""The scheduler least-conn: what counts as a connection, and who gets the next one."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable
from typing import cast

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ebpfmesh.agent.reconcile import Reconciler
from ebpfmesh.agent.recount import patience, recount
from ebpfmesh.config import Config
from ebpfmesh.datapath.attach import Attacher
from ebpfmesh.datapath.flows import Patience, live_by_backend
from ebpfmesh.ids import Ids

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    HERE,
    NODE_A,
    NODE_B,
    NODE_B_MAC,
    PUBLISHED,
    TARGET,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    WEB_3,
    tcp,
    udp,
    wrapped,
)
from .node import TC_OK, XDP_TX, Node
from .world import GONE, LEAST_CONN, MAGLEV, Service, remote

MakePacket = Callable[..., Packet]

TASKS = [f"10.0.0.{i}" for i in range(20, 25)]
ENTRY = f"{NODE_A}:{PUBLISHED}"
PATIENCE = Patience(established=900, opening=60, datagrams=180)
ROOM = 64


@pytest.fixture
def web(node: Node) -> Service:
    return node.port(PUBLISHED, TARGET).backends(*map(remote, TASKS)).flagged(LEAST_CONN)


@pytest.fixture
def vip(node: Node) -> Service:
    return node.vip(VIP, VNI).backends(WEB_1, WEB_2, WEB_3).flagged(LEAST_CONN)


def enter(node: Node, port: int, flags: str = "S") -> None:
    result = node.nic_xdp(tcp(f"{CLIENT}:{port}", ENTRY, flags, macs=FROM_CLIENT))
    assert result.verdict == XDP_TX


def ask(node: Node, port: int, flags: str = "S", make: MakePacket = tcp) -> str:
    """The backend that a container's packet to the VIP is sent to."""
    arguments = (f"{ALICE}:{port}", f"{VIP}:80", *([flags] if make is tcp else []))
    result = node.overlay_ingress(make(*arguments))
    assert result.verdict == TC_OK
    return str(Ether(result.data)[IP].dst)


def answer(node: Node, backend: str, port: int, flags: str) -> None:
    assert node.overlay_egress(tcp(f"{backend}:80", f"{ALICE}:{port}", flags)).verdict == TC_OK


def live(node: Node, service: Service) -> dict[str, int]:
    """Of all backends, without those that have none."""
    counts = {address: node.live(number) for address, number in service.ids.items()}
    return {address: count for address, count in counts.items() if count}


def burden(node: Node, service: Service, **loads: int) -> None:
    for (_, number), load in zip(service.ids.items(), loads.values(), strict=True):
        node.maps.put_live(number, load)


# --- who gets the next one


def test_load_is_even_when_connections_stay(node: Node, web: Service) -> None:
    for port in range(4000, 4500):
        enter(node, port)
    counts = live(node, web)
    assert sum(counts.values()) == 500
    assert max(counts.values()) - min(counts.values()) <= 6


def test_busiest_backend_gets_nothing(node: Node, web: Service) -> None:
    burden(node, web, a=0, b=0, c=1000, d=0, e=0)
    for port in range(4000, 4200):
        enter(node, port)
    assert live(node, web)[TASKS[2]] == 1000
    tally = Tally(entry.backend for entry in node.flows("entries").values())
    assert set(tally) == {web.ids[task] for task in TASKS if task != TASKS[2]}


def test_of_two_the_less_busy_gets_it(node: Node, vip: Service) -> None:
    vip.choose(WEB_1, WEB_2)
    burden(node, vip, a=10, b=0, c=0)
    chosen = [ask(node, 4000 + i) for i in range(10)]
    assert chosen == [WEB_2] * 10
    burden(node, vip, a=10, b=20, c=0)
    chosen = [ask(node, 5000 + i) for i in range(10)]
    assert chosen == [WEB_1] * 10


def test_count_below_zero_is_less(node: Node, vip: Service) -> None:
    vip.choose(WEB_1, WEB_2)
    burden(node, vip, a=0, b=-5, c=0)
    assert ask(node, 4000) == WEB_2


def test_only_backend_gets_all(node: Node, vip: Service) -> None:
    vip.choose(WEB_3)
    burden(node, vip, a=0, b=0, c=1000)
    assert {ask(node, 4000 + i) for i in range(10)} == {WEB_3}


def test_flow_keeps_its_backend_however_busy(node: Node, vip: Service) -> None:
    first = ask(node, 4000)
    node.maps.put_live(vip.ids[first], 1000)
    assert {ask(node, 4000, flags) for flags in ("S", "A", "PA")} == {first}


def test_without_backends_nobody_is_chosen(node: Node, web: Service) -> None:
    web.choose()
    node.nic_ingress(tcp(f"{CLIENT}:4000", ENTRY, macs=FROM_CLIENT))
    assert node.reasons() == {"drop_no_backend": 1}
    assert live(node, web) == {}


# --- what counts


def test_connection_counts_until_its_client_ends_it(node: Node, vip: Service) -> None:
    chosen = ask(node, 4000)
    for flags in ("S", "A", "PA"):
        ask(node, 4000, flags)
        assert live(node, vip) == {chosen: 1}
    ask(node, 4000, "FA")
    assert live(node, vip) == {}
    answer(node, chosen, 4000, "A")
    answer(node, chosen, 4000, "FA")
    ask(node, 4000, "A")
    assert live(node, vip) == {}


@pytest.mark.parametrize("flags", ["FA", "RA", "R"])
def test_connection_counts_until_its_task_ends_it(node: Node, vip: Service, flags: str) -> None:
    chosen = ask(node, 4000)
    answer(node, chosen, 4000, "SA")
    ask(node, 4000, "A")
    assert live(node, vip) == {chosen: 1}
    answer(node, chosen, 4000, flags)
    assert live(node, vip) == {}
    ask(node, 4000, "FA" if flags == "FA" else "R")
    assert live(node, vip) == {}


def test_port_that_is_used_again_counts_again(node: Node, vip: Service) -> None:
    for _ in range(5):
        chosen = ask(node, 4000)
        assert live(node, vip) == {chosen: 1}
        ask(node, 4000, "R")
        assert live(node, vip) == {}


@pytest.mark.parametrize("end", ["FA", "R"])
def test_connection_from_outside_counts_at_its_entry_node(
    node: Node, web: Service, end: str
) -> None:
    enter(node, 4000)
    enter(node, 4000, "A")
    assert list(live(node, web).values()) == [1]
    enter(node, 4000, end)
    assert live(node, web) == {}
    enter(node, 4000, "A")
    assert live(node, web) == {}


def test_connection_through_another_node_does_not_count_here(node: Node) -> None:
    web = node.port(PUBLISHED, TARGET).backends(node.here()).flagged(LEAST_CONN)
    macs = (NODE_B_MAC, FROM_CLIENT[1])
    packet = tcp(f"{CLIENT}:4000", f"{NODE_B}:{PUBLISHED}", macs=macs)
    node.nic_ingress(wrapped(packet, (NODE_B, NODE_A), (NODE_B, HERE), 0xC001, macs))
    assert len(node.flows()) == 1
    assert live(node, web) == recounted(node, web) == {}
    node.nic_ingress(tcp(f"{CLIENT}:4000", ENTRY, macs=FROM_CLIENT))
    assert live(node, web) == recounted(node, web) == {HERE: 1}


def test_packet_that_ends_what_nobody_knows_does_not_count(node: Node, vip: Service) -> None:
    ask(node, 4000, "FA")
    ask(node, 4001, "R")
    assert live(node, vip) == {}


def test_flows_of_other_schedulers_are_not_counted(node: Node, vip: Service) -> None:
    vip.flagged(MAGLEV)
    ask(node, 4000)
    ask(node, 4000, "FA")
    assert live(node, vip) == {}


# --- counted again


def recounted(node: Node, service: Service) -> dict[str, int]:
    module = node.module
    counts = live_by_backend(module, ROOM, PATIENCE, time.monotonic_ns())
    found = {address: int(counts[number]) for address, number in service.ids.items()}
    return {address: count for address, count in found.items() if count}


def test_recount_agrees_with_the_programs(node: Node, vip: Service, web: Service) -> None:
    for port in range(4000, 4060):
        chosen = ask(node, port)
        enter(node, port)
        if port % 2:
            answer(node, chosen, port, "SA")
            ask(node, port, "A")
            enter(node, port, "A")
        if port % 3 == 0:
            ask(node, port, "FA")
            enter(node, port, "FA")
        if port % 5 == 0 and port % 3:
            # Not heard of a task that has accepted nothing yet.
            node.overlay_egress(tcp(f"{chosen}:80", f"{ALICE}:{port}", "R"))
    assert recounted(node, vip) == live(node, vip)
    assert recounted(node, web) == live(node, web)
    assert sum(live(node, web).values()) == 40


def test_evicted_flows_are_no_load(node: Node, vip: Service) -> None:
    for port in range(4000, 4010):
        ask(node, port)
    node.forget("flows")
    assert sum(live(node, vip).values()) == 10
    assert recounted(node, vip) == {}


@pytest.mark.parametrize(("age", "left"), [(170, True), (190, False)])
def test_datagrams_are_load_until_they_time_out(
    node: Node, vip: Service, age: int, left: bool
) -> None:
    chosen = ask(node, 4000, make=udp)
    assert live(node, vip) == {chosen: 1}
    node.age("flows", age)
    assert recounted(node, vip) == ({chosen: 1} if left else {})


@pytest.mark.parametrize(
    ("answered", "age", "left"), [(False, 50, 1), (False, 70, 0), (True, 890, 1), (True, 910, 0)]
)
def test_idle_connections_are_no_load(
    node: Node, vip: Service, answered: bool, age: int, left: int
) -> None:
    chosen = ask(node, 4000)
    if answered:
        answer(node, chosen, 4000, "SA")
        ask(node, 4000, "A")
    node.age("flows", age)
    assert recounted(node, vip).get(chosen, 0) == left


def test_flow_of_a_gone_backend_is_load_of_its_next(node: Node, vip: Service) -> None:
    first = ask(node, 4000, make=udp)
    others = [address for address in vip.ids if address != first]
    vip.choose(*others).state(first, GONE)
    second = ask(node, 4000, make=udp)
    assert second != first
    assert recounted(node, vip) == {second: 1}


def test_agent_puts_the_counts_right(node: Node, vip: Service) -> None:
    ids = Ids(max_frontends=ROOM, max_services=ROOM, max_backends=ROOM)
    reconciler = Reconciler(node.maps, cast(Attacher, None), ids)
    table = node.table("pools")
    table[table.Key(vip.pool)] = table.Leaf(vni=VNI, ready=3, service=b"web")
    for number in vip.ids.values():
        node.set_backend(number, task=f"task{number}".encode())
    reconciler.adopt()
    chosen = ask(node, 4000)
    burden(node, vip, a=100, b=200, c=300)
    limits = patience(Config())
    assert recount(reconciler, node.module, limits) == 3
    assert live(node, vip) == {chosen: 1}
    burden(node, vip, a=100, b=200, c=300)
    vip.flagged(MAGLEV)
    again = Reconciler(
        node.maps,
        cast(Attacher, None),
        Ids(max_frontends=ROOM, max_services=ROOM, max_backends=ROOM),
    )
    again.adopt()
    assert recount(again, node.module, limits) == 0
    assert sum(live(node, vip).values()) == 600


def test_patience_follows_the_settings() -> None:
    assert patience(Config()) == PATIENCE
    assert patience(Config(tcp_timeout_s=100, udp_timeout_s=30)).established == 100
