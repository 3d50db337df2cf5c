# SPDX-License-Identifier: Apache-2.0
"""A task whose process has just died: what its kernel says, its clients do not hear."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

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
from .node import TC_OK, TC_REDIRECT, TC_SHOT, XDP_PASS, XDP_TX, Node
from .world import GONE, Service, be32, remote

PORT_UNREACHABLE, HOST_UNREACHABLE = 3, 1
SERVER, SOURCE = f"{VIP}:80", f"{CLIENT}:4000"
BACK = (NODE_B_MAC, NODE_A_MAC)


def alice(port: int) -> str:
    return f"{ALICE}:{port}"


def error(quoted: Packet, code: int = PORT_UNREACHABLE, by: str = "") -> Packet:
    """What the receiver of a packet says of it, or somebody else."""
    ip = quoted[IP]
    return (
        Ether(src=quoted[Ether].dst, dst=quoted[Ether].src)
        / IP(src=by or ip.dst, dst=ip.src)
        / ICMP(type=3, code=code)
        / Raw(bytes(ip)[:28])
    )


@pytest.fixture
def web(node: Node) -> Service:
    return node.vip(VIP, VNI).backends(WEB_1, WEB_2)


# --- connections to a VIP


def ask(node: Node, port: int, flags: str = "S") -> str:
    """Which backend gets it."""
    result = node.overlay_ingress(tcp(alice(port), SERVER, flags))
    assert result.verdict == TC_OK
    return str(Ether(result.data)[IP].dst)


def accept(node: Node, ports: range) -> None:
    for port in ports:
        assert node.overlay_egress(tcp(f"{ask(node, port)}:80", alice(port), "SA")).verdict == TC_OK


def refuse(node: Node, backend: str, port: int, flags: str = "RA") -> int:
    return node.overlay_egress(tcp(f"{backend}:80", alice(port), flags)).verdict


def test_reset_of_a_task_that_had_accepted_is_not_heard(node: Node, web: Service) -> None:
    accept(node, range(4000, 4020))
    dead = ask(node, 5000)
    assert refuse(node, dead, 5000) == TC_SHOT
    node.age("flows", 1.0)
    assert ask(node, 5000) != dead
    assert node.reasons() == {"drop_early_refusal": 1, "retry_no_answer": 1}


def test_who_asks_next_asks_another(node: Node, web: Service) -> None:
    accept(node, range(4000, 4020))
    dead = ask(node, 5000)
    refuse(node, dead, 5000)
    assert dead not in {ask(node, port) for port in range(6000, 6020)}


def test_what_the_other_says_is_heard(node: Node, web: Service) -> None:
    accept(node, range(4000, 4020))
    dead = ask(node, 5000)
    refuse(node, dead, 5000)
    node.age("flows", 1.0)
    assert refuse(node, ask(node, 5000), 5000) == TC_OK


def test_reset_that_answers_no_syn_is_heard(node: Node, web: Service) -> None:
    """Of a connection that is not known here: it came in elsewhere, or its task has gone."""
    accept(node, range(4000, 4020))
    assert refuse(node, ask(node, 5000, "A"), 5000, "R") == TC_OK
    assert node.reasons() == {}


def test_reset_is_heard_where_nobody_else_is_ready(node: Node) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    accept(node, range(4000, 4001))
    assert refuse(node, ask(node, 5000), 5000) == TC_OK


def test_reset_of_an_open_connection_is_heard(node: Node, web: Service) -> None:
    accept(node, range(4000, 4020))
    backend = ask(node, 4000, "A")
    assert refuse(node, backend, 4000) == TC_OK
    assert {ask(node, port) for port in range(6000, 6020)} == {WEB_1, WEB_2}


def test_a_port_that_is_refused_for_long_is_refused_at_once(node: Node, web: Service) -> None:
    accept(node, range(4000, 4020))
    for seconds, verdict in ((0, TC_SHOT), (40, TC_OK), (100, TC_SHOT)):
        node.age_health(seconds)
        node.avoid(*web.ids.values(), seconds=-1)
        first = 5000 + 100 * seconds
        port = next(p for p in range(first, first + 100) if ask(node, p) == WEB_1)
        assert refuse(node, WEB_1, port) == verdict


# --- datagrams to a VIP


def send(node: Node, port: int) -> Packet:
    """As its task gets it."""
    result = node.overlay_ingress(udp(alice(port), SERVER))
    assert result.verdict == TC_OK
    return Ether(result.data)


def answer(node: Node, got: Packet) -> int:
    return node.overlay_egress(udp(f"{got[IP].dst}:80", alice(got.sport))).verdict


def answer_all(node: Node, ports: range) -> None:
    for port in ports:
        assert answer(node, send(node, port)) == TC_OK


def test_unreachable_port_of_a_task_that_had_answered_is_not_heard(
    node: Node, web: Service
) -> None:
    answer_all(node, range(4000, 4020))
    got = send(node, 4000)
    assert node.overlay_egress(error(got)).verdict == TC_SHOT
    assert node.reasons() == {"drop_early_refusal": 1}
    moved = send(node, 4000)
    assert moved[IP].dst != got[IP].dst
    assert answer(node, moved) == TC_OK
    assert {str(send(node, port)[IP].dst) for port in range(6000, 6020)} == {moved[IP].dst}


def test_all_its_flows_move_one_by_one(node: Node, web: Service) -> None:
    answer_all(node, range(4000, 4020))
    dead = send(node, 4000)[IP].dst
    of_dead = [port for port in range(4000, 4020) if send(node, port)[IP].dst == dead]
    assert len(of_dead) > 1
    for port in of_dead:
        assert node.overlay_egress(error(send(node, port))).verdict == TC_SHOT
        assert send(node, port)[IP].dst != dead


@pytest.mark.parametrize(
    ("code", "by"), [(HOST_UNREACHABLE, ""), (PORT_UNREACHABLE, WEB_2)], ids=["host", "forged"]
)
def test_other_errors_are_heard_and_move_nothing(
    node: Node, web: Service, code: int, by: str
) -> None:
    answer_all(node, range(4000, 4020))
    port = next(p for p in range(4000, 4020) if send(node, p)[IP].dst == WEB_1)
    assert node.overlay_egress(error(send(node, port), code, by)).verdict == TC_OK
    assert send(node, port)[IP].dst == WEB_1


def test_unreachable_port_is_heard_of_a_task_that_has_not_answered(
    node: Node, web: Service
) -> None:
    assert node.overlay_egress(error(send(node, 4000))).verdict == TC_OK
    assert node.reasons() == {}


def test_unreachable_port_is_heard_where_nobody_else_is_ready(node: Node) -> None:
    node.vip(VIP, VNI).backends(WEB_1)
    answer_all(node, range(4000, 4001))
    assert node.overlay_egress(error(send(node, 4000))).verdict == TC_OK


# --- a published port, at the task's node


def out_of(gateway: str) -> tuple[str, str]:
    return docker_mac(gateway), "02:42:00:00:00:01"


def through_tunnel(packet: Packet, to: str = HERE, mark: int = 0) -> Packet:
    return wrapped(packet, (NODE_B, NODE_A), (NODE_B, to), 0xC001, BACK, mark=mark)


def there(port: int, flags: str = "S") -> Packet:
    """For node A's task, in at node B."""
    return through_tunnel(tcp(f"{CLIENT}:{port}", f"{NODE_B}:{PUBLISHED}", flags, macs=BACK))


def replies(node: Node, port: int, flags: str) -> int:
    packet = tcp(f"{HERE_GATEWAY}:{TARGET}", f"{CLIENT}:{port}", flags, macs=out_of(HERE_GATEWAY))
    return node.gateway_ingress(packet).verdict


def test_one_reset_at_the_tasks_node_and_all_others_are_balanced_again(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(node.here(), remote(THERE, NODE_C))
    node.nic_ingress(there(4000))
    assert replies(node, 4000, "SA") == TC_REDIRECT
    node.nic_ingress(there(4001))
    assert replies(node, 4001, "RA") == TC_SHOT
    for port in range(4100, 4110):
        sent = node.nic_ingress(there(port))
        assert (sent.verdict, Ether(sent.data)[IP].dst) == (TC_REDIRECT, NODE_C)
    assert node.reasons() == {"drop_early_refusal": 1, "retry_second_chance": 10}


def test_datagram_to_a_task_of_its_entry_node(node: Node) -> None:
    node.port(PUBLISHED, TARGET, 17).backends(node.here(), node.here_too())

    def sent() -> Packet:
        result = node.nic_ingress(udp(SOURCE, f"{NODE_A}:{PUBLISHED}", macs=FROM_CLIENT))
        assert result.verdict == TC_REDIRECT
        return Ether(result.data)

    first = sent()
    gateway = str(first[IP].dst)
    device = {HERE_GATEWAY: "gw0", HERE_TOO_GATEWAY: "gw1"}[gateway]
    back = udp(f"{gateway}:{TARGET}", SOURCE, macs=out_of(gateway))
    assert node.gateway_ingress(back, device).verdict == TC_REDIRECT
    said = error(first)
    said.src, said.dst = out_of(gateway)
    assert node.gateway_ingress(said, device).verdict == TC_SHOT
    assert {gateway, str(sent()[IP].dst)} == {HERE_GATEWAY, HERE_TOO_GATEWAY}


def test_while_the_table_still_names_the_dead_one_another_is_found(node: Node) -> None:
    """The agent has told the maps of its end, and not yet made a new table."""
    web = node.port(PUBLISHED, TARGET).backends(node.here(), remote(THERE, NODE_C))
    web.state(HERE, GONE)
    node.avoid(web.ids[HERE])
    for port in range(4000, 4020):
        sent = node.nic_ingress(there(port))
        assert (sent.verdict, Ether(sent.data)[IP].dst) == (TC_REDIRECT, NODE_C)
    assert node.reasons() == {"retry_second_chance": 20}


def test_no_third_chance_but_no_refusal_either(node: Node) -> None:
    """The client sends its SYN again, and its entry node chooses another task."""
    web = node.port(PUBLISHED, TARGET).backends(node.here(), remote(THERE, NODE_C))
    web.choose(THERE).state(HERE, GONE)
    asked = tcp(SOURCE, f"{NODE_B}:{PUBLISHED}", macs=BACK)
    twice = wrapped(asked, (NODE_C, NODE_A), (NODE_B, HERE), 0xC001, BACK, mark=0x80)
    assert node.nic_ingress(twice).verdict == TC_SHOT
    assert node.reasons() == {"drop_backend_gone": 1}
    web.choose()
    assert node.nic_ingress(twice).verdict == TC_REDIRECT


# --- a published port, at the entry node


def enter(node: Node, flags: str = "S") -> str:
    """The node that a packet is sent to."""
    sent = node.nic_xdp(tcp(SOURCE, f"{NODE_A}:{PUBLISHED}", flags, macs=FROM_CLIENT))
    assert sent.verdict == XDP_TX
    return str(Ether(sent.data)[IP].dst)


def two_nodes(node: Node) -> Service:
    there = [remote(THERE, NODE_B), remote("10.0.0.7", NODE_C)]
    return node.port(PUBLISHED, TARGET).backends(*there)


def test_node_of_a_task_that_has_gone_is_still_asked_about_its_connections(node: Node) -> None:
    """It may have given them a second chance, and sends on what belongs to them."""
    web = two_nodes(node).choose(THERE)
    assert enter(node) == NODE_B
    web.choose("10.0.0.7").state(THERE, GONE)
    assert [enter(node, flags) for flags in ("A", "PA", "FA")] == [NODE_B] * 3
    assert enter(node) == NODE_C


def test_unless_it_is_this_one(node: Node) -> None:
    """There would be nobody to send it to."""
    web = node.port(PUBLISHED, TARGET).backends(node.here(), remote(THERE, NODE_C)).choose(HERE)
    assert node.nic_xdp(tcp(SOURCE, f"{NODE_A}:{PUBLISHED}", macs=FROM_CLIENT)).verdict == XDP_PASS
    web.choose(THERE)
    node.set_backend(web.ids[HERE], state=GONE, gateway_ifindex=0, vtep=be32(NODE_A))
    assert enter(node, "A") == NODE_C


@pytest.mark.parametrize("forget", ["maps", "id"])
def test_unless_that_node_is_lost_or_the_id_is_free(node: Node, forget: str) -> None:
    web = two_nodes(node).choose(THERE)
    assert enter(node) == NODE_B
    web.choose("10.0.0.7").state(THERE, GONE)
    if forget == "maps":
        node.maps.lose_backend(web.ids[THERE])
    else:
        node.maps.free_backend(web.ids[THERE])
    assert enter(node, "A") == NODE_C
