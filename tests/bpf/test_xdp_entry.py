# SPDX-License-Identifier: Apache-2.0
"""XDP on the entry node: which packets it takes, and whom it gives them to."""

from __future__ import annotations

import socket
import struct
from collections import Counter as Tally

import pytest
from scapy.layers.inet import IP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from .net import (
    CLIENT,
    FROM_CLIENT,
    HERE,
    NODE_A,
    NODE_A_MAC,
    NODE_B,
    NODE_C,
    NODE_C_MAC,
    PUBLISHED,
    STRANGER,
    TARGET,
    THERE,
    arp_request,
    docker_mac,
    echo,
    flow_hash,
    sctp,
    tcp,
    tunnel_port,
    udp,
    wrapped,
)
from .node import XDP_PASS, XDP_TX, Node, assert_result
from .prog_run import Result
from .world import DRAINING, GONE, STOPPING, Service, be32, remote

ALSO_THERE = "10.0.0.7"
SOURCE = f"{CLIENT}:4000"
ENTRY = f"{NODE_A}:{PUBLISHED}"
TAG_MAGIC, TAG_DELIVER, TAG_FORWARD = 0xEBF0DA7A, 1, 2


@pytest.fixture
def web(node: Node) -> Service:
    return node.port(PUBLISHED, TARGET).backends(remote(THERE))


def syn(source: str = SOURCE, to: str = ENTRY, flags: str = "S", **fields: object) -> Packet:
    return tcp(source, to, flags, macs=FROM_CLIENT, **fields)  # type: ignore[arg-type]


def sent_on(packet: Packet, to: str = THERE) -> Packet:
    return wrapped(packet, (NODE_A, NODE_B), (NODE_A, to), tunnel_port(packet))


def tag(kind: int, backend: int, entry: int = 0) -> bytes:
    return struct.pack("=IIII", TAG_MAGIC, kind, backend, entry)


def inner_backend(result: Result) -> str:
    """The inner destination MAC of what was sent on."""
    return str(Ether(result.data[50:]).dst)


VLAN = Ether(src=FROM_CLIENT[0], dst=FROM_CLIENT[1]) / Dot1Q(vlan=5) / syn()[IP]
IPV6 = Ether(src=FROM_CLIENT[0], dst=FROM_CLIENT[1]) / IPv6() / UDP(sport=4000, dport=PUBLISHED)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(VLAN, id="VLAN"),
        pytest.param(IPV6, id="IPv6"),
        pytest.param(arp_request(CLIENT, NODE_A), id="ARP"),
        pytest.param(syn(version=6), id="IP version"),
        pytest.param(echo(CLIENT, NODE_A), id="ping"),
    ],
)
def test_what_is_not_understood_passes(node: Node, web: Service, packet: Packet) -> None:
    assert_result(node.nic_xdp(packet), XDP_PASS, packet)
    assert node.flows("entries") == {}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"flags": "MF"}, id="first fragment"),
        pytest.param({"frag": 185}, id="last fragment"),
        pytest.param({"options": [IPOption_NOP()]}, id="options"),
    ],
)
def test_fragments_and_options_pass(node: Node, web: Service, fields: dict[str, object]) -> None:
    packet = syn()
    for name, value in fields.items():
        setattr(packet[IP], name, value)
    assert_result(node.nic_xdp(packet), XDP_PASS, packet)
    assert node.flows("entries") == {}


@pytest.mark.parametrize("packet", [syn(), udp(SOURCE, ENTRY, macs=FROM_CLIENT, payload=b"")])
def test_every_truncated_packet_passes(node: Node, web: Service, packet: Packet) -> None:
    node.port(PUBLISHED, TARGET, socket.IPPROTO_UDP).backends(remote(ALSO_THERE))
    whole = bytes(packet)
    for length in range(14, len(whole)):
        assert_result(node.nic_xdp(whole[:length]), XDP_PASS, whole[:length])
    assert node.flows("entries") == {}
    assert node.nic_xdp(whole).verdict == XDP_TX


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(syn(to=f"{NODE_A}:81"), id="port that is not published"),
        pytest.param(udp(SOURCE, ENTRY, macs=FROM_CLIENT), id="other protocol"),
        pytest.param(syn(to=f"{STRANGER}:{PUBLISHED}"), id="another machine's"),
    ],
)
def test_what_is_not_published_here_passes(node: Node, web: Service, packet: Packet) -> None:
    assert_result(node.nic_xdp(packet), XDP_PASS, packet)
    assert node.flows("entries") == {}


@pytest.mark.parametrize(
    ("make", "protocol"),
    [(tcp, 6), (udp, 17), (sctp, 132)],
    ids=["tcp", "udp", "sctp"],
)
def test_packet_is_wrapped_for_a_remote_backend(node: Node, make: object, protocol: int) -> None:
    node.port(PUBLISHED, TARGET, protocol).backends(remote(THERE))
    packet = make(SOURCE, ENTRY, macs=FROM_CLIENT, payload=b"hello")  # type: ignore[operator]
    assert_result(node.nic_xdp(packet), XDP_TX, sent_on(packet))
    assert node.reasons() == {}


def test_next_hop_is_that_of_the_backends_node(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(remote(THERE, NODE_C))
    packet = syn()
    expected = wrapped(
        packet, (NODE_A, NODE_C), (NODE_A, THERE), tunnel_port(packet), (NODE_A_MAC, NODE_C_MAC)
    )
    for _ in range(2):  # looked up, then remembered
        assert_result(node.nic_xdp(packet), XDP_TX, expected)


def test_tunnels_source_port_is_a_dynamic_one(node: Node, web: Service) -> None:
    ports = set()
    for port in range(1024, 1324):
        result = node.nic_xdp(syn(f"{CLIENT}:{port}"))
        ports.add(int.from_bytes(result.data[34:36], "big"))
    assert min(ports) >= 0xC000
    assert len(ports) > 280


@pytest.mark.parametrize("flags", ["S", "A", "PA", "FA", "R"])
def test_flow_keeps_its_backend(node: Node, web: Service, flags: str) -> None:
    node.nic_xdp(syn())
    web.backends(remote(ALSO_THERE)).choose(ALSO_THERE)
    assert_result(node.nic_xdp(syn(flags=flags)), XDP_TX, sent_on(syn(flags=flags)))


@pytest.mark.parametrize("end", ["FA", "R"])
def test_syn_after_the_end_chooses_anew(node: Node, web: Service, end: str) -> None:
    node.nic_xdp(syn())
    node.nic_xdp(syn(flags=end))
    web.backends(remote(ALSO_THERE)).choose(ALSO_THERE)
    assert_result(node.nic_xdp(syn()), XDP_TX, sent_on(syn(), ALSO_THERE))


def test_draining_backend_keeps_its_flow_but_gets_no_syn(node: Node, web: Service) -> None:
    node.nic_xdp(syn())
    web.backends(remote(ALSO_THERE)).choose(ALSO_THERE).state(THERE, DRAINING)
    assert_result(node.nic_xdp(syn(flags="A")), XDP_TX, sent_on(syn(flags="A")))
    assert_result(node.nic_xdp(syn()), XDP_TX, sent_on(syn(), ALSO_THERE))


@pytest.mark.parametrize("state", [STOPPING, GONE])
def test_flow_of_a_gone_backend_moves(node: Node, state: int) -> None:
    web = node.port(PUBLISHED, TARGET, socket.IPPROTO_UDP).backends(remote(THERE))
    packet = udp(SOURCE, ENTRY, macs=FROM_CLIENT)
    node.nic_xdp(packet)
    web.backends(remote(ALSO_THERE)).choose(ALSO_THERE).state(THERE, state)
    assert_result(node.nic_xdp(packet), XDP_TX, sent_on(packet, ALSO_THERE))


def test_without_backends_the_packet_passes(node: Node, web: Service) -> None:
    web.choose()
    assert_result(node.nic_xdp(syn()), XDP_PASS, syn())
    assert node.flows("entries") == {}


def test_answer_to_the_nodes_own_connection_passes(node: Node, web: Service) -> None:
    with socket.socket() as own:
        own.setblocking(False)
        own.bind((NODE_A, PUBLISHED))
        own.connect_ex((CLIENT, 5000))
        answer = syn(f"{CLIENT}:5000", flags="SA")
        assert_result(node.nic_xdp(answer), XDP_PASS, answer)
    assert node.flows("entries") == {}


def test_listener_on_the_published_port_is_no_hindrance(node: Node, web: Service) -> None:
    with socket.socket() as own:
        own.bind((NODE_A, PUBLISHED))
        own.listen()
        assert_result(node.nic_xdp(syn(flags="A")), XDP_TX, sent_on(syn(flags="A")))


# --- what is left to tc, with a tag


def test_local_backend_is_told_to_tc(node: Node) -> None:
    web = node.port(PUBLISHED, TARGET).backends(node.here())
    result = node.nic_xdp(syn())
    assert_result(result, XDP_PASS, syn())
    assert result.metadata == tag(TAG_DELIVER, web.ids[HERE])


@pytest.mark.parametrize("length", [1450, 1451, 1500])
def test_too_big_to_be_wrapped_is_left_to_tc(node: Node, web: Service, length: int) -> None:
    packet = syn(flags="PA", payload=bytes(length - 40))
    result = node.nic_xdp(packet)
    if length <= 1450:
        assert_result(result, XDP_TX, sent_on(packet))
    else:
        assert_result(result, XDP_PASS, packet)
        assert result.metadata == tag(TAG_FORWARD, web.ids[THERE])


@pytest.mark.parametrize(
    ("vtep", "device"),
    [
        pytest.param("192.0.2.77", "nic0", id="no node that is known"),
        pytest.param(NODE_B, "nic1", id="by another NIC"),
    ],
)
def test_no_next_hop_is_left_to_tc(node: Node, vtep: str, device: str) -> None:
    web = node.port(PUBLISHED, TARGET).backends(remote(THERE, vtep))
    result = node.nic_xdp(syn(), device)
    assert_result(result, XDP_PASS, syn())
    assert result.metadata == tag(TAG_FORWARD, web.ids[THERE])


def test_unresolved_neighbour_is_left_to_tc(node: Node) -> None:
    node.node("192.0.2.14")
    web = node.port(PUBLISHED, TARGET).backends(remote(THERE, "192.0.2.14"))
    result = node.nic_xdp(syn())
    assert_result(result, XDP_PASS, syn())
    assert result.metadata == tag(TAG_FORWARD, web.ids[THERE])


# --- the choice


def test_choice_is_balanced(node: Node, web: Service) -> None:
    backends = [f"10.0.0.{i}" for i in range(20, 25)]
    web.backends(*(remote(address) for address in backends)).choose(*backends)
    tally = Tally(
        inner_backend(node.nic_xdp(syn(f"198.18.{i % 7}.{i % 251}:{1024 + i}")))
        for i in range(2000)
    )
    assert set(tally) == {docker_mac(address) for address in backends}
    assert min(tally.values()) > 320
    assert max(tally.values()) < 480


def test_choice_is_the_same_at_every_node(node: Node, web: Service) -> None:
    """It is that of the hash, in which the address that the client used has no part."""
    backends = [f"10.0.0.{i}" for i in range(20, 25)]
    web.backends(*(remote(address) for address in backends)).choose(*backends)
    node.addresses("192.0.2.51")
    for port in range(1024, 1124):
        packet = syn(f"{CLIENT}:{port}")
        expected = docker_mac(backends[(flow_hash(packet) * 1021 >> 32) % len(backends)])
        assert inner_backend(node.nic_xdp(packet)) == expected
        elsewhere = syn(f"{CLIENT}:{port}", f"192.0.2.51:{PUBLISHED}")
        assert inner_backend(node.nic_xdp(elsewhere)) == expected


def test_entries_are_big_endian_as_packets_are(node: Node, web: Service) -> None:
    node.nic_xdp(syn())
    ((key, entry),) = node.flows("entries").items()
    assert key == (CLIENT, 4000, NODE_A, PUBLISHED, socket.IPPROTO_TCP, 0)
    assert (entry.backend, entry.address) == (web.ids[THERE], be32(THERE))
