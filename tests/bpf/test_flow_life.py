# SPDX-License-Identifier: Apache-2.0
"""How flows begin, last and end; who has to go when there is no room."""

from __future__ import annotations

from typing import Any

import pytest

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    HERE_GATEWAY,
    PUBLISHED,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    between,
    tcp,
    udp,
)
from .node import TC_OK, TC_REDIRECT, XDP_TX, Node, assert_result
from .world import Service, remote

INSIDE, SERVER, TASK = f"{ALICE}:4000", f"{VIP}:80", f"{WEB_1}:80"
OUTSIDE, PORT = f"{CLIENT}:4000", f"192.0.2.11:{PUBLISHED}"
HERE_TARGET = f"{HERE_GATEWAY}:{TARGET}"
MINUTE, DAY = 60, 24 * 3600
MILLION = 1_000_000
MANY = 200_000  # times what the maps have room for
FIRST_FORGED = 0x0B000000


@pytest.fixture
def web(node: Node) -> Service:
    return node.vip(VIP, VNI).backends(WEB_1)


@pytest.fixture
def here(node: Node) -> Service:
    return node.port(PUBLISHED, TARGET).backends(node.here())


@pytest.fixture
def there(node: Node) -> Service:
    return node.port(PUBLISHED, TARGET).backends(remote(THERE))


def say(node: Node, flags: str, make: Any = tcp) -> Any:
    return node.overlay_ingress(make(INSIDE, SERVER, *([flags] if make is tcp else [])))


def answer(node: Node, flags: str, make: Any = tcp) -> Any:
    return node.overlay_egress(make(TASK, INSIDE, *([flags] if make is tcp else [])))


def shake_hands(node: Node) -> None:
    say(node, "S")
    answer(node, "SA")
    say(node, "A")


def move_on(web: Service) -> None:
    """From now on, new flows get another backend."""
    web.backends(WEB_2).choose(WEB_2)


def assert_stays(node: Node, flags: str = "A") -> None:
    assert_result(say(node, flags), TC_OK, tcp(INSIDE, TASK, flags, macs=between(ALICE, WEB_1)))


def kept(node: Node) -> tuple[int, int, int, int]:
    """How many flows and replies are established, and transient."""
    return (
        len(node.established("flows")),
        len(node.established("replies")),
        len(node.transient("flows")),
        len(node.transient("replies")),
    )


# --- established


def test_a_handshake_establishes(node: Node, web: Service) -> None:
    say(node, "S")
    assert kept(node) == (0, 0, 1, 1)
    say(node, "S")
    answer(node, "SA")
    assert kept(node) == (0, 0, 1, 1)
    say(node, "A")
    assert kept(node) == (1, 1, 0, 0)


def test_what_nobody_answers_is_never_established(node: Node, web: Service) -> None:
    for flags in ("S", "A", "PA", "A"):
        say(node, flags)
    assert kept(node) == (0, 0, 1, 1)


def test_question_and_answer_do_not_make_a_udp_flow(node: Node, web: Service) -> None:
    say(node, "", udp)
    say(node, "", udp)
    answer(node, "", udp)
    assert kept(node) == (0, 0, 1, 1)
    say(node, "", udp)
    assert kept(node) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    "ending", [[("C", "FA"), ("S", "FA")], [("S", "FA"), ("C", "FA")], [("C", "R")], [("S", "RA")]]
)
def test_a_closed_flow_is_transient_again(
    node: Node, web: Service, ending: list[tuple[str, str]]
) -> None:
    shake_hands(node)
    for side, flags in ending:
        (say if side == "C" else answer)(node, flags)
    assert kept(node) == (0, 0, 1, 1)
    assert_stays(node)  # its last acknowledgement goes the same way
    assert kept(node) == (0, 0, 1, 1)


@pytest.mark.parametrize("side", [say, answer])
def test_a_half_closed_flow_stays_established(node: Node, web: Service, side: Any) -> None:
    shake_hands(node)
    side(node, "FA")
    assert kept(node) == (1, 1, 0, 0)


def test_delivered_flows_alike(node: Node, here: Service) -> None:
    node.nic_ingress(tcp(OUTSIDE, PORT, macs=FROM_CLIENT))
    node.gateway_ingress(tcp(HERE_TARGET, OUTSIDE, "SA"))
    assert kept(node) == (0, 0, 1, 1)
    node.nic_ingress(tcp(OUTSIDE, PORT, "A", macs=FROM_CLIENT))
    assert kept(node) == (1, 1, 0, 0)
    node.gateway_ingress(tcp(HERE_TARGET, OUTSIDE, "RA"))
    assert kept(node) == (0, 0, 1, 1)


def test_entries_of_the_entry_node(node: Node, there: Service) -> None:
    """Answers need not come back this way: only the client is heard."""
    steps = [("S", 0), ("S", 0), ("A", 1), ("PA", 1), ("FA", 0), ("A", 0), ("S", 0), ("A", 1)]
    for flags, established in [*steps, ("R", 0)]:
        node.nic_xdp(tcp(OUTSIDE, PORT, flags, macs=FROM_CLIENT))
        assert len(node.established("entries")) == established
        assert len(node.transient("entries")) == 1 - established


# --- how long


@pytest.mark.parametrize("idle", [10 * MINUTE, 4 * DAY])
def test_an_idle_connection_keeps_its_backend(node: Node, web: Service, idle: int) -> None:
    shake_hands(node)
    move_on(web)
    for name in ("flows", "replies"):
        node.age(name, idle)
    assert_stays(node)


@pytest.mark.parametrize("side", [say, answer])
def test_a_half_closed_connection_lives(node: Node, web: Service, side: Any) -> None:
    shake_hands(node)
    side(node, "FA")
    move_on(web)
    for name in ("flows", "replies"):
        node.age(name, 11 * MINUTE)
    assert_stays(node)
    back = answer(node, "PA")
    assert_result(back, TC_OK, tcp(SERVER, INSIDE, "PA", macs=between(WEB_1, ALICE)))


@pytest.mark.parametrize(("idle", "backend"), [(179, WEB_1), (181, WEB_2)])
def test_a_datagram_after_the_timeout_chooses_anew(
    node: Node, web: Service, idle: int, backend: str
) -> None:
    for _ in range(2):
        say(node, "", udp)
        answer(node, "", udp)
    move_on(web)
    for name in ("flows", "replies"):
        node.age(name, idle)
    result = say(node, "", udp)
    assert_result(result, TC_OK, udp(INSIDE, f"{backend}:80", macs=between(ALICE, backend)))


@pytest.mark.parametrize(("idle", "backend"), [(179, "10.0.0.6"), (181, "10.0.0.7")])
def test_at_the_entry_node_too(node: Node, idle: int, backend: str) -> None:
    service = node.port(PUBLISHED, TARGET, 17).backends(remote(THERE))
    node.nic_xdp(udp(OUTSIDE, PORT, macs=FROM_CLIENT))
    service.backends(remote("10.0.0.7")).choose("10.0.0.7")
    node.age("entries", idle)
    node.nic_xdp(udp(OUTSIDE, PORT, macs=FROM_CLIENT))
    assert node.backend_of("entries") == service.ids[backend]


# --- room


def test_a_million_forged_syns_cost_no_connection_to_a_vip(node: Node, web: Service) -> None:
    shake_hands(node)
    move_on(web)
    flood = node.overlay_flood(tcp(INSIDE, SERVER))
    assert {flood(FIRST_FORGED + n) for n in range(MILLION)} == {TC_OK}
    assert kept(node)[:2] == (1, 1)
    assert kept(node)[2] > 1000  # the flood has filled what is its own
    assert_stays(node)


def test_nor_one_to_a_task_of_this_node(node: Node, here: Service) -> None:
    ask, back = tcp(OUTSIDE, PORT, "A", macs=FROM_CLIENT), tcp(HERE_TARGET, OUTSIDE, "SA")
    node.nic_ingress(tcp(OUTSIDE, PORT, macs=FROM_CLIENT))
    node.gateway_ingress(back)
    node.nic_ingress(ask)
    here.backends(node.here_too()).choose("10.0.0.8")
    flood = node.nic_flood(tcp(OUTSIDE, PORT, macs=FROM_CLIENT))
    assert {flood(FIRST_FORGED + n) for n in range(MANY)} == {TC_REDIRECT}
    assert kept(node)[:2] == (1, 1)
    result = node.nic_ingress(ask)
    assert result.verdict == TC_REDIRECT
    assert result.data[30:34] == bytes([172, 18, 0, 5])


def test_nor_one_that_goes_to_another_node(node: Node, there: Service) -> None:
    ask = tcp(OUTSIDE, PORT, "A", macs=FROM_CLIENT)
    node.nic_xdp(tcp(OUTSIDE, PORT, macs=FROM_CLIENT))
    node.nic_xdp(ask)
    there.backends(remote("10.0.0.7")).choose("10.0.0.7")
    flood = node.xdp_flood(tcp(OUTSIDE, PORT, macs=FROM_CLIENT))
    assert {flood(FIRST_FORGED + n) for n in range(MANY)} == {XDP_TX}
    assert len(node.established("entries")) == 1
    first = there.ids[THERE]
    node.nic_xdp(ask)
    assert {leaf.backend for leaf in node.established("entries").values()} == {first}


def test_closed_flows_make_room_before_open_ones(node: Node, web: Service) -> None:
    shake_hands(node)
    for n in range(10_000):
        client = f"10.0.{2 + n // 250}.{1 + n % 250}:4000"
        node.overlay_ingress(tcp(client, SERVER))
        node.overlay_egress(tcp(TASK, client, "RA"))
    move_on(web)
    assert_stays(node)
