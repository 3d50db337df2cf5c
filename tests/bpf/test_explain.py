# SPDX-License-Identifier: Apache-2.0
"""What `ebpfmesh explain` foretells of a packet, and what the programs then do with it."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ebpfmesh import flowhash
from ebpfmesh.agent.explain import Surroundings, explain
from ebpfmesh.datapath.lookup import Lookup
from ebpfmesh.explanation import Choice, Explanation, Outcome, question
from ebpfmesh.model import Protocol
from ebpfmesh.takeover import Mode

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    NODE_A,
    NODE_B,
    OTHER_VNI,
    PUBLISHED,
    STRANGER,
    TARGET,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    sctp,
    tcp,
    udp,
)
from .node import TC_OK, TC_SHOT, TC_UNSPEC, XDP_TX, Node
from .prog_run import array_of_one
from .world import (
    AFFINITY,
    DRAINING,
    GONE,
    LEAST_CONN,
    RANDOM,
    RR,
    STOPPING,
    TABLE_SIZE,
    Service,
    remote,
)

MakePacket = Callable[..., Packet]

MAKERS: dict[Protocol, MakePacket] = {Protocol.TCP: tcp, Protocol.UDP: udp, Protocol.SCTP: sctp}
TASKS = [f"10.0.0.{i}" for i in range(20, 25)]
WEBS = [f"10.0.1.{i}" for i in range(20, 25)]
ENTRY = f"{NODE_A}:{PUBLISHED}"
AROUND = Surroundings(
    NODE_A, "tunnel", 180.0, networks={VNI: "shop", OTHER_VNI: "back"}, nodes={NODE_B: "node2"}
)


def foretold(
    node: Node,
    client: str,
    frontend: str,
    around: Surroundings = AROUND,
    network: str = "",
) -> Explanation:
    return explain(question(client, frontend, network), Lookup(node.module), around)


def told(explanation: Explanation, subject: str) -> str:
    """What a step says."""
    return next(step.text for step in explanation.steps if step.subject == subject)


def published(node: Node, flags: int = 0, protocol: int = socket.IPPROTO_TCP) -> Service:
    return node.port(PUBLISHED, TARGET, protocol).backends(*map(remote, TASKS)).flagged(flags)


def some_clients(count: int) -> list[str]:
    """Some from everywhere, with the ends of the ranges among them."""
    numbers = random.Random(7)  # noqa: S311 - the same at each run
    ends = ["1.0.0.1:1", "223.255.255.254:65535", "128.0.0.1:32768"]
    return ends + [
        f"{IPv4Address(numbers.randrange(1 << 24, 127 << 24))}:{numbers.randrange(1, 65536)}"
        for _ in range(count)
    ]


# --- the hash, slot by slot


def name_the_slots(node: Node, pool: int) -> None:
    """A table where each slot has a backend of its own: slot + 1."""
    fd = array_of_one(struct.pack(f"={TABLE_SIZE}I", *range(1, TABLE_SIZE + 1)))
    table = node.table("maglev")
    table[table.Key(pool)] = table.Leaf(fd)
    os.close(fd)


@pytest.mark.parametrize("protocol", MAKERS)
@pytest.mark.parametrize("port", [1, 80, 8080, 40000, 65535])
def test_slot_is_that_of_the_programs(node: Node, protocol: Protocol, port: int) -> None:
    service = node.port(port, TARGET, protocol).backends(*map(remote, TASKS))
    name_the_slots(node, service.pool)
    for client in some_clients(200):
        address, source = client.split(":")
        node.nic_xdp(MAKERS[protocol](client, f"{NODE_A}:{port}", macs=FROM_CLIENT))
        hashed = flowhash.flow_hash(address, int(source), port, protocol)
        assert node.backend_of() == flowhash.slot(hashed, TABLE_SIZE) + 1, client
        node.forget("entries")


def test_slot_of_a_client_is_that_of_the_programs(node: Node) -> None:
    service = published(node, AFFINITY)
    name_the_slots(node, service.pool)
    for client in some_clients(200):
        node.nic_xdp(tcp(client, ENTRY, macs=FROM_CLIENT))
        hashed = flowhash.client_hash(client.split(":")[0])
        assert node.backend_of() == flowhash.slot(hashed, TABLE_SIZE) + 1, client
        node.forget("entries")


# --- published ports


@pytest.mark.parametrize("flags", [0, AFFINITY])
@pytest.mark.parametrize("protocol", MAKERS)
def test_backend_of_a_published_port(node: Node, protocol: Protocol, flags: int) -> None:
    published(node, flags, protocol)
    for client in some_clients(50):
        asked = f"{ENTRY}/{protocol.name.lower()}"
        before = foretold(node, client, asked)
        assert (before.outcome, before.choice) == (Outcome.BACKEND, Choice.SLOT)
        packet = MAKERS[protocol](client, ENTRY, macs=FROM_CLIENT)
        assert node.nic_xdp(packet).verdict == XDP_TX
        assert [one.id for one in before.backends] == [node.backend_of()]
        after = foretold(node, client, asked)
        assert (after.choice, after.backends) == (Choice.FLOW, before.backends)
        node.forget("entries")


def test_flow_keeps_its_backend(node: Node) -> None:
    service = published(node)
    node.nic_xdp(tcp(f"{CLIENT}:4000", ENTRY, macs=FROM_CLIENT))
    before = node.backend_of()
    kept = TASKS[before - 1]
    service.choose(*(task for task in TASKS if task != kept))
    known = foretold(node, f"{CLIENT}:4000", ENTRY)
    assert (known.choice, known.backends[0].id) == (Choice.FLOW, before)
    service.state(kept, DRAINING)
    assert foretold(node, f"{CLIENT}:4000", ENTRY).backends[0].state == "draining"
    service.state(kept, GONE)
    anew = foretold(node, f"{CLIENT}:4000", ENTRY)
    assert anew.choice is Choice.SLOT
    assert "has gone" in told(anew, "flow")
    node.nic_xdp(tcp(f"{CLIENT}:4000", ENTRY, macs=FROM_CLIENT))
    assert anew.backends[0].id == node.backend_of()


@pytest.mark.parametrize(
    ("protocol", "kept"), [(Protocol.TCP, True), (Protocol.UDP, False), (Protocol.SCTP, True)]
)
def test_datagrams_leave_a_backend_that_stops(node: Node, protocol: Protocol, kept: bool) -> None:
    service = published(node, 0, protocol)
    asked = f"{ENTRY}/{protocol.name.lower()}"
    node.nic_xdp(MAKERS[protocol](f"{CLIENT}:4000", ENTRY, macs=FROM_CLIENT))
    before = node.backend_of()
    service.state(TASKS[before - 1], STOPPING)
    service.choose(*(task for task in TASKS if task != TASKS[before - 1]))
    answer = foretold(node, f"{CLIENT}:4000", asked)
    assert (answer.choice is Choice.FLOW) == kept
    assert (answer.backends[0].id == before) == kept
    if not kept:
        node.nic_xdp(udp(f"{CLIENT}:4000", ENTRY, macs=FROM_CLIENT))
        assert node.backend_of() == answer.backends[0].id


def test_ended_flow_is_none(node: Node) -> None:
    published(node)
    for flags in ("S", "FA"):
        node.nic_xdp(tcp(f"{CLIENT}:4000", ENTRY, flags, macs=FROM_CLIENT))
    assert "has ended" in told(foretold(node, f"{CLIENT}:4000", ENTRY), "flow")


def test_silent_datagrams_are_a_new_flow(node: Node) -> None:
    published(node, 0, socket.IPPROTO_UDP)
    node.nic_xdp(udp(f"{CLIENT}:4000", ENTRY, macs=FROM_CLIENT))
    assert foretold(node, f"{CLIENT}:4000", f"{ENTRY}/udp").choice is Choice.FLOW
    node.age("entries", 200)
    assert foretold(node, f"{CLIENT}:4000", f"{ENTRY}/udp").choice is Choice.SLOT


def test_ways_there_and_back(node: Node) -> None:
    service = node.port(PUBLISHED, TARGET).backends(node.here(), remote(TASKS[0]))
    service.choose(node.here().address)
    here = foretold(node, f"{CLIENT}:4000", ENTRY)
    assert here.backends[0].local
    assert told(here, "path").endswith("172.18.0.5:80")
    service.choose(TASKS[0])
    there = foretold(node, f"{CLIENT}:4000", ENTRY)
    assert (there.backends[0].local, there.backends[0].node) == (False, "node2")
    assert told(there, "path") == f"wrapped in VXLAN to {NODE_B}, into the task at port 80"
    assert told(there, "return") == "from node2 through this node (tunnel)"
    dsr = foretold(node, f"{CLIENT}:4000", ENTRY, Surroundings(NODE_A, "dsr", 180.0))
    assert told(dsr, "return") == f"from {NODE_B} straight to the client (dsr)"


def test_refusals_are_those_of_the_programs(node: Node) -> None:
    service = published(node).allow("192.0.2.96/28")
    assert foretold(node, f"{CLIENT}:4000", ENTRY).outcome is Outcome.BACKEND
    assert foretold(node, f"{NODE_B}:4000", ENTRY).outcome is Outcome.BACKEND
    refused = foretold(node, f"{STRANGER}:4000", ENTRY)
    assert (refused.outcome, refused.reason) == (Outcome.DROPPED, "not_allowed")
    assert node.nic_ingress(tcp(f"{STRANGER}:4000", ENTRY, macs=FROM_CLIENT)).verdict == TC_SHOT
    service.choose()
    nobody = foretold(node, f"{CLIENT}:4000", ENTRY)
    assert (nobody.outcome, nobody.reason) == (Outcome.DROPPED, "no_backend")
    node.nic_ingress(tcp(f"{CLIENT}:4000", ENTRY, macs=FROM_CLIENT))
    assert node.reasons() == {"drop_not_allowed": 1, "drop_no_backend": 1}


@pytest.mark.parametrize(
    ("frontend", "reason"),
    [(f"{NODE_A}:81", "no_frontend"), (f"{NODE_B}:{PUBLISHED}", "foreign_address")],
)
def test_what_is_the_kernels(node: Node, frontend: str, reason: str) -> None:
    published(node)
    answer = foretold(node, f"{CLIENT}:4000", frontend)
    assert (answer.outcome, answer.reason) == (Outcome.KERNEL, reason)
    packet = tcp(f"{CLIENT}:4000", frontend, macs=FROM_CLIENT)
    assert node.nic_ingress(packet).verdict == TC_UNSPEC
    assert node.reasons() == {f"handback_{reason}": 1}


def test_new_flows_are_the_kernels_while_giving_back(node: Node) -> None:
    published(node)
    node.nic_xdp(tcp(f"{CLIENT}:4000", ENTRY, macs=FROM_CLIENT))
    node.mode(Mode.GIVING_BACK)
    around = Surroundings(NODE_A, "tunnel", 180.0, Mode.GIVING_BACK)
    assert foretold(node, f"{CLIENT}:4000", ENTRY, around).choice is Choice.FLOW
    assert foretold(node, f"{CLIENT}:4001", ENTRY, around).reason == "giving_back"


@pytest.mark.parametrize("flags", [RANDOM, RR, LEAST_CONN])
def test_schedulers_are_not_foretold(node: Node, flags: int) -> None:
    published(node, flags).choose(*TASKS[:4])
    answer = foretold(node, f"{CLIENT}:4000", ENTRY)
    assert (answer.outcome, answer.choice) == (Outcome.ANY, Choice.SCHEDULER)
    assert {one.address: one.share for one in answer.backends} == dict.fromkeys(TASKS[:4], 0.25)


def test_without_a_port_the_shares_are_told(node: Node) -> None:
    published(node).choose(*TASKS[:2])
    answer = foretold(node, CLIENT, ENTRY)
    assert answer.outcome is Outcome.ANY
    assert [round(one.share, 2) for one in answer.backends] == [0.5, 0.5]
    published(node, AFFINITY)
    assert foretold(node, CLIENT, ENTRY).outcome is Outcome.BACKEND


@pytest.mark.parametrize("client", ["127.0.0.1", NODE_A])
def test_processes_of_the_node_choose_at_the_socket(node: Node, client: str) -> None:
    published(node)
    answer = foretold(node, f"{client}:4000", ENTRY)
    assert answer.outcome is Outcome.ANY
    assert "when it connects" in told(answer, "client")


# --- VIPs


@pytest.mark.parametrize("flags", [0, AFFINITY])
@pytest.mark.parametrize("protocol", MAKERS)
def test_backend_of_a_vip(node: Node, protocol: Protocol, flags: int) -> None:
    node.vip(VIP, VNI).backends(*WEBS).flagged(flags)
    for port in range(4000, 4030):
        client, asked = f"{ALICE}:{port}", f"{VIP}:{port - 3000}"
        before = foretold(node, client, f"{asked}/{protocol.name.lower()}")
        assert (before.choice, before.network) == (Choice.SLOT, "shop")
        result = node.overlay_ingress(MAKERS[protocol](client, asked))
        assert result.verdict == TC_OK
        assert Ether(result.data)[IP].dst == before.backends[0].address
        after = foretold(node, client, f"{asked}/{protocol.name.lower()}")
        assert (after.choice, after.backends) == (Choice.FLOW, before.backends)


def test_network_is_said_where_several_have_the_vip(node: Node) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    node.vip(VIP, OTHER_VNI).backends(WEB_2)
    open_question = foretold(node, f"{ALICE}:4000", f"{VIP}:80")
    assert "back, shop; say which" in told(open_question, "network")
    for network, address in (("shop", WEB_1), ("back", WEB_2)):
        answer = foretold(node, f"{ALICE}:4000", f"{VIP}:80", network=network)
        assert answer.backends[0].address == address


def test_a_task_that_is_balanced_to_itself(node: Node) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    assert "to itself" in told(foretold(node, f"{WEB_1}:4000", f"{VIP}:80"), "path")


def test_backends_own_address_is_not_balanced(node: Node) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    answer = foretold(node, f"{ALICE}:4000", f"{WEB_1}:80")
    assert (answer.outcome, answer.reason) == (Outcome.KERNEL, "no_frontend")
    assert "own address" in told(answer, "frontend")


def test_looking_changes_nothing(node: Node) -> None:
    published(node, RR)
    turns = node.table("turns")
    for _ in range(3):
        foretold(node, f"{CLIENT}:4000", ENTRY)
    assert not node.flows("entries")
    assert not any(turns[turns.Key(i)].value for i in range(4))
    assert not node.reasons()
