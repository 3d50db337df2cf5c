# SPDX-License-Identifier: Apache-2.0
"""Published ports with a list of allowed clients: who is let in, at the entry node."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, IPOption_NOP
from scapy.packet import Packet

from .net import (
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    HERE_TOO_GATEWAY,
    NODE_A,
    NODE_B,
    NODE_B_MAC,
    PUBLISHED,
    STRANGER,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    docker_mac,
    sctp,
    tcp,
    udp,
    wrapped,
)
from .node import TC_OK, TC_REDIRECT, TC_SHOT, TC_UNSPEC, XDP_DROP, XDP_PASS, XDP_TX, Node
from .world import RESTRICTED, Service, remote

MakePacket = Callable[..., Packet]

ENTRY = f"{NODE_A}:{PUBLISHED}"
REFUSED = {"drop_not_allowed": 1}


@pytest.fixture
def web(node: Node) -> Service:
    """A task elsewhere, and so an answer from XDP."""
    return node.port(PUBLISHED, TARGET).backends(remote(THERE))


def syn(client: str = CLIENT, to: str = ENTRY, flags: str = "S", make: MakePacket = tcp) -> Packet:
    if make is tcp:
        return tcp(f"{client}:4000", to, flags, macs=FROM_CLIENT)
    return make(f"{client}:4000", to, macs=FROM_CLIENT)


@pytest.mark.parametrize(
    ("networks", "client", "let_in"),
    [
        pytest.param(["192.0.2.0/24"], CLIENT, True, id="inside"),
        pytest.param(["192.0.2.0/25"], "192.0.2.127", True, id="last of its network"),
        pytest.param(["192.0.2.0/25"], "192.0.2.128", False, id="first behind it"),
        pytest.param(["192.0.2.100/32"], CLIENT, True, id="one address"),
        pytest.param(["192.0.2.100/32"], "192.0.2.101", False, id="its neighbour"),
        pytest.param(["0.0.0.0/0"], CLIENT, True, id="everybody"),
        pytest.param(["128.0.0.0/1"], CLIENT, True, id="upper half"),
        pytest.param(["128.0.0.0/1"], "127.255.255.255", False, id="lower half"),
        pytest.param(["10.0.0.0/8", "192.0.2.0/24"], CLIENT, True, id="second of two"),
        pytest.param(["10.0.0.0/8", "198.51.100.0/24"], CLIENT, False, id="none of two"),
        pytest.param(["192.0.0.0/16", "192.0.2.0/24"], CLIENT, True, id="one within the other"),
        pytest.param(["192.0.0.0/16", "192.0.3.0/24"], CLIENT, True, id="only the wider one"),
        pytest.param(["::/0"], CLIENT, False, id="every IPv6 client"),
        pytest.param([], CLIENT, False, id="nobody"),
    ],
)
def test_list(node: Node, web: Service, networks: list[str], client: str, let_in: bool) -> None:
    web.allow(*networks)
    assert node.nic_xdp(syn(client)).verdict == (XDP_TX if let_in else XDP_DROP)
    assert node.reasons() == ({} if let_in else REFUSED)
    assert len(node.flows("entries")) == int(let_in)


@pytest.mark.parametrize(
    ("make", "protocol"), [(tcp, 6), (udp, 17), (sctp, 132)], ids=["tcp", "udp", "sctp"]
)
def test_strangers_are_dropped_by_xdp_and_by_tc(
    node: Node, make: MakePacket, protocol: int
) -> None:
    node.port(PUBLISHED, PUBLISHED, protocol).backends(node.here()).allow("10.0.0.0/8")
    assert node.nic_xdp(syn(make=make)).verdict == XDP_DROP
    assert node.nic_ingress(syn(make=make)).verdict == TC_SHOT
    assert node.reasons() == {"drop_not_allowed": 2}
    assert node.flows() == node.flows("entries") == {}


def test_tc_lets_in_whom_the_list_names(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(node.here()).allow("192.0.2.0/24")
    assert node.nic_ingress(syn()).verdict == TC_REDIRECT
    assert node.reasons() == {}


def test_strangers_are_not_told_that_there_is_no_backend(node: Node, web: Service) -> None:
    web.choose().allow("10.0.0.0/8")
    assert node.nic_ingress(syn()).verdict == TC_SHOT
    assert node.reasons() == REFUSED


def test_who_is_taken_off_the_list_is_cut_off(node: Node, web: Service) -> None:
    web.allow("192.0.2.0/24", "10.0.0.0/8")
    assert node.nic_xdp(syn()).verdict == XDP_TX
    assert node.nic_xdp(syn(flags="A")).verdict == XDP_TX
    web.disallow("192.0.2.0/24")
    assert node.nic_xdp(syn(flags="PA")).verdict == XDP_DROP
    assert node.reasons() == REFUSED


def test_connection_of_a_stranger_ends_when_a_list_comes(node: Node, web: Service) -> None:
    node.nic_xdp(syn())
    web.allow("10.0.0.0/8")
    assert node.nic_xdp(syn(flags="A")).verdict == XDP_DROP


def test_frontend_without_a_list_lets_everybody_in(node: Node, web: Service) -> None:
    """Also where another's list, or one that nothing asks for, does not name the client."""
    node.port(PUBLISHED + 1, TARGET).backends(remote(THERE)).allow("10.0.0.0/8")
    web.allow("10.0.0.0/8").flagged(0)
    assert node.nic_xdp(syn()).verdict == XDP_TX
    assert node.nic_xdp(syn(to=f"{NODE_A}:{PUBLISHED + 1}")).verdict == XDP_DROP


def test_lists_of_two_services_do_not_mix(node: Node, web: Service) -> None:
    web.allow("192.0.2.0/24")
    node.port(PUBLISHED + 1, TARGET).backends(remote(THERE)).allow("198.51.100.0/24")
    other = f"{NODE_A}:{PUBLISHED + 1}"
    assert node.nic_xdp(syn(CLIENT, other)).verdict == XDP_DROP
    assert node.nic_xdp(syn("198.51.100.7")).verdict == XDP_DROP
    assert node.nic_xdp(syn("198.51.100.7", other)).verdict == XDP_TX


def test_vip_has_no_list(node: Node) -> None:
    node.vip(VIP, VNI).backends(WEB_1).allow("192.0.2.0/24")
    assert node.overlay_ingress(tcp("10.0.1.3:4000", f"{VIP}:80")).verdict == TC_OK


def test_what_is_not_published_here_is_none_of_the_lists_business(node: Node, web: Service) -> None:
    """The node may be somebody's router."""
    web.allow("10.0.0.0/8")
    packet = syn(to=f"{STRANGER}:{PUBLISHED}")
    assert node.nic_xdp(packet).verdict == XDP_PASS
    assert node.nic_ingress(packet).verdict == TC_UNSPEC
    assert node.reasons() == {"handback_foreign_address": 1}


def test_answer_to_the_nodes_own_connection_passes(node: Node, web: Service) -> None:
    web.allow("10.0.0.0/8")
    with socket.socket() as own:
        own.setblocking(False)
        own.bind((NODE_A, PUBLISHED))
        own.connect_ex((CLIENT, 5000))
        answer = tcp(f"{CLIENT}:5000", ENTRY, "SA", macs=FROM_CLIENT)
        assert node.nic_xdp(answer).verdict == XDP_PASS
        assert node.nic_ingress(answer).verdict == TC_UNSPEC
    assert node.reasons() == {"handback_local_socket": 1}


# --- what is left to the kernel, where Docker may have a path of its own


def odd(kind: str, client: str = CLIENT) -> bytes:
    """A packet that the programs do not read."""
    packet = syn(client)
    if kind == "options":
        packet[IP].options = [IPOption_NOP()] * 40
    elif kind == "some options":
        packet[IP].options = [IPOption_NOP()] * 4
    elif kind == "first fragment":
        packet[IP].flags = "MF"
    elif kind == "cut off":
        return bytes(packet)[: 34 + 8]
    return bytes(packet)


ODD = ["options", "some options", "first fragment", "cut off"]


@pytest.mark.parametrize("kind", ODD)
def test_strangers_get_no_further_by_odd_packets(node: Node, web: Service, kind: str) -> None:
    web.allow("10.0.0.0/8")
    assert node.nic_xdp(odd(kind)).verdict == XDP_PASS
    assert node.nic_ingress(odd(kind)).verdict == TC_SHOT
    assert node.gateway_ingress(odd(kind)).verdict == TC_SHOT
    assert node.reasons() == {"drop_not_allowed": 2}


@pytest.mark.parametrize("kind", ["cut off"])
def test_odd_packets_of_others_are_the_kernels(node: Node, web: Service, kind: str) -> None:
    web.allow("192.0.2.100/32")
    assert node.nic_ingress(odd(kind)).verdict == TC_UNSPEC
    web.flagged(0)
    assert node.nic_ingress(odd(kind, STRANGER)).verdict == TC_UNSPEC
    assert "drop_not_allowed" not in node.reasons()


@pytest.mark.parametrize("kind", ["options", "some options"])
def test_options_come_off_the_packets_of_others(node: Node, web: Service, kind: str) -> None:
    web.allow("192.0.2.100/32")
    assert node.nic_ingress(odd(kind)).data == node.nic_ingress(syn()).data
    assert node.reasons() == {}


def test_later_fragments_say_no_port(node: Node, web: Service) -> None:
    web.allow("10.0.0.0/8")
    later = syn()
    later[IP].frag = 185
    assert node.nic_ingress(later).verdict == TC_UNSPEC
    assert node.reasons() == {"handback_fragment": 1}


# --- nodes and their containers


def test_node_of_the_swarm_may_always_ask(node: Node, web: Service) -> None:
    """Its own processes are led to the port of the task's node: there they are the node."""
    web.allow("10.0.0.0/8")
    assert node.nic_xdp(syn(NODE_B)).verdict == XDP_TX


def test_backend_node_trusts_the_entry_node(node: Node) -> None:
    """Where the client came in it was judged already."""
    node.port(PUBLISHED, TARGET).backends(node.here()).allow("10.0.0.0/8")
    macs = (NODE_B_MAC, FROM_CLIENT[1])
    packet = tcp(f"{CLIENT}:4000", f"{NODE_B}:{PUBLISHED}", macs=macs)
    tunnel = wrapped(packet, (NODE_B, NODE_A), (NODE_B, HERE), 0xC001, macs)
    assert node.nic_ingress(tunnel).verdict == TC_REDIRECT
    assert node.reasons() == {}


@pytest.mark.parametrize(
    ("networks", "let_in"), [(["172.18.0.0/16"], True), ([f"{NODE_A}/32"], False)]
)
@pytest.mark.parametrize("here", [True, False], ids=["task here", "task elsewhere"])
def test_container_is_judged_by_its_own_address(
    node: Node, networks: list[str], let_in: bool, here: bool
) -> None:
    task = node.here() if here else remote(THERE)
    node.port(PUBLISHED, TARGET).backends(task).allow(*networks)
    macs = (docker_mac(HERE_TOO_GATEWAY), "02:42:00:00:00:01")
    result = node.gateway_ingress(tcp(f"{HERE_TOO_GATEWAY}:4000", ENTRY, macs=macs), "gw1")
    verdict = TC_REDIRECT if here else TC_OK
    assert result.verdict == (verdict if let_in else TC_SHOT)
    assert node.reasons() == ({} if let_in else REFUSED)


def test_container_does_not_get_round_the_list_by_another_node(node: Node, web: Service) -> None:
    """There it would be masqueraded, and so a node of the Swarm."""
    web.allow("192.0.2.100/32")
    packet = tcp(f"{HERE_GATEWAY}:4000", f"{NODE_B}:{PUBLISHED}")
    assert node.gateway_ingress(packet).verdict == TC_SHOT
    assert node.reasons() == REFUSED
    elsewhere = tcp(f"{HERE_GATEWAY}:4000", f"198.51.100.7:{PUBLISHED}")
    assert node.gateway_ingress(elsewhere).verdict == TC_OK


def test_a_list_as_the_agent_finds_it_again(node: Node, web: Service) -> None:
    networks = {"10.0.0.0/8", "192.0.2.100/32", "0.0.0.0/0", "2001:db8::/32", "::/0"}
    web.allow(*networks)
    assert node.maps.allowed() == {web.pool: networks}
    for network in networks:
        node.maps.disallow(web.pool, network)
        node.maps.disallow(web.pool, network)
    assert node.maps.allowed() == {}


def test_flag_of_a_frontend_as_the_agent_finds_it_again(node: Node, web: Service) -> None:
    web.flagged(RESTRICTED)
    (stored,) = node.maps.frontends({})
    assert stored.frontend.restricted
