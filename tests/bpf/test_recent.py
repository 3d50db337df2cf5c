# SPDX-License-Identifier: Apache-2.0
"""What a CPU notes of flows (bpf/recent.h): that it goes by it, and when it must not.

To see what it goes by, the flow is taken out of the maps as nobody does but the LRU, which tells
nothing of it, and the service's table leads elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from .net import ALICE, OTHER_VNI, VIP, VNI, WEB_1, WEB_2, between, tcp, udp
from .node import TC_OK, TC_SHOT, TC_UNSPEC, Node, assert_result
from .sandbox import ifindex
from .test_vip_plain import (
    ALICES,
    BOTH,
    CLIENT,
    SERVER,
    TASKS,
    MakePacket,
    answers,
    arrives,
    asks,
    establish,
    returns,
)
from .world import DRAINING, GONE, READY, Counter, Service, be32

TRIES = 100  # what is noted is good for a moment: a slow machine may miss it


@pytest.fixture
def web(node: Node) -> Service:
    """Of two tasks, of which the first is asked. It is known who is at the veths."""
    node.endpoint(ALICE, VNI, ifindex(ALICES))
    node.endpoint(WEB_1, VNI, ifindex(TASKS))
    return node.vip(VIP, VNI).backends(WEB_1, WEB_2).choose(WEB_1)


def elsewhere(make: MakePacket) -> Any:
    """What the client has asked, as the other task gets it."""
    port = f"{WEB_2}:80"
    return make(CLIENT, port, *(["A"] if make is tcp else []), macs=between(ALICE, WEB_2))


def evict(node: Node, web: Service) -> None:
    """As the LRU does: who is looked up now is a new flow."""
    for name in ("flows", "replies", "transient_flows", "transient_replies"):
        node.table(name).clear()
    web.choose(WEB_2)


def begin(node: Node, web: Service, make: MakePacket) -> None:
    """A flow of which both directions are noted."""
    node.forget("flows")
    node.forget("replies")
    web.choose(WEB_1)
    establish(node, make)
    node.overlay_ingress(asks(make))
    node.overlay_egress(answers(make))


def goes_by_note(node: Node, web: Service, make: MakePacket, between: Callable[[], Any]) -> bool:
    """Whether the next packet gets to the same task, though nothing but the note knows it."""
    begin(node, web, make)
    between()
    evict(node, web)
    return node.overlay_ingress(asks(make)).data == bytes(arrives(make))


@pytest.mark.parametrize("make", BOTH)
def test_noted_flow_is_not_looked_up(node: Node, web: Service, make: MakePacket) -> None:
    assert any(goes_by_note(node, web, make, lambda: None) for _ in range(TRIES))


@pytest.mark.parametrize("make", BOTH)
def test_noted_answer_is_not_looked_up(node: Node, web: Service, make: MakePacket) -> None:
    def goes_by_note() -> bool:
        begin(node, web, make)
        evict(node, web)
        return node.overlay_egress(answers(make)).data == bytes(returns(make))

    assert any(goes_by_note() for _ in range(TRIES))


@pytest.mark.parametrize("make", BOTH)
def test_noted_answer_of_a_task_is_not_looked_up(
    node: Node, web: Service, make: MakePacket
) -> None:
    def goes_by_note() -> bool:
        begin(node, web, make)
        node.overlay_ingress(answers(make), device=TASKS)
        node.overlay_ingress(answers(make), device=TASKS)
        evict(node, web)
        return node.overlay_ingress(answers(make), device=TASKS).data == bytes(returns(make))

    assert any(goes_by_note() for _ in range(TRIES))


def test_note_is_good_for_a_moment(node: Node, web: Service) -> None:
    begin(node, web, udp)
    evict(node, web)
    until = time.monotonic() + 30
    while node.overlay_ingress(asks(udp)).data == bytes(arrives(udp)):
        assert time.monotonic() < until, "what is noted is good for ever"


@pytest.mark.parametrize("make", BOTH)
def test_what_is_noted_is_what_is_looked_up(node: Node, web: Service, make: MakePacket) -> None:
    """Whatever the payload, and whether a CPU has the flow for the first time or not."""
    establish(node, make)
    before = node.counter("frontend", web.frontend)
    for payload in (b"", b"odd", b"even", bytes(1400)):
        asked = node.overlay_ingress(asks(make, payload=payload))
        assert_result(asked, TC_OK, arrives(make, payload=payload))
        answered = node.overlay_egress(answers(make, payload=payload))
        assert_result(answered, TC_OK, returns(make, payload=payload))
    header = 20 if make is tcp else 8
    more = 4, 4 * (20 + header) + 3 + 4 + 1400
    counted = Counter(
        (before.to_backend[0] + more[0], before.to_backend[1] + more[1]),
        (before.to_client[0] + more[0], before.to_client[1] + more[1]),
        before.connections,
    )
    assert node.counter("frontend", web.frontend) == counted
    assert node.counter("backend", web.ids[WEB_1]) == counted
    assert node.reasons() == {}


# --- what happens to a flow makes its note worthless


@pytest.mark.parametrize("flags", ["FA", "RA"])
@pytest.mark.parametrize("by", ["client", "task"])
def test_end_of_a_connection(node: Node, web: Service, flags: str, by: str) -> None:
    def end() -> None:
        if by == "client":
            node.overlay_ingress(asks(tcp, flags))
        else:
            node.overlay_egress(answers(tcp, flags))

    assert not goes_by_note(node, web, tcp, end)


def test_first_answer(node: Node, web: Service) -> None:
    """Else nobody would see that the flow is established."""
    for _ in range(3):
        node.overlay_ingress(asks(udp))
    node.overlay_egress(answers(udp))
    node.overlay_ingress(asks(udp))
    assert len(node.established()) == 1


@pytest.mark.parametrize("make", BOTH)
def test_flow_that_was_balanced_again(node: Node, web: Service, make: MakePacket) -> None:
    """Its first task is back, but the flow is another's."""
    begin(node, web, make)
    evict(node, web)
    opened = node.overlay_ingress(asks(make, "S"))
    if make is udp:  # as good as known, to this CPU
        web.state(WEB_1, GONE)
        opened = node.overlay_ingress(asks(make))
        web.state(WEB_1, READY)
    assert opened.data[30:34] == bytes(map(int, WEB_2.split(".")))
    assert_result(node.overlay_ingress(asks(make)), TC_OK, elsewhere(make))


def test_answer_of_a_connection_that_has_taken_the_ports(node: Node, web: Service) -> None:
    """Of another VIP, in front of the same task."""
    begin(node, web, tcp)
    other = "10.0.1.77"
    node.vip(other, VNI).backends(WEB_1)
    node.overlay_ingress(asks(tcp, "RA"))
    node.overlay_ingress(tcp(CLIENT, f"{other}:80", "S"))
    node.overlay_egress(answers(tcp, "SA"))
    node.overlay_ingress(tcp(CLIENT, f"{other}:80", "A"))
    back = node.overlay_egress(answers(tcp))
    assert_result(back, TC_OK, tcp(f"{other}:80", CLIENT, "A", macs=between(WEB_1, ALICE)))


# --- what is of no flow is noted, too


def test_noted_packet_of_nobody_is_not_looked_up(node: Node, web: Service) -> None:
    frontends = node.table("frontends")
    vips = list(frontends.items())

    def goes_by_note() -> bool:
        frontends.clear()
        node.forget_recent()
        packet = asks(udp)
        assert_result(node.overlay_ingress(packet), TC_UNSPEC, packet)
        for key, value in vips:
            frontends[key] = value
        return node.overlay_ingress(packet).data == bytes(packet)

    assert any(goes_by_note() for _ in range(TRIES))


def test_noted_packets_of_nobody_are_counted(node: Node, web: Service) -> None:
    for _ in range(4):
        node.overlay_ingress(udp(CLIENT, "10.0.1.99:80"))
    assert node.reasons() == {"handback_no_frontend": 4}


def test_nobody_goes_by_the_note_of_another_to_nobody(node: Node, web: Service) -> None:
    packet = udp(CLIENT, "10.0.1.99:80")
    node.overlay_ingress(packet)
    assert_result(node.overlay_ingress(packet, device=TASKS), TC_SHOT, packet)


@pytest.mark.parametrize("make", BOTH)
def test_answer_that_was_nobodys(node: Node, web: Service, make: MakePacket) -> None:
    """It comes before its flow, at either end."""
    node.overlay_ingress(answers(make), device=TASKS)
    node.overlay_egress(answers(make))
    establish(node, make)
    answered = node.overlay_egress(answers(make))
    assert_result(answered, TC_OK, returns(make))
    answered = node.overlay_ingress(answers(make), device=TASKS)
    assert_result(answered, TC_OK, returns(make))


def test_packet_to_a_task_that_was_nobodys(node: Node, web: Service) -> None:
    """It would meet the flow that has begun since."""
    direct = udp(CLIENT, f"{WEB_1}:80")
    assert_result(node.overlay_ingress(direct), TC_UNSPEC, direct)
    establish(node, udp)
    met = node.overlay_ingress(direct)
    assert met.verdict == TC_OK
    assert met.data != bytes(direct)


def test_packet_before_its_vip(node: Node) -> None:
    """As soon as the note is old, it is balanced."""
    packet = udp(CLIENT, SERVER)
    node.overlay_ingress(packet)
    node.vip(VIP, VNI).backends(WEB_1)
    until = time.monotonic() + 30
    while node.overlay_ingress(packet).verdict != TC_OK:
        assert time.monotonic() < until, "what is noted is good for ever"


# --- what is asked of every packet all the same


@pytest.mark.parametrize("make", BOTH)
def test_backend_is_looked_at(node: Node, web: Service, make: MakePacket) -> None:
    begin(node, web, make)
    web.state(WEB_1, DRAINING)
    assert_result(node.overlay_ingress(asks(make)), TC_OK, arrives(make))
    web.choose(WEB_2).state(WEB_1, GONE)
    assert node.overlay_ingress(asks(make)).data != bytes(arrives(make))


def test_backend_whose_id_was_given_to_another(node: Node, web: Service) -> None:
    begin(node, web, udp)
    node.set_backend(web.ids[WEB_1], address=be32("10.0.1.66"))
    web.choose(WEB_2)
    assert_result(node.overlay_ingress(asks(udp)), TC_OK, elsewhere(udp))


@pytest.mark.parametrize("answered", [False, True], ids=["asks", "answers"])
def test_nobody_goes_by_the_note_of_another(node: Node, web: Service, answered: bool) -> None:
    begin(node, web, tcp)
    node.overlay_ingress(answers(tcp), device=TASKS)
    node.overlay_ingress(answers(tcp), device=TASKS)
    forged, device = (answers(tcp), ALICES) if answered else (asks(tcp), TASKS)
    assert_result(node.overlay_ingress(forged, device=device), TC_SHOT, forged)


def test_networks_do_not_share_notes(node: Node, web: Service) -> None:
    begin(node, web, udp)
    node.endpoint(ALICE, OTHER_VNI, ifindex(ALICES))
    packet = asks(udp)
    assert node.overlay_ingress(packet, vni=OTHER_VNI).data == bytes(packet)
    answer = answers(udp)
    assert node.overlay_egress(answer, vni=OTHER_VNI).data == bytes(answer)


def test_protocols_do_not_share_notes(node: Node, web: Service) -> None:
    begin(node, web, tcp)
    web.choose(WEB_2)
    assert_result(node.overlay_ingress(asks(udp)), TC_OK, elsewhere(udp))


def test_end_is_noted_in_the_flow(node: Node, web: Service) -> None:
    begin(node, web, tcp)
    node.overlay_ingress(asks(tcp, "FA"))
    (flow,) = node.flows().values()
    assert flow.flags & 1
