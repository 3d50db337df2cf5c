# SPDX-License-Identifier: Apache-2.0
"""A container sends in its own name: what it sends in another's is dropped, and does nothing."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from ebpfmesh.datapath.discover import look_at_sandbox
from ebpfmesh.datapath.maps import Maps
from ebpfmesh.model import Endpoint, EndpointKey

from .conftest import MakeNode
from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    HERE_GATEWAY,
    HERE_TOO_GATEWAY,
    NODE_A,
    OTHER_VNI,
    PUBLISHED,
    TARGET,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    arp_reply,
    arp_request,
    between,
    docker_mac,
    echo,
    tcp,
    udp,
)
from .node import TC_OK, TC_REDIRECT, TC_SHOT, TC_UNSPEC, Node, assert_result
from .sandbox import ifindex
from .world import Service

MALLORY, MALLORY_GATEWAY = "10.0.1.66", "172.18.0.66"
BRIDGE_MAC = "02:42:00:00:00:01"


@pytest.fixture
def web(node: Node) -> Service:
    """Alice has spoken to it already, from the veth where Mallory is, too."""
    return node.vip(VIP, VNI).backends(WEB_1, WEB_2)


def mallory_is_known(node: Node) -> None:
    """At gw0, where the tests' overlay packets come in."""
    node.endpoint(MALLORY, VNI, ifindex("gw0"))


def by_mallory(packet: Packet) -> Packet:
    """From the right MAC: only the address is another's."""
    packet.src = docker_mac(MALLORY)
    return packet


def records(node: Node) -> list[tuple[object, int]]:
    """What is remembered of flows: which there are, and what has been seen of each."""
    return [
        (k, leaf.flags) for name in ("flows", "replies") for k, leaf in node.flows(name).items()
    ]


# --- on an overlay network


FORGED = [
    pytest.param(by_mallory(tcp(f"{ALICE}:4000", f"{VIP}:80")), id="opens a flow"),
    pytest.param(by_mallory(tcp(f"{ALICE}:4001", f"{VIP}:80", "FA")), id="closes a flow"),
    pytest.param(by_mallory(tcp(f"{ALICE}:4001", f"{VIP}:80", "R")), id="resets a flow"),
    pytest.param(by_mallory(tcp(f"{ALICE}:4001", f"{VIP}:80", "PA")), id="speaks in a flow"),
    pytest.param(by_mallory(tcp(f"{WEB_1}:80", f"{ALICE}:4001", "R")), id="resets in an answer"),
    pytest.param(by_mallory(udp(f"{WEB_1}:53", f"{ALICE}:4001")), id="answers for another"),
    pytest.param(by_mallory(udp(f"{VIP}:53", f"{ALICE}:4001")), id="answers for the VIP"),
    pytest.param(by_mallory(echo(ALICE, VIP)), id="pings for another"),
    pytest.param(by_mallory(tcp(f"{ALICE}:4000", f"{VIP}:80", frag=7)), id="fragment"),
    pytest.param(by_mallory(tcp(f"{ALICE}:4000", f"{VIP}:80", ihl=6)), id="options"),
    pytest.param(tcp(f"{MALLORY}:4000", f"{VIP}:80", macs=between(ALICE, VIP)), id="MAC"),
    pytest.param(by_mallory(arp_request(ALICE, WEB_1)), id="ARP: another's address"),
    pytest.param(by_mallory(arp_reply(VIP, ALICE)), id="ARP: answers for a VIP"),
    pytest.param(
        Ether(src=docker_mac(MALLORY))
        / ARP(op="who-has", hwsrc=docker_mac(ALICE), psrc=MALLORY, pdst=WEB_1),
        id="ARP: another's MAC",
    ),
    pytest.param(
        Ether(src=docker_mac(ALICE)) / IPv6(dst="ff02::1") / ICMPv6EchoRequest(),
        id="MAC of an IPv6 packet",
    ),
]


@pytest.mark.parametrize("packet", FORGED)
def test_what_is_sent_in_anothers_name_is_dropped(node: Node, web: Service, packet: Packet) -> None:
    node.overlay_ingress(tcp(f"{ALICE}:4001", f"{VIP}:80"))
    before = records(node)
    mallory_is_known(node)
    assert_result(node.overlay_ingress(packet), TC_SHOT, packet)
    assert node.reasons() == {"drop_spoofed_source": 1}
    assert records(node) == before


OWN = [
    pytest.param(tcp(f"{MALLORY}:4000", f"{WEB_1}:80", "A"), id="TCP"),
    pytest.param(echo(MALLORY, WEB_1), id="ping"),
    pytest.param(arp_request(MALLORY, WEB_1), id="ARP"),
    pytest.param(arp_reply(MALLORY, ALICE), id="ARP reply"),
    pytest.param(
        Ether(src=docker_mac(MALLORY))
        / ARP(op="who-has", hwsrc=docker_mac(MALLORY), psrc="0.0.0.0", pdst=MALLORY),
        id="ARP probe",
    ),
    pytest.param(
        Ether(src=docker_mac(MALLORY)) / IPv6(dst="ff02::1") / ICMPv6EchoRequest(), id="IPv6"
    ),
]


@pytest.mark.parametrize("packet", OWN)
def test_what_is_sent_in_ones_own_name_passes(node: Node, web: Service, packet: Packet) -> None:
    mallory_is_known(node)
    assert_result(node.overlay_ingress(packet), TC_UNSPEC, packet)


def test_own_flow_goes_on(node: Node, web: Service) -> None:
    web.choose(WEB_1)
    mallory_is_known(node)
    into = between(MALLORY, WEB_1)
    for kind in ("S", "A", "PA", "FA"):
        asked = node.overlay_ingress(tcp(f"{MALLORY}:4000", f"{VIP}:80", kind))
        assert_result(asked, TC_OK, tcp(f"{MALLORY}:4000", f"{WEB_1}:80", kind, macs=into))
    assert node.reasons() == {}


def test_known_flow_is_no_ticket_for_another_veth(node: Node, web: Service) -> None:
    """Alice's flow has been judged at her veth; the same packet out of another is not hers."""
    node.endpoint(ALICE, VNI, ifindex("gw0"))
    for kind in ("S", "A", "A"):
        assert node.overlay_ingress(tcp(f"{ALICE}:4000", f"{VIP}:80", kind)).verdict == TC_OK
    node.endpoint(MALLORY, VNI, ifindex("gw1"))
    forged = tcp(f"{ALICE}:4000", f"{VIP}:80", "R")
    assert_result(node.overlay_ingress(forged, device="gw1"), TC_SHOT, forged)
    assert node.reasons() == {"drop_spoofed_source": 1}


def test_known_flow_is_no_ticket_for_another_mac(node: Node, web: Service) -> None:
    """A bridge would learn it, and send another's traffic that way."""
    mallory_is_known(node)
    for kind in ("S", "A", "A"):
        assert node.overlay_ingress(tcp(f"{MALLORY}:4000", f"{VIP}:80", kind)).verdict == TC_OK
    forged = tcp(f"{MALLORY}:4000", f"{VIP}:80", "A", macs=between(ALICE, VIP))
    assert_result(node.overlay_ingress(forged), TC_SHOT, forged)


def test_flow_from_before_the_veth_was_known_is_judged(node: Node, web: Service) -> None:
    forged = tcp(f"{ALICE}:4000", f"{VIP}:80", "A")
    for _ in range(3):
        assert node.overlay_ingress(forged).verdict == TC_OK
    mallory_is_known(node)
    assert_result(node.overlay_ingress(forged), TC_SHOT, forged)


def test_established_flow_is_judged_without_a_look_up(node: Node, web: Service) -> None:
    mallory_is_known(node)
    for kind in ("S", "A"):
        assert node.overlay_ingress(tcp(f"{MALLORY}:4000", f"{VIP}:80", kind)).verdict == TC_OK
    node.endpoint(ALICE, VNI, ifindex("gw0"))
    assert node.overlay_ingress(tcp(f"{MALLORY}:4000", f"{VIP}:80", "A")).verdict == TC_OK
    new = tcp(f"{MALLORY}:4001", f"{VIP}:80")
    assert_result(node.overlay_ingress(new), TC_SHOT, new)


def error(quoted: Packet, source: str = MALLORY, to: str = WEB_1) -> Packet:
    return (
        Ether(src=docker_mac(MALLORY), dst=docker_mac(to))
        / IP(src=source, dst=to)
        / ICMP(type=3, code=3)
        / Raw(bytes(quoted[IP])[:28])
    )


def test_error_about_anothers_packet_is_dropped(node: Node, web: Service) -> None:
    mallory_is_known(node)
    forged = error(udp(f"{WEB_1}:53", f"{ALICE}:4000"))
    assert_result(node.overlay_ingress(forged), TC_SHOT, forged)
    own = error(udp(f"{WEB_1}:53", f"{MALLORY}:4000"))
    assert_result(node.overlay_ingress(own), TC_UNSPEC, own)
    assert node.reasons()["drop_spoofed_source"] == 1


def test_who_is_not_known_is_not_judged(node: Node, web: Service) -> None:
    node.endpoint(MALLORY, OTHER_VNI, ifindex("gw0"))
    node.endpoint(MALLORY, VNI, ifindex("gw1"))
    assert node.overlay_ingress(tcp(f"{ALICE}:4000", f"{VIP}:80")).verdict == TC_OK
    assert node.reasons() == {}


def test_without_the_check_nobody_is_judged(make_node: MakeNode) -> None:
    node = make_node(SPOOF_CHECK=0)
    node.vip(VIP, VNI).backends(WEB_1)
    mallory_is_known(node)
    assert node.overlay_ingress(tcp(f"{ALICE}:4000", f"{VIP}:80")).verdict == TC_OK
    node.clear()


# --- what the agent writes down


def test_endpoints_are_written_and_read_back(node: Node) -> None:
    maps = Maps(node.module)
    there = {
        EndpointKey(VNI, 7): Endpoint(ALICE, docker_mac(ALICE)),
        EndpointKey(0, 9): Endpoint(HERE_GATEWAY, docker_mac(HERE_GATEWAY)),
    }
    for key, endpoint in there.items():
        maps.put_endpoint(key, endpoint)
    assert maps.endpoints() == there
    maps.delete_endpoint(EndpointKey(VNI, 7))
    maps.delete_endpoint(EndpointKey(VNI, 7))
    assert list(maps.endpoints()) == [EndpointKey(0, 9)]
    maps.clear_endpoints()
    assert maps.endpoints() == {}


def test_what_the_agent_writes_is_what_the_program_reads(node: Node, web: Service) -> None:
    key = EndpointKey(VNI, ifindex("gw0"))
    Maps(node.module).put_endpoint(key, Endpoint(ALICE, docker_mac(ALICE)))
    assert node.overlay_ingress(tcp(f"{ALICE}:4000", f"{VIP}:80")).verdict == TC_OK
    assert node.overlay_ingress(tcp(f"{MALLORY}:4000", f"{VIP}:80")).verdict == TC_SHOT


def test_other_end_of_a_containers_veth_is_found(node: Node) -> None:
    sandbox = look_at_sandbox("/proc/thread-self/ns/net", None)
    assert sandbox is not None
    assert sandbox.peers[NODE_A] == ifindex("lan0")


# --- out of a task, by docker_gwbridge


TASK = f"{HERE_GATEWAY}:{TARGET}"
SOURCE = f"{CLIENT}:4000"
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), BRIDGE_MAC)


@pytest.fixture
def published(node: Node) -> Service:
    """A task at gw0 that a client is being answered by; at gw1 a neighbour."""
    service = node.port(PUBLISHED, TARGET).backends(node.here())
    node.endpoint(HERE_GATEWAY, 0, ifindex("gw0"))
    node.endpoint(HERE_TOO_GATEWAY, 0, ifindex("gw1"))
    node.nic_ingress(tcp(SOURCE, f"{NODE_A}:{PUBLISHED}", macs=FROM_CLIENT))
    return service


NEIGHBOURS_LIES = [
    pytest.param(tcp(TASK, SOURCE, "SA", macs=OUT_OF_TASK), id="answers for the task"),
    pytest.param(tcp(TASK, SOURCE, "R", macs=OUT_OF_TASK), id="resets for the task"),
    pytest.param(
        tcp(TASK, SOURCE, "R", macs=(docker_mac(HERE_TOO_GATEWAY), BRIDGE_MAC)), id="own MAC"
    ),
    pytest.param(tcp(SOURCE, f"{NODE_A}:{PUBLISHED}", "R", macs=OUT_OF_TASK), id="as the client"),
    pytest.param(tcp(f"{HERE_GATEWAY}:5000", f"{CLIENT}:80", macs=OUT_OF_TASK), id="to anywhere"),
    pytest.param(arp_reply(HERE_GATEWAY, NODE_A), id="ARP"),
]


@pytest.mark.parametrize("packet", NEIGHBOURS_LIES)
def test_neighbour_does_not_speak_for_a_task(
    node: Node, published: Service, packet: Packet
) -> None:
    before = records(node)
    assert_result(node.gateway_ingress(packet, "gw1"), TC_SHOT, packet)
    assert node.reasons() == {"drop_spoofed_source": 1}
    assert records(node) == before


def test_task_answers_in_its_own_name(node: Node, published: Service) -> None:
    answer = node.gateway_ingress(tcp(TASK, SOURCE, "SA", macs=OUT_OF_TASK))
    expected = tcp(f"{NODE_A}:{PUBLISHED}", SOURCE, "SA", macs=OUT_OF_TASK)
    assert_result(answer, TC_REDIRECT, expected)


def test_tasks_answer_is_judged_without_a_look_up(node: Node, published: Service) -> None:
    """By the backend that its flow names."""
    node.endpoint(HERE_TOO_GATEWAY, 0, ifindex("gw0"))
    answer = tcp(TASK, SOURCE, "SA", macs=OUT_OF_TASK)
    assert node.gateway_ingress(answer).verdict == TC_REDIRECT


def test_neighbour_asks_in_its_own_name(node: Node, published: Service) -> None:
    macs = (docker_mac(HERE_TOO_GATEWAY), BRIDGE_MAC)
    for kind in ("S", "A"):
        asked = tcp(f"{HERE_TOO_GATEWAY}:4000", f"{NODE_A}:{PUBLISHED}", kind, macs=macs)
        assert node.gateway_ingress(asked, "gw1").verdict == TC_REDIRECT
    out = tcp(f"{HERE_TOO_GATEWAY}:4000", f"{CLIENT}:443", macs=macs)
    assert_result(node.gateway_ingress(out, "gw1"), TC_UNSPEC, out)
