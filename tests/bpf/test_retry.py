# SPDX-License-Identifier: Apache-2.0
"""A SYN that comes again, unanswered; a backend that is silent; one that does not listen yet."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    HERE_TOO_GATEWAY,
    NODE_A,
    NODE_A_MAC,
    NODE_B,
    NODE_B_MAC,
    NODE_C,
    PUBLISHED,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    docker_mac,
    tcp,
    udp,
    wrapped,
)
from .node import TC_OK, TC_REDIRECT, TC_SHOT, XDP_DROP, XDP_TX, Node
from .prog_run import Result
from .world import Service, remote

ASKING, SERVER = f"{ALICE}:4000", f"{VIP}:80"
OTHER_NODES = "10.0.0.7"
SOURCE, ENTRY = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}"
BACK = (NODE_B_MAC, NODE_A_MAC)


def ask(node: Node, source: str = ASKING, flags: str = "S") -> str:
    """Which backend a packet to the VIP goes to."""
    result = node.overlay_ingress(tcp(source, SERVER, flags))
    assert result.verdict == TC_OK
    return str(Ether(result.data)[IP].dst)


def later(node: Node, seconds: float = 1.0) -> None:
    for name in ("flows", "replies", "entries"):
        node.age(name, seconds)


def answer(node: Node, backend: str, flags: str = "SA", to: str = ASKING) -> Result:
    return node.overlay_egress(tcp(f"{backend}:80", to, flags))


@pytest.fixture
def web(node: Node) -> Service:
    return node.vip(VIP, VNI).backends(WEB_1, WEB_2)


# --- on a VIP


def test_syn_that_comes_again_goes_to_another_backend(node: Node, web: Service) -> None:
    first = ask(node)
    later(node)
    second = ask(node)
    assert {first, second} == {WEB_1, WEB_2}
    assert node.reasons() == {"retry_no_answer": 1}
    answered = answer(node, second)
    assert (answered.verdict, Ether(answered.data)[IP].src) == (TC_OK, VIP)
    assert ask(node, flags="A") == second


def test_duplicate_keeps_its_backend(node: Node, web: Service) -> None:
    first = ask(node)
    later(node, 0.1)
    assert ask(node) == first
    assert node.reasons() == {}


def test_so_does_one_that_was_answered(node: Node, web: Service) -> None:
    """The answer was lost on its way to the client."""
    first = ask(node)
    answer(node, first)
    later(node)
    assert ask(node) == first
    assert node.reasons() == {}


def test_only_backend_is_asked_again(node: Node) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    for _ in range(3):
        assert ask(node) == WEB_1
        later(node)
    assert node.reasons() == {}
    assert node.counter("frontend", 1).connections == 1


@pytest.mark.parametrize("flags", ["SA", "RA"])
def test_late_answer_does_not_reach_the_client(node: Node, web: Service, flags: str) -> None:
    first = ask(node)
    later(node)
    second = ask(node)
    assert answer(node, first, flags).verdict == TC_SHOT
    assert node.reasons() == {"retry_no_answer": 1, "drop_late_answer": 1}
    assert answer(node, second).verdict == TC_OK
    assert ask(node, flags="A") == second


def test_tombstone_gives_way(node: Node, web: Service) -> None:
    """A connection straight to that backend, from the same port; the balanced one goes on."""
    first = ask(node)
    later(node)
    second = ask(node)
    direct = node.overlay_ingress(tcp(ASKING, f"{first}:80"))
    assert (direct.verdict, Ether(direct.data).sport) == (TC_OK, 4000)
    answered = answer(node, first)
    assert (answered.verdict, Ether(answered.data)[IP].src) == (TC_OK, first)
    answer(node, second)
    assert ask(node, flags="A") == second


def test_datagrams_keep_their_backend(node: Node, web: Service) -> None:
    """One-way UDP is not answered: nothing follows from that."""
    results = set()
    for _ in range(4):
        result = node.overlay_ingress(udp(ASKING, SERVER))
        results.add(str(Ether(result.data)[IP].dst))
        later(node)
    assert len(results) == 1
    assert node.reasons() == {}


# --- passive health


def silence(node: Node, victim: str, times: int = 3) -> None:
    """So many connections in a row get no answer from it; another backend answers."""
    port = 5000
    while times:
        port += 1
        source = f"{ALICE}:{port}"
        asked = ask(node, source)
        if asked == victim:
            later(node)
            asked = ask(node, source)
            times -= 1
        answer(node, asked, to=source)


def asked_for(node: Node, ports: range) -> set[str]:
    return {ask(node, f"{ALICE}:{port}") for port in ports}


def test_silent_backend_is_avoided(node: Node, web: Service) -> None:
    silence(node, WEB_1, 2)
    assert asked_for(node, range(6000, 6020)) == {WEB_1, WEB_2}
    silence(node, WEB_1, 1)
    assert asked_for(node, range(6100, 6130)) == {WEB_2}


def test_its_answer_ends_that(node: Node, web: Service) -> None:
    held = next(s for s in (f"{ALICE}:{p}" for p in range(7000, 7100)) if ask(node, s) == WEB_1)
    silence(node, WEB_1)
    assert asked_for(node, range(6100, 6130)) == {WEB_2}
    answer(node, WEB_1, to=held)
    assert asked_for(node, range(6200, 6230)) == {WEB_1, WEB_2}


def test_where_all_are_avoided_none_is(node: Node, web: Service) -> None:
    silence(node, WEB_1)
    node.avoid(*web.ids.values())
    assert asked_for(node, range(6200, 6230)) == {WEB_1, WEB_2}


def test_only_flows_of_the_avoided_one_move(node: Node, web: Service) -> None:
    before = {port: ask(node, f"{ALICE}:{port}") for port in range(6000, 6040)}
    node.avoid(web.ids[WEB_1])
    node.forget("flows")
    node.forget("replies")
    for port, backend in before.items():
        assert ask(node, f"{ALICE}:{port}") == WEB_2, backend


def test_connections_find_out_first_whether_it_answers_again(node: Node, web: Service) -> None:
    node.avoid(web.ids[WEB_1], seconds=-1)
    assert asked_for(node, range(6000, 6030)) == {WEB_1, WEB_2}
    node.avoid(web.ids[WEB_1], seconds=-1)  # again: an emulated machine takes its time
    got = {
        str(Ether(node.overlay_ingress(udp(f"{ALICE}:{port}", SERVER)).data)[IP].dst)
        for port in range(6000, 6020)
    }
    assert got == {WEB_2}


# --- a task that does not listen yet


def test_refusal_of_a_starting_task_is_not_heard(node: Node, web: Service) -> None:
    first = ask(node)
    assert answer(node, first, "RA").verdict == TC_SHOT
    later(node)
    second = ask(node)
    assert second != first
    assert answer(node, second, "RA").verdict == TC_OK
    assert node.reasons() == {"drop_early_refusal": 1, "retry_no_answer": 1}


def test_refusal_is_heard_of_a_task_that_has_accepted_on_another_port(
    node: Node, web: Service
) -> None:
    """It refuses this one, and means it."""
    for port in range(6000, 6020):
        answer(node, ask(node, f"{ALICE}:{port}"), to=f"{ALICE}:{port}")
    result = node.overlay_ingress(tcp(ASKING, f"{VIP}:81"))
    refusal = tcp(f"{Ether(result.data)[IP].dst}:81", ASKING, "RA")
    assert node.overlay_egress(refusal).verdict == TC_OK
    assert node.reasons() == {}


def test_refusal_is_heard_where_nobody_else_is_ready(node: Node) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    assert answer(node, ask(node), "RA").verdict == TC_OK


def test_refusal_is_heard_when_it_has_lasted(node: Node, web: Service) -> None:
    for seconds, verdict in ((0, TC_SHOT), (40, TC_OK)):
        node.age_health(seconds)
        source = f"{ALICE}:{4100 + seconds}"
        backend = WEB_1
        for port in range(4100 + seconds, 4200 + seconds):
            source = f"{ALICE}:{port}"
            if ask(node, source) == backend:
                break
        assert answer(node, backend, "RA", source).verdict == verdict


# --- a published port


def published(node: Node) -> Service:
    return node.port(PUBLISHED, TARGET).backends(remote(THERE, NODE_B), remote(OTHER_NODES, NODE_C))


def enter(node: Node, flags: str = "S") -> tuple[str, int]:
    """The node that a packet is sent to, and the attempt."""
    result = node.nic_xdp(tcp(SOURCE, ENTRY, flags, macs=FROM_CLIENT))
    assert result.verdict == XDP_TX
    return str(Ether(result.data)[IP].dst), result.data[49]


def returned(node: Node, by: str, attempt: int, flags: str = "SA") -> int:
    """XDP's verdict on an answer."""
    reply = tcp(ENTRY, SOURCE, flags)
    packet = wrapped(reply, (by, NODE_A), (by, NODE_A), 0xC001, BACK, mark=attempt)
    return node.nic_xdp(packet).verdict


def test_entry_node_sends_it_to_another(node: Node) -> None:
    published(node)
    first, attempt = enter(node)
    assert attempt == 0
    later(node, 0.1)
    assert enter(node) == (first, 0)
    later(node)
    second, attempt = enter(node)
    assert {first, second} == {NODE_B, NODE_C}
    assert attempt == 1
    for flags in ("SA", "RA"):
        assert returned(node, first, 0, flags) == XDP_DROP
    assert returned(node, second, 1) == XDP_TX
    assert node.reasons() == {"retry_no_answer": 1, "drop_late_answer": 2}
    assert enter(node, "A")[0] == second


def test_entry_node_has_seen_the_answer(node: Node) -> None:
    """It was lost behind it."""
    published(node)
    first, _ = enter(node)
    assert returned(node, first, 0) == XDP_TX
    later(node)
    assert enter(node) == (first, 0)
    assert node.reasons() == {}


def test_tasks_of_the_entry_node(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(node.here(), node.here_too())

    def deliver(flags: str = "S") -> str:
        result = node.nic_ingress(tcp(SOURCE, ENTRY, flags, macs=FROM_CLIENT))
        assert result.verdict == TC_REDIRECT
        return str(Ether(result.data)[IP].dst)

    def reply(task: str, flags: str) -> int:
        out = (docker_mac(task), "02:42:00:00:00:01")
        device = "gw0" if task == HERE_GATEWAY else "gw1"
        return node.gateway_ingress(
            tcp(f"{task}:{TARGET}", SOURCE, flags, macs=out), device
        ).verdict

    first = deliver()
    assert reply(first, "RA") == TC_SHOT
    later(node)
    second = deliver()
    assert {first, second} == {HERE_GATEWAY, HERE_TOO_GATEWAY}
    assert reply(first, "SA") == TC_SHOT
    assert reply(second, "SA") == TC_REDIRECT
    later(node)
    assert deliver() == second
    assert deliver("A") == second
    assert node.reasons() == {
        "drop_early_refusal": 1,
        "drop_late_answer": 1,
        "retry_no_answer": 1,
    }


def through_tunnel(packet: Packet, to: str = HERE, mark: int = 0) -> Packet:
    return wrapped(packet, (NODE_B, NODE_A), (NODE_B, to), 0xC001, BACK, mark=mark)


@pytest.mark.parametrize("mode", ["node", "node_dsr"])
def test_backend_node_gives_the_attempt_back(
    mode: str, request: pytest.FixtureRequest, node: Node
) -> None:
    """With answers straight to the client, too: what answers a SYN goes through the tunnel."""
    here: Node = request.getfixturevalue(mode)
    own, entry = (NODE_A, NODE_B) if mode == "node" else (NODE_B, NODE_A)
    here.port(PUBLISHED, TARGET).backends(here.here())
    asked = tcp(SOURCE, f"{entry}:{PUBLISHED}", macs=BACK)
    here.nic_ingress(wrapped(asked, (entry, own), (entry, HERE), 0xC001, BACK, mark=3))
    out = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")
    sent = here.gateway_ingress(tcp(f"{HERE_GATEWAY}:{TARGET}", SOURCE, "SA", macs=out))
    assert sent.verdict == TC_REDIRECT
    assert (Ether(sent.data)[IP].dst, sent.data[49]) == (entry, 3)


def test_another_task_of_the_same_backend_node(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(node.here(), node.here_too())
    asked = tcp(SOURCE, f"{NODE_B}:{PUBLISHED}", macs=BACK)
    node.nic_ingress(through_tunnel(asked))
    moved = node.nic_ingress(through_tunnel(asked, "10.0.0.8", 1))
    assert Ether(moved.data)[IP].dst == HERE_TOO_GATEWAY
    out = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")
    late = node.gateway_ingress(tcp(f"{HERE_GATEWAY}:{TARGET}", SOURCE, "SA", macs=out))
    assert late.verdict == TC_SHOT
    assert node.reasons() == {"drop_late_answer": 1}
