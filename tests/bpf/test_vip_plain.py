# SPDX-License-Identifier: Apache-2.0
"""The short way of VIPs (bpf/vip_plain.h): what takes it, what must not, and what is marked."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
from scapy.packet import Packet

from .net import (
    ALICE,
    NODE_B,
    PUBLISHED,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    between,
    docker_mac,
    tcp,
    udp,
)
from .node import TC_OK, TC_SHOT, TC_UNSPEC, XDP_TX, Node, assert_result
from .sandbox import ifindex
from .world import DRAINING, GONE, STOPPING, Counter, Service, be32, remote

MakePacket = Callable[..., Packet]

TRANSLATED = 0xEB00006D  # bpf/mark.h
CLIENT, SERVER, TASK = f"{ALICE}:4000", f"{VIP}:80", f"{WEB_1}:80"
INWARDS, BACK = between(ALICE, WEB_1), between(WEB_1, ALICE)
ALICES, TASKS = "gw0", "gw1"  # the veths of client and task


@pytest.fixture
def web(node: Node) -> Service:
    """Of one task, on this node. It is known who is at both veths."""
    node.endpoint(ALICE, VNI, ifindex(ALICES))
    node.endpoint(WEB_1, VNI, ifindex(TASKS))
    return node.vip(VIP, VNI).backends(WEB_1)


def asks(make: MakePacket, flags: str = "A", **fields: Any) -> Packet:
    return make(CLIENT, SERVER, *([flags] if make is tcp else []), **fields)


def arrives(make: MakePacket, flags: str = "A", **fields: Any) -> Packet:
    """The same as its task gets it."""
    return make(CLIENT, TASK, *([flags] if make is tcp else []), macs=INWARDS, **fields)


def answers(make: MakePacket, flags: str = "A", **fields: Any) -> Packet:
    return make(TASK, CLIENT, *([flags] if make is tcp else []), macs=BACK, **fields)


def returns(make: MakePacket, flags: str = "A", **fields: Any) -> Packet:
    return make(SERVER, CLIENT, *([flags] if make is tcp else []), macs=BACK, **fields)


def establish(node: Node, make: MakePacket = tcp) -> None:
    node.overlay_ingress(asks(make, "S"))
    node.overlay_egress(answers(make, "SA"))
    node.overlay_ingress(asks(make))
    assert len(node.established()) == 1


def forget_frontend(node: Node) -> None:
    """Who goes on without it is of a known flow."""
    node.table("frontends").clear()


BOTH = [pytest.param(make, id=make.__name__) for make in (tcp, udp)]
LENGTHS = [b"", b"odd", b"even", bytes(1400)]


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("payload", LENGTHS, ids=len)
def test_established_flow_is_translated(
    node: Node, web: Service, make: MakePacket, payload: bytes
) -> None:
    establish(node, make)
    forget_frontend(node)
    asked = node.overlay_ingress(asks(make, payload=payload))
    assert_result(asked, TC_OK, arrives(make, payload=payload))
    answered = node.overlay_egress(answers(make, payload=payload))
    assert_result(answered, TC_OK, returns(make, payload=payload))
    assert node.reasons() == {}


def test_datagrams_without_answers_are_translated(node: Node, web: Service) -> None:
    node.overlay_ingress(asks(udp))
    forget_frontend(node)
    assert_result(node.overlay_ingress(asks(udp)), TC_OK, arrives(udp))
    assert len(node.transient()) == 1


@pytest.mark.parametrize(
    "fields", [{"checksum": 0}, {"tos": 0xB8, "ttl": 1, "flags": "DF"}], ids=["no sum", "header"]
)
def test_other_fields_stay(node: Node, web: Service, fields: dict[str, Any]) -> None:
    establish(node, udp)
    assert_result(node.overlay_ingress(asks(udp, **fields)), TC_OK, arrives(udp, **fields))


def test_packets_and_bytes_are_counted_once(node: Node, web: Service) -> None:
    establish(node, udp)
    before = node.counter("frontend", web.frontend)
    asked, answered = asks(udp, payload=bytes(100)), answers(udp, payload=bytes(200))
    arrived = node.overlay_ingress(asked)
    node.overlay_egress(arrived.data, mark=arrived.mark)
    returned = node.overlay_ingress(answered, device=TASKS)
    node.overlay_egress(returned.data, mark=returned.mark)
    more = Counter(
        (before.to_backend[0] + 1, before.to_backend[1] + 128),
        (before.to_client[0] + 1, before.to_client[1] + 228),
        before.connections,
    )
    assert node.counter("frontend", web.frontend) == more
    assert node.counter("backend", web.ids[WEB_1]) == more


def test_segments_are_counted(node: Node, web: Service) -> None:
    establish(node)
    before = node.counter("frontend", web.frontend).to_backend
    node.overlay_ingress(asks(tcp, payload=bytes(3000)), gso_segs=3, gso_size=1000)
    assert node.counter("frontend", web.frontend).to_backend == (before[0] + 3, before[1] + 3040)


# --- what has to go the long way


@pytest.mark.parametrize("flags", ["FA", "RA"])
def test_end_of_a_flow_is_noted(node: Node, web: Service, flags: str) -> None:
    establish(node)
    node.overlay_ingress(asks(tcp, flags))
    (flow,) = node.flows().values()
    assert flow.flags & (1 if "F" in flags else 4)


@pytest.mark.parametrize("flags", ["FA", "RA"])
def test_end_by_the_task_is_noted(node: Node, web: Service, flags: str) -> None:
    establish(node)
    node.overlay_ingress(answers(tcp, flags), device=TASKS)
    node.overlay_egress(answers(tcp, flags))
    (flow,) = node.flows().values()
    assert flow.flags & (2 if "F" in flags else 4)


def test_time_is_noted_once_a_second(node: Node, web: Service) -> None:
    establish(node)
    node.age("flows", 2)
    node.age("replies", 2)
    (old,) = node.flows().values()
    node.overlay_ingress(asks(tcp))
    (flow,), (reply,) = node.flows().values(), node.flows("replies").values()
    assert flow.seen_ns > old.seen_ns
    assert reply.seen_ns == flow.seen_ns


@pytest.mark.parametrize("state", [GONE, STOPPING])
def test_datagrams_leave_a_backend_that_takes_no_more(node: Node, web: Service, state: int) -> None:
    establish(node, udp)
    web.backends(WEB_2).choose(WEB_2).state(WEB_1, state)
    result = node.overlay_ingress(asks(udp))
    assert_result(result, TC_OK, udp(CLIENT, f"{WEB_2}:80", macs=between(ALICE, WEB_2)))


def test_connection_stays_with_a_draining_backend(node: Node, web: Service) -> None:
    establish(node)
    web.backends(WEB_2).choose(WEB_2).state(WEB_1, DRAINING)
    assert_result(node.overlay_ingress(asks(tcp)), TC_OK, arrives(tcp))


def test_backend_whose_id_was_given_to_another_gets_nothing(node: Node, web: Service) -> None:
    establish(node, udp)
    node.set_backend(web.ids[WEB_1], address=be32(WEB_2), mac=docker_mac(WEB_2))
    result = node.overlay_ingress(asks(udp))
    assert_result(result, TC_OK, udp(CLIENT, f"{WEB_2}:80", macs=between(ALICE, WEB_2)))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"len": 2000}, id="length"),
        pytest.param({"len": 20}, id="no layer 4"),
        pytest.param({"version": 5}, id="version"),
    ],
)
def test_header_that_is_not_true_is_the_kernels(
    node: Node, web: Service, fields: dict[str, Any]
) -> None:
    establish(node)
    packet = asks(tcp, **fields)
    assert_result(node.overlay_ingress(packet), TC_UNSPEC, packet)


def test_unknown_fragment_is_the_kernels(node: Node, web: Service) -> None:
    establish(node, udp)
    packet = asks(udp, frag=100)
    assert_result(node.overlay_ingress(packet), TC_UNSPEC, packet)
    assert node.reasons() == {"handback_fragment": 1}


def test_other_port_of_a_flow_that_had_to_take_one(node: Node, web: Service) -> None:
    """Alice asks the task itself from a port, and then its VIP from the same."""
    node.overlay_ingress(tcp(CLIENT, TASK, "S"))
    opened = node.overlay_ingress(asks(tcp, "S"))
    port = int.from_bytes(opened.data[34:36], "big")
    other = f"{ALICE}:{port}"
    answered = node.overlay_egress(tcp(TASK, other, "SA", macs=BACK))
    assert_result(answered, TC_OK, returns(tcp, "SA"))
    node.overlay_ingress(asks(tcp))
    assert len(node.established()) == 1
    assert port != 4000
    asked = node.overlay_ingress(asks(tcp, payload=b"question"))
    assert_result(asked, TC_OK, tcp(other, TASK, "A", macs=INWARDS, payload=b"question"))
    back = node.overlay_egress(tcp(TASK, other, "A", macs=BACK, payload=b"answer"))
    assert_result(back, TC_OK, returns(tcp, payload=b"answer"))


# --- what is nobody's


def test_packet_of_no_flow_passes(node: Node, web: Service) -> None:
    stray = udp(CLIENT, "10.0.1.99:80")
    assert_result(node.overlay_ingress(stray), TC_UNSPEC, stray)
    assert_result(node.overlay_egress(stray), TC_UNSPEC, stray)
    assert node.reasons() == {"handback_no_frontend": 1}


def test_packet_to_a_task_itself_passes(node: Node, web: Service) -> None:
    direct = udp(CLIENT, TASK)
    assert_result(node.overlay_ingress(direct), TC_UNSPEC, direct)
    assert node.reasons() == {"handback_no_frontend": 1}


def test_packet_to_a_task_itself_does_not_meet_a_flow(node: Node, web: Service) -> None:
    establish(node, udp)
    met = node.overlay_ingress(udp(CLIENT, TASK))
    assert met.verdict == TC_OK
    assert met.data != bytes(udp(CLIENT, TASK))


# --- on this node from one veth to another


@pytest.mark.parametrize("make", BOTH)
def test_answer_is_translated_where_it_leaves_the_task(
    node: Node, web: Service, make: MakePacket
) -> None:
    establish(node, make)
    for _ in range(2):  # judged, and then known to be judged
        answered = node.overlay_ingress(answers(make), device=TASKS)
        assert_result(answered, TC_OK, returns(make))
        assert answered.mark == TRANSLATED
    assert node.reasons() == {}


def test_nothing_is_done_where_a_translated_packet_arrives(node: Node, web: Service) -> None:
    establish(node)
    result = node.overlay_egress(answers(tcp), mark=TRANSLATED)
    assert_result(result, TC_UNSPEC, answers(tcp))
    assert result.mark == 0


@pytest.mark.parametrize("flags", ["S", "A"])
def test_packet_to_a_task_of_this_node_is_marked(node: Node, web: Service, flags: str) -> None:
    if flags == "A":
        establish(node)
    assert node.overlay_ingress(asks(tcp, flags)).mark == TRANSLATED


def test_packet_to_another_node_is_not_marked(node: Node, web: Service) -> None:
    node.set_backend(web.ids[WEB_1], vtep=be32(NODE_B))
    establish(node)
    assert node.overlay_ingress(asks(tcp)).mark == 0
    assert node.overlay_ingress(asks(tcp, "FA")).mark == 0


def test_container_that_is_not_known_is_not_judged(node: Node, web: Service) -> None:
    establish(node)
    node.table("endpoints").clear()
    forget_frontend(node)
    assert_result(node.overlay_ingress(answers(tcp), device=TASKS), TC_OK, returns(tcp))
    assert_result(node.overlay_ingress(asks(tcp), device=TASKS), TC_OK, arrives(tcp))
    assert node.reasons() == {}


@pytest.mark.parametrize("macs", [BACK, INWARDS], ids=["MAC of the task", "own MAC"])
@pytest.mark.parametrize("answered", [False, True], ids=["first", "after the task"])
def test_nobody_answers_for_a_task(
    node: Node, web: Service, macs: tuple[str, str], answered: bool
) -> None:
    """Least of all the client, whose veth the flow's other direction is known by."""
    establish(node)
    if answered:
        node.overlay_ingress(answers(tcp), device=TASKS)
    forged = tcp(TASK, CLIENT, "A", macs=macs)
    assert_result(node.overlay_ingress(forged, device=ALICES), TC_SHOT, forged)
    assert node.reasons() == {"drop_spoofed_source": 1}


# --- what becomes established is counted: see flow_find()


def moves(node: Node) -> int:
    return int(node.table("flow_moves")[ctypes.c_uint32(0)].value)


def test_flow_that_becomes_established_is_counted(node: Node, web: Service) -> None:
    before = moves(node)
    establish(node)
    assert moves(node) == before + 1


def test_entry_that_becomes_established_is_counted(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(remote(THERE))
    before = moves(node)
    for flags in ("S", "A"):
        packet = tcp("192.0.2.100:4000", f"192.0.2.11:{PUBLISHED}", flags)
        assert node.nic_xdp(packet).verdict == XDP_TX
    assert moves(node) == before + 1
