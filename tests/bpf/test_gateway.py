# SPDX-License-Identifier: Apache-2.0
"""tc where clients come in, and where tasks meet their node: into a task and out of it."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from .net import (
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    HERE_TOO,
    HERE_TOO_GATEWAY,
    NODE_A,
    NODE_B,
    NODE_B_MAC,
    PUBLISHED,
    STRANGER,
    TARGET,
    THERE,
    arp_request,
    docker_mac,
    echo,
    sctp,
    tcp,
    tunnel_port,
    udp,
    wrapped,
)
from .node import TC_OK, TC_REDIRECT, TC_SHOT, TC_UNSPEC, Node, assert_result, source_port
from .world import DRAINING, GONE, STOPPING, Service, be32, remote

MakePacket = Callable[..., Packet]

SOURCE = f"{CLIENT}:4000"
ENTRY = f"{NODE_A}:{PUBLISHED}"
TASK = f"{HERE_GATEWAY}:{TARGET}"
BRIDGE_MAC = "02:42:00:00:00:01"
INTO_TASK = (FROM_CLIENT[0], docker_mac(HERE_GATEWAY))
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), BRIDGE_MAC)
TUNNELLED = (NODE_B_MAC, FROM_CLIENT[1])
NEIGHBOUR = f"{HERE_TOO_GATEWAY}:4000"  # a container of this node
FROM_NEIGHBOUR = (docker_mac(HERE_TOO_GATEWAY), BRIDGE_MAC)


@pytest.fixture
def web(node: Node) -> Service:
    return node.port(PUBLISHED, TARGET).backends(node.here())


def syn(source: str = SOURCE, to: str = ENTRY, flags: str = "S") -> Packet:
    return tcp(source, to, flags, macs=FROM_CLIENT)


# --- in by the NIC, without XDP


@pytest.mark.parametrize(
    ("make", "protocol"),
    [(tcp, 6), (udp, 17), (sctp, 132)],
    ids=["tcp", "udp", "sctp"],
)
def test_question_and_answer(node: Node, make: MakePacket, protocol: int) -> None:
    node.port(PUBLISHED, TARGET, protocol).backends(node.here())
    task = f"{HERE_GATEWAY}:{TARGET}"
    asked = node.nic_ingress(make(SOURCE, ENTRY, macs=FROM_CLIENT))
    assert_result(asked, TC_REDIRECT, make(SOURCE, task, macs=INTO_TASK))
    answered = node.gateway_ingress(make(task, SOURCE, macs=OUT_OF_TASK))
    assert_result(answered, TC_REDIRECT, make(ENTRY, SOURCE, macs=OUT_OF_TASK))
    assert node.reasons() == {}


@pytest.mark.parametrize("payload", [b"", b"odd", bytes(1400)])
@pytest.mark.parametrize("checksum", [None, 0], ids=["checksum", "none"])
def test_datagram_is_the_same_but_for_its_destination(
    node: Node, payload: bytes, checksum: int | None
) -> None:
    node.port(PUBLISHED, TARGET, socket.IPPROTO_UDP).backends(node.here())
    result = node.nic_ingress(
        udp(SOURCE, ENTRY, macs=FROM_CLIENT, payload=payload, checksum=checksum)
    )
    expected = udp(SOURCE, TASK, macs=INTO_TASK, payload=payload, checksum=checksum)
    assert_result(result, TC_REDIRECT, expected)


def test_remote_backend_is_sent_to_by_tc(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(remote(THERE))
    packet = syn()
    expected = wrapped(packet, (NODE_A, NODE_B), (NODE_A, THERE), tunnel_port(packet), FROM_CLIENT)
    assert_result(node.nic_ingress(packet), TC_REDIRECT, expected)


def test_what_the_kernel_cannot_wrap_is_dropped(node: Node) -> None:
    """Segments to be cut later, of no kind that it knows: BPF_PROG_TEST_RUN makes no others."""
    node.port(PUBLISHED, TARGET).backends(remote(THERE))
    packet = tcp(SOURCE, ENTRY, "A", macs=FROM_CLIENT, payload=bytes(2800))
    assert node.nic_ingress(packet, gso_segs=2, gso_size=1400).verdict == TC_SHOT
    assert node.reasons() == {"drop_rewrite_failed": 1}


VLAN = Ether(src=FROM_CLIENT[0], dst=FROM_CLIENT[1]) / Dot1Q(vlan=5) / syn()[IP]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        pytest.param(VLAN, "handback_not_ipv4", id="VLAN"),
        pytest.param(arp_request(CLIENT, NODE_A), "handback_not_ipv4", id="ARP"),
        pytest.param(echo(CLIENT, NODE_A), "handback_other_protocol", id="ping"),
        pytest.param(tcp(SOURCE, ENTRY, ihl=6), "handback_ip_options", id="options"),
        pytest.param(tcp(SOURCE, ENTRY, frag=7), "handback_fragment", id="fragment"),
        pytest.param(bytes(syn())[:50], "handback_truncated", id="truncated"),
        pytest.param(syn(to=f"{NODE_A}:81"), "handback_no_frontend", id="another port"),
        pytest.param(
            syn(to=f"{STRANGER}:{PUBLISHED}"), "handback_foreign_address", id="another machine's"
        ),
    ],
)
def test_what_is_not_balanced_passes(
    node: Node, web: Service, packet: Packet | bytes, reason: str
) -> None:
    assert_result(node.nic_ingress(packet), TC_UNSPEC, packet)
    assert node.reasons() == {reason: 1}
    assert node.flows() == node.flows("entries") == {}


def test_without_backends_the_client_is_refused(node: Node, web: Service) -> None:
    web.choose()
    assert node.nic_ingress(syn()).verdict == TC_REDIRECT
    assert node.reasons() == {"drop_no_backend": 1}


def test_answer_to_the_nodes_own_connection_passes(node: Node, web: Service) -> None:
    with socket.socket() as own:
        own.setblocking(False)
        own.bind((NODE_A, PUBLISHED))
        own.connect_ex((CLIENT, 5000))
        answer = syn(f"{CLIENT}:5000", flags="SA")
        assert_result(node.nic_ingress(answer), TC_UNSPEC, answer)
    assert node.reasons() == {"handback_local_socket": 1}


def test_draining_task_keeps_its_flow_but_gets_no_syn(node: Node, web: Service) -> None:
    node.nic_ingress(syn())
    web.backends(node.here_too()).choose(HERE_TOO).state(HERE, DRAINING)
    assert_result(
        node.nic_ingress(syn(flags="A")), TC_REDIRECT, tcp(SOURCE, TASK, "A", macs=INTO_TASK)
    )
    moved = (FROM_CLIENT[0], docker_mac(HERE_TOO_GATEWAY))
    expected = tcp(SOURCE, f"{HERE_TOO_GATEWAY}:{TARGET}", macs=moved)
    assert_result(node.nic_ingress(syn()), TC_REDIRECT, expected)


@pytest.mark.parametrize("state", [STOPPING, GONE])
def test_datagrams_of_a_gone_task_move(node: Node, state: int) -> None:
    web = node.port(PUBLISHED, TARGET, socket.IPPROTO_UDP).backends(node.here())
    node.nic_ingress(udp(SOURCE, ENTRY, macs=FROM_CLIENT))
    web.backends(node.here_too()).choose(HERE_TOO).state(HERE, state)
    result = node.nic_ingress(udp(SOURCE, ENTRY, macs=FROM_CLIENT))
    moved = (FROM_CLIENT[0], docker_mac(HERE_TOO_GATEWAY))
    expected = udp(SOURCE, f"{HERE_TOO_GATEWAY}:{TARGET}", macs=moved)
    assert_result(result, TC_REDIRECT, expected)


# --- answers


def through_tunnel(packet: Packet) -> Packet:
    return wrapped(packet, (NODE_B, NODE_A), (NODE_B, HERE), 0xC001, TUNNELLED)


def by_b(flags: str = "S") -> Packet:
    return tcp(SOURCE, f"{NODE_B}:{PUBLISHED}", flags, macs=TUNNELLED)


def test_answer_returns_through_the_entry_node(node: Node, web: Service) -> None:
    node.nic_ingress(through_tunnel(by_b()))
    reply = tcp(TASK, SOURCE, "A", macs=OUT_OF_TASK)
    expected = wrapped(
        tcp(f"{NODE_B}:{PUBLISHED}", SOURCE, "A"),
        (NODE_A, NODE_B),
        (NODE_A, NODE_B),
        tunnel_port(reply),
        OUT_OF_TASK,
    )
    assert_result(node.gateway_ingress(reply), TC_REDIRECT, expected)


def test_answer_goes_straight_to_the_client(node_dsr: Node) -> None:
    node_dsr.port(PUBLISHED, TARGET).backends(node_dsr.here())
    packet = tcp(SOURCE, ENTRY, macs=FROM_CLIENT)
    tunnel = wrapped(packet, (NODE_A, NODE_B), (NODE_A, HERE), 0xC001, TUNNELLED)
    assert node_dsr.nic_ingress(tunnel).verdict == TC_REDIRECT
    result = node_dsr.gateway_ingress(tcp(TASK, SOURCE, "A", macs=OUT_OF_TASK))
    assert_result(result, TC_REDIRECT, tcp(ENTRY, SOURCE, "A", macs=OUT_OF_TASK))


def test_answer_follows_a_flow_to_its_new_entry_node(node: Node, web: Service) -> None:
    """The same flow comes in at this node first, then through another: an address that moves."""
    node.addresses(NODE_B)
    node.nic_ingress(tcp(SOURCE, f"{NODE_B}:{PUBLISHED}", macs=FROM_CLIENT))
    node.nic_ingress(through_tunnel(by_b("A")))
    for leaf in node.flows("replies").values():
        assert leaf.entry == be32(NODE_B)


def test_what_a_task_sends_by_itself_passes(node: Node, web: Service) -> None:
    packet = tcp(f"{HERE_GATEWAY}:5555", "198.51.100.7:443", macs=OUT_OF_TASK)
    assert_result(node.gateway_ingress(packet), TC_UNSPEC, packet)
    assert node.reasons() == {"handback_no_frontend": 1}


def test_port_of_another_machine_passes(node: Node, web: Service) -> None:
    packet = tcp(f"{HERE_GATEWAY}:5555", f"198.51.100.7:{PUBLISHED}", macs=OUT_OF_TASK)
    assert_result(node.gateway_ingress(packet), TC_OK, packet)
    assert node.reasons() == {"handback_foreign_address": 1}


# --- two entry nodes, one client port


def test_flows_through_two_nodes_that_meet_in_one_tuple(node: Node, web: Service) -> None:
    node.nic_ingress(syn())
    moved = node.nic_ingress(through_tunnel(by_b()))
    port = source_port(moved)
    assert port != 4000
    at_task = f"{CLIENT}:{port}"
    into = (TUNNELLED[0], docker_mac(HERE_GATEWAY))
    assert_result(moved, TC_REDIRECT, tcp(at_task, TASK, macs=into))
    first = node.gateway_ingress(tcp(TASK, SOURCE, "A", macs=OUT_OF_TASK))
    assert_result(first, TC_REDIRECT, tcp(ENTRY, SOURCE, "A", macs=OUT_OF_TASK))
    second = node.gateway_ingress(tcp(TASK, at_task, "A", macs=OUT_OF_TASK))
    inner = Ether(second.data[50:])[IP]
    assert bytes(inner) == bytes(tcp(f"{NODE_B}:{PUBLISHED}", SOURCE, "A")[IP])


# --- a container asks a published port of its own node


def test_container_asks_a_task_of_its_node(node: Node, web: Service) -> None:
    asked = node.gateway_ingress(tcp(NEIGHBOUR, ENTRY, macs=FROM_NEIGHBOUR), "gw1")
    into = (FROM_NEIGHBOUR[0], docker_mac(HERE_GATEWAY))
    assert_result(asked, TC_REDIRECT, tcp(NEIGHBOUR, TASK, macs=into))
    answered = node.gateway_ingress(tcp(TASK, NEIGHBOUR, "SA", macs=OUT_OF_TASK))
    back = (OUT_OF_TASK[0], FROM_NEIGHBOUR[0])
    assert_result(answered, TC_REDIRECT, tcp(ENTRY, NEIGHBOUR, "SA", macs=back))


def test_container_asks_itself(node: Node, web: Service) -> None:
    own = f"{HERE_GATEWAY}:4000"
    asked = node.gateway_ingress(tcp(own, ENTRY, macs=OUT_OF_TASK))
    itself = (docker_mac(HERE_GATEWAY), docker_mac(HERE_GATEWAY))
    assert_result(asked, TC_REDIRECT, tcp(f"{NODE_A}:4000", TASK, macs=itself))
    answered = node.gateway_ingress(tcp(TASK, f"{NODE_A}:4000", "SA", macs=OUT_OF_TASK))
    assert_result(answered, TC_REDIRECT, tcp(ENTRY, own, "SA", macs=itself))


def test_container_asks_for_a_task_of_another_node(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(remote(THERE))
    elsewhere = f"{NODE_B}:{PUBLISHED}"
    for flags in ("S", "A"):
        asked = node.gateway_ingress(tcp(NEIGHBOUR, ENTRY, flags, macs=FROM_NEIGHBOUR), "gw1")
        assert_result(asked, TC_OK, tcp(NEIGHBOUR, elsewhere, flags, macs=FROM_NEIGHBOUR))
    back = (BRIDGE_MAC, FROM_NEIGHBOUR[0])
    answered = node.gateway_egress(tcp(elsewhere, NEIGHBOUR, "SA", macs=back), "gw1")
    assert_result(answered, TC_OK, tcp(ENTRY, NEIGHBOUR, "SA", macs=back))


def test_container_without_a_backend_to_ask(node: Node, web: Service) -> None:
    web.choose()
    packet = tcp(NEIGHBOUR, ENTRY, macs=FROM_NEIGHBOUR)
    assert node.gateway_ingress(packet, "gw1").verdict == TC_REDIRECT
    assert node.reasons() == {"drop_no_backend": 1}


# --- what the kernel brings to a task


INTO_BY_KERNEL = (BRIDGE_MAC, docker_mac(HERE_GATEWAY))


def by_kernel(flags: str, make: MakePacket = tcp) -> Packet:
    return make(SOURCE, TASK, flags, macs=INTO_BY_KERNEL)


def out_of_task(flags: str) -> Packet:
    return tcp(TASK, SOURCE, flags, macs=OUT_OF_TASK)


def test_connection_that_the_kernel_brings_is_untouched(node: Node, web: Service) -> None:
    assert_result(node.gateway_egress(by_kernel("S")), TC_OK, by_kernel("S"))
    assert_result(node.gateway_ingress(out_of_task("SA")), TC_OK, out_of_task("SA"))
    assert_result(node.gateway_egress(by_kernel("A")), TC_OK, by_kernel("A"))


def test_balanced_connection_gives_way_to_it(node: Node, web: Service) -> None:
    node.gateway_egress(by_kernel("S"))
    node.gateway_ingress(out_of_task("SA"))
    moved = node.nic_ingress(syn())
    assert source_port(moved) != 4000
    assert_result(node.gateway_ingress(out_of_task("A")), TC_OK, out_of_task("A"))


def test_it_gives_way_to_a_balanced_connection(node: Node, web: Service) -> None:
    node.nic_ingress(syn())
    node.gateway_ingress(out_of_task("SA"))
    moved = node.gateway_egress(by_kernel("S"))
    port = source_port(moved)
    assert port != 4000
    assert_result(moved, TC_OK, tcp(f"{CLIENT}:{port}", TASK, macs=INTO_BY_KERNEL))
    reply = tcp(TASK, f"{CLIENT}:{port}", "SA", macs=OUT_OF_TASK)
    assert_result(node.gateway_ingress(reply), TC_OK, out_of_task("SA"))


@pytest.mark.parametrize(("last", "task"), [("R", HERE_TOO), ("FA", HERE_TOO), ("A", HERE)])
def test_syn_after_the_end_gets_the_task_that_it_is_sent_to(
    node: Node, last: str, task: str
) -> None:
    """By the entry node, which has chosen anew. An open connection keeps the one that it has."""
    node.port(PUBLISHED, TARGET).backends(node.here(), node.here_too())

    def arrive(flags: str, to: str) -> bytes:
        packet = tcp(SOURCE, f"{NODE_B}:{PUBLISHED}", flags)
        return node.nic_ingress(wrapped(packet, (NODE_B, NODE_A), (NODE_B, to), 50000)).data

    gateways = {HERE: HERE_GATEWAY, HERE_TOO: HERE_TOO_GATEWAY}
    for flags in ("S", "A", last):
        assert Ether(arrive(flags, HERE))[IP].dst == HERE_GATEWAY
    assert Ether(arrive("S", HERE_TOO))[IP].dst == gateways[task]


def test_it_begins_anew_on_the_same_ports(node: Node, web: Service) -> None:
    for _ in range(2):
        node.gateway_egress(by_kernel("S"))
        node.gateway_ingress(out_of_task("SA"))
        balanced = node.nic_ingress(syn())
        assert source_port(balanced) != 4000
        node.nic_ingress(syn(flags="R"))
        node.gateway_egress(by_kernel("FA"))
        node.gateway_ingress(out_of_task("FA"))


def test_datagrams_that_the_kernel_brings_beside_a_balanced_flow(node: Node) -> None:
    node.port(PUBLISHED, TARGET, socket.IPPROTO_UDP).backends(node.here())
    node.nic_ingress(udp(SOURCE, ENTRY, macs=FROM_CLIENT))
    moved = node.gateway_egress(udp(SOURCE, TASK, macs=INTO_BY_KERNEL))
    port = source_port(moved)
    assert port != 4000
    answered = node.gateway_ingress(udp(TASK, f"{CLIENT}:{port}", macs=OUT_OF_TASK))
    assert_result(answered, TC_OK, udp(TASK, SOURCE, macs=OUT_OF_TASK))


def test_other_packets_to_a_task_pass(node: Node, web: Service) -> None:
    for packet in (echo(CLIENT, HERE_GATEWAY), arp_request(NODE_A, HERE_GATEWAY)):
        assert_result(node.gateway_egress(packet), TC_UNSPEC, packet)
    assert node.flows() == {}


def test_containers_own_question_to_another_node_is_not_taken_for_a_balanced_one(
    node: Node,
) -> None:
    """Both have one source port, and after translation one 4-tuple: the later gets another."""
    node.port(PUBLISHED, TARGET).backends(remote(THERE))
    elsewhere = f"{NODE_B}:{PUBLISHED}"
    node.gateway_ingress(tcp(NEIGHBOUR, ENTRY, macs=FROM_NEIGHBOUR), "gw1")
    direct = Ether(node.gateway_ingress(tcp(NEIGHBOUR, elsewhere, macs=FROM_NEIGHBOUR), "gw1").data)
    assert (direct[IP].dst, direct.dport) == (NODE_B, PUBLISHED)
    assert f"{direct[IP].src}:{direct.sport}" != NEIGHBOUR
    back = (BRIDGE_MAC, FROM_NEIGHBOUR[0])
    sent_from = f"{direct[IP].src}:{direct.sport}"
    answered = node.gateway_egress(tcp(elsewhere, sent_from, "SA", macs=back), "gw1")
    assert_result(answered, TC_OK, tcp(elsewhere, NEIGHBOUR, "SA", macs=back))
    balanced = node.gateway_egress(tcp(elsewhere, NEIGHBOUR, "SA", macs=back), "gw1")
    assert_result(balanced, TC_OK, tcp(ENTRY, NEIGHBOUR, "SA", macs=back))
