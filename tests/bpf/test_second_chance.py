# SPDX-License-Identifier: Apache-2.0
"""A new flow that an entry node has sent to a task which takes no new ones: balanced once more."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTPChunkInit
from scapy.packet import Packet, Raw

from .net import (
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    HERE_TOO,
    HERE_TOO_GATEWAY,
    NODE_A,
    NODE_A_MAC,
    NODE_B,
    NODE_B_MAC,
    NODE_C,
    PUBLISHED,
    SECOND_CHANCE,
    STRANGER,
    TARGET,
    THERE,
    docker_mac,
    sctp,
    tcp,
    tunnel_port,
    udp,
    wrapped,
)
from .node import TC_REDIRECT, TC_SHOT, TC_UNSPEC, XDP_DROP, XDP_PASS, Node, assert_result
from .world import DRAINING, GONE, Service, be32, remote

SOURCE = f"{CLIENT}:4000"
ENTRY = f"{NODE_B}:{PUBLISHED}"
BACK = (NODE_B_MAC, NODE_A_MAC)
NOWHERE = "10.0.0.99"
TAG_MAGIC, TAG_DELIVER = 0xEBF0DA7A, 1


def init(source: str, to: str, macs: tuple[str, str]) -> Packet:
    """What opens an SCTP association."""
    return sctp(source, to, macs=macs, chunk=SCTPChunkInit(init_tag=0x12345678), tag=0)


PROTOCOLS = pytest.mark.parametrize(
    ("make", "protocol"), [(tcp, 6), (udp, 17), (init, 132)], ids=["tcp", "udp", "sctp"]
)


@pytest.fixture
def web(node: Node) -> Service:
    """At node A, which has just taken its task out; another is on node C. Clients come in at B."""
    found = node.port(PUBLISHED, TARGET).backends(node.here(), remote(THERE, NODE_C))
    return found.choose(THERE).state(HERE, DRAINING)


def request(flags: str = "S", **fields: object) -> Packet:
    return tcp(SOURCE, ENTRY, flags, macs=BACK, **fields)  # type: ignore[arg-type]


def arriving(packet: Packet, to: str = HERE, **fields: object) -> Packet:
    """From the entry node."""
    return wrapped(packet, (NODE_B, NODE_A), (NODE_B, to), 0xC123, BACK, **fields)  # type: ignore[arg-type]


def second(packet: Packet, to: str = HERE, source: str = NODE_C, entry: str = NODE_B) -> Packet:
    """From a node that has given it its second chance."""
    return wrapped(packet, (source, NODE_A), (entry, to), 0xC123, BACK, mark=SECOND_CHANCE)


def sent_on(packet: Packet, to: str = THERE) -> Packet:
    return wrapped(
        packet, (NODE_A, NODE_C), (NODE_B, to), tunnel_port(packet), BACK, mark=SECOND_CHANCE
    )


def into(gateway: str) -> tuple[str, str]:
    return NODE_B_MAC, docker_mac(gateway)


# --- to another node


@PROTOCOLS
@pytest.mark.parametrize("state", [DRAINING, GONE])
def test_flow_of_a_task_that_takes_no_new_ones_goes_to_another(
    node: Node, make: Callable[..., Packet], protocol: int, state: int
) -> None:
    web = node.port(PUBLISHED, TARGET, protocol).backends(node.here(), remote(THERE, NODE_C))
    web.choose(THERE).state(HERE, state)
    packet = make(SOURCE, ENTRY, macs=BACK)
    assert_result(node.nic_ingress(arriving(packet)), TC_REDIRECT, sent_on(packet))
    assert node.reasons() == {"retry_second_chance": 1}
    assert node.flows() == node.flows("replies") == {}


@PROTOCOLS
def test_so_does_that_of_a_task_that_is_not_known(
    node: Node, make: Callable[..., Packet], protocol: int
) -> None:
    node.port(PUBLISHED, TARGET, protocol).backends(remote(THERE, NODE_C))
    packet = make(SOURCE, ENTRY, macs=BACK)
    assert_result(node.nic_ingress(arriving(packet, NOWHERE)), TC_REDIRECT, sent_on(packet))
    assert node.reasons() == {"retry_second_chance": 1}


@pytest.mark.parametrize("mark", [0, SECOND_CHANCE])
def test_xdp_leaves_it_to_tc(node: Node, web: Service, mark: int) -> None:
    packet = arriving(request(), NOWHERE) if not mark else second(request(), NOWHERE)
    result = node.nic_xdp(packet)
    assert_result(result, XDP_PASS, request())
    kind = TAG_DELIVER | mark << 8
    assert result.metadata == struct.pack("=IIII", TAG_MAGIC, kind, 0, be32(NODE_B))


def test_later_packets_follow_whatever_the_table_says(node: Node, web: Service) -> None:
    node.nic_ingress(arriving(request()))
    web.backends(remote("10.0.0.7", NODE_B)).choose("10.0.0.7").state(THERE, DRAINING)
    for flags in ("A", "PA", "FA"):
        packet = request(flags)
        assert_result(node.nic_ingress(arriving(packet)), TC_REDIRECT, sent_on(packet))
    assert node.reasons() == {"retry_second_chance": 1}


def test_what_an_earlier_connection_has_left_is_out_of_the_way(node: Node, web: Service) -> None:
    """Its task drains, and would answer what follows the SYN with a reset."""
    web.choose(HERE).state(HERE, 1)
    out = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")
    for flags in ("S", "A", "FA"):
        node.nic_ingress(arriving(request(flags)))
        node.gateway_ingress(tcp(f"{HERE_GATEWAY}:{TARGET}", SOURCE, flags + "A", macs=out))
    web.choose(THERE).state(HERE, DRAINING)
    for flags in ("S", "A", "PA"):
        packet = request(flags)
        assert_result(node.nic_ingress(arriving(packet)), TC_REDIRECT, sent_on(packet))


def test_a_packet_of_an_older_flow_is_not_balanced(node: Node, web: Service) -> None:
    assert node.nic_ingress(arriving(request("A"), NOWHERE)).verdict == TC_SHOT
    assert node.reasons() == {"drop_not_local": 1}
    assert node.flows("entries") == {}


def test_draining_task_keeps_its_flow(node: Node, web: Service) -> None:
    web.choose(HERE).state(HERE, 1)
    node.nic_ingress(arriving(request()))
    web.choose(THERE).state(HERE, DRAINING)
    expected = tcp(SOURCE, f"{HERE_GATEWAY}:{TARGET}", "A", macs=into(HERE_GATEWAY))
    assert_result(node.nic_ingress(arriving(request("A"))), TC_REDIRECT, expected)
    assert node.reasons() == {}


def test_error_about_an_answer_follows(node: Node, web: Service) -> None:
    """Else the task would never learn of a smaller path MTU."""
    node.nic_ingress(arriving(request()))
    quoted = tcp(ENTRY, SOURCE, "A")
    error = (
        Ether(src=BACK[0], dst=BACK[1])
        / IP(src="198.51.100.1", dst=NODE_B)
        / ICMP(type=3, code=4, nexthopmtu=1400)
        / Raw(bytes(quoted[IP])[:28])
    )
    sent = node.nic_ingress(arriving(error))
    expected = wrapped(
        error, (NODE_A, NODE_C), (NODE_B, THERE), tunnel_port(tcp(ENTRY, SOURCE)), BACK, mark=0x80
    )
    assert_result(sent, TC_REDIRECT, expected)


# --- on this node


def test_another_task_of_this_node(node: Node, web: Service) -> None:
    web.backends(node.here_too()).choose(HERE_TOO)
    for flags in ("S", "A"):
        expected = tcp(SOURCE, f"{HERE_TOO_GATEWAY}:{TARGET}", flags, macs=into(HERE_TOO_GATEWAY))
        assert_result(node.nic_ingress(arriving(request(flags))), TC_REDIRECT, expected)
    assert node.reasons() == {"retry_second_chance": 1}


def test_nobody_else_is_ready(node: Node, web: Service) -> None:
    """A draining task still serves; instead of one that is no more the client is refused."""
    web.choose()
    delivered = tcp(SOURCE, f"{HERE_GATEWAY}:{TARGET}", macs=into(HERE_GATEWAY))
    assert_result(node.nic_ingress(arriving(request())), TC_REDIRECT, delivered)
    refused = node.nic_ingress(arriving(tcp(f"{CLIENT}:4001", ENTRY, macs=BACK), NOWHERE))
    assert refused.verdict == TC_REDIRECT
    assert Ether(refused.data[50:])[TCP].flags == "RA"
    assert node.reasons() == {"drop_no_backend": 1}


# --- at the node that gets it


def test_it_is_delivered_and_answered_by_way_of_the_entry_node(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(node.here())
    expected = tcp(SOURCE, f"{HERE_GATEWAY}:{TARGET}", macs=into(HERE_GATEWAY))
    assert_result(node.nic_ingress(second(request())), TC_REDIRECT, expected)
    out = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")
    reply = tcp(f"{HERE_GATEWAY}:{TARGET}", SOURCE, "A", macs=out)
    answer = tcp(ENTRY, SOURCE, "A")
    back = wrapped(answer, (NODE_A, NODE_B), (NODE_A, NODE_B), tunnel_port(reply), out)
    assert_result(node.gateway_ingress(reply), TC_REDIRECT, back)


def test_the_entry_node_itself_gets_it(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(node.here())
    asked = tcp(SOURCE, f"{NODE_A}:{PUBLISHED}", macs=BACK)
    node.nic_ingress(second(asked, source=NODE_B, entry=NODE_A))
    out = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")
    reply = tcp(f"{HERE_GATEWAY}:{TARGET}", SOURCE, "A", macs=out)
    expected = tcp(f"{NODE_A}:{PUBLISHED}", SOURCE, "A", macs=out)
    assert_result(node.gateway_ingress(reply), TC_REDIRECT, expected)


def test_there_is_no_third_chance(node: Node, web: Service) -> None:
    delivered = tcp(SOURCE, f"{HERE_GATEWAY}:{TARGET}", macs=into(HERE_GATEWAY))
    assert_result(node.nic_ingress(second(request())), TC_REDIRECT, delivered)
    web.state(HERE, GONE)
    other = tcp(f"{CLIENT}:4001", ENTRY, macs=BACK)
    assert node.nic_ingress(second(other)).verdict == TC_SHOT
    assert node.nic_ingress(second(request("A"), NOWHERE)).verdict in {TC_REDIRECT, TC_SHOT}
    assert node.reasons().get("retry_second_chance") is None


@pytest.mark.parametrize(("make", "protocol"), [(tcp, 6), (udp, 17)], ids=["tcp", "udp"])
@pytest.mark.parametrize("to", [HERE, NOWHERE], ids=["gone", "unknown"])
def test_what_comes_again_is_not_refused_while_another_is_ready(
    node: Node, make: Callable[..., Packet], protocol: int, to: str
) -> None:
    """The node that sent it on is ahead of this one, or behind it."""
    web = node.port(PUBLISHED, TARGET, protocol).backends(node.here(), remote(THERE, NODE_C))
    web.choose(THERE).state(HERE, GONE)
    lost = second(make(SOURCE, ENTRY, macs=BACK), to)
    assert node.nic_ingress(lost).verdict == TC_SHOT
    web.choose()
    refused = node.nic_ingress(lost)
    assert (refused.verdict, Ether(refused.data)[IP].dst) == (TC_REDIRECT, NODE_B)


def test_two_nodes_that_drain_do_not_play_ball(node: Node, node_b: Node) -> None:
    """Each takes the other's task for ready."""
    there = node.here()._replace(vtep=NODE_B, gateway="", address=THERE)
    node.port(PUBLISHED, TARGET).backends(node.here(), there).choose(THERE).state(HERE, DRAINING)
    here_at_b = node_b.here()._replace(address=THERE, vtep=NODE_B)
    other = node_b.port(PUBLISHED, TARGET).backends(here_at_b, remote(HERE, NODE_A))
    other.choose(HERE).state(THERE, DRAINING)
    asked = tcp(SOURCE, f"{NODE_C}:{PUBLISHED}", macs=FROM_CLIENT)
    first = wrapped(asked, (NODE_C, NODE_A), (NODE_C, HERE), 0xC123, BACK)
    once = node.nic_ingress(first)
    assert (once.verdict, Ether(once.data)[IP].dst) == (TC_REDIRECT, NODE_B)
    twice = node_b.nic_ingress(once.data)
    assert_result(
        twice,
        TC_REDIRECT,
        tcp(SOURCE, f"{HERE_GATEWAY}:{TARGET}", macs=(BACK[0], docker_mac(HERE_GATEWAY))),
    )
    other.state(THERE, GONE)
    assert node_b.nic_ingress(once.data).verdict == TC_SHOT


# --- who may send it

FORGED = [
    pytest.param({"source": STRANGER}, "drop_bad_outer_source", id="a stranger"),
    pytest.param({"source": NODE_A}, "drop_bad_outer_source", id="this node itself"),
    pytest.param({"entry": STRANGER}, "drop_bad_inner", id="for a stranger"),
    pytest.param({"entry": CLIENT}, "drop_bad_inner", id="for a client"),
    pytest.param({"entry": NODE_C}, "drop_bad_inner", id="for itself"),
    pytest.param({"to": NODE_A}, "drop_bad_inner", id="an answer"),
]


@pytest.mark.parametrize(("fields", "reason"), FORGED)
def test_only_nodes_for_nodes(
    node: Node, web: Service, fields: dict[str, str], reason: str
) -> None:
    forged = second(request(), **fields)
    assert_result(node.nic_xdp(forged), XDP_DROP, forged)
    assert_result(node.nic_ingress(forged), TC_SHOT, forged)
    assert node.reasons() == {reason: 2}
    assert node.flows() == node.flows("entries") == {}


def test_other_marks_are_not_ours(node: Node, web: Service) -> None:
    packet = arriving(request(), mark=0x40)
    assert_result(node.nic_xdp(packet), XDP_PASS, packet)
    assert_result(node.nic_ingress(packet), TC_UNSPEC, packet)
