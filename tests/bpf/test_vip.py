# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from scapy.packet import Packet

from .net import (
    ALICE,
    OTHER_VNI,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    WEB_3,
    between,
    docker_mac,
    sctp,
    tcp,
    udp,
)
from .node import TC_OK, TC_REDIRECT, TC_UNSPEC, Node, assert_result
from .world import DRAINING, GONE, Counter, Service

MakePacket = Callable[..., Packet]

CLIENT = f"{ALICE}:4000"
SERVER = f"{VIP}:80"
TO_VIP = between(ALICE, VIP)
PACKETS = [pytest.param(make, id=make.__name__) for make in (tcp, udp, sctp)]


@pytest.fixture
def web(node: Node) -> Service:
    return node.vip(VIP, VNI).backends(WEB_1)


@pytest.mark.parametrize("make", PACKETS)
def test_packet_to_the_vip_goes_to_its_backend(node: Node, web: Service, make: MakePacket) -> None:
    result = node.overlay_ingress(make(CLIENT, SERVER))
    assert_result(result, TC_OK, make(CLIENT, f"{WEB_1}:80"))
    assert node.reasons() == {}


@pytest.mark.parametrize("make", PACKETS)
def test_answer_comes_from_the_vip(node: Node, web: Service, make: MakePacket) -> None:
    node.overlay_ingress(make(CLIENT, SERVER))
    macs = between(WEB_1, ALICE)
    result = node.overlay_egress(make(f"{WEB_1}:80", CLIENT, macs=macs))
    assert_result(result, TC_OK, make(SERVER, CLIENT, macs=macs))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"payload": b""}, id="empty"),
        pytest.param({"payload": b"odd"}, id="odd length"),
        pytest.param({"payload": bytes(1400)}, id="long"),
        pytest.param({"checksum": 0}, id="no checksum"),
        pytest.param({"tos": 0xB8, "ttl": 1}, id="other fields"),
    ],
)
def test_datagram_is_the_same_but_for_its_address(
    node: Node, web: Service, fields: dict[str, Any]
) -> None:
    result = node.overlay_ingress(udp(CLIENT, SERVER, **fields))
    assert_result(result, TC_OK, udp(CLIENT, f"{WEB_1}:80", **fields))


def test_udp_checksum_that_adds_up_to_zero_is_sent_as_ones(node: Node, web: Service) -> None:
    # Two bytes more of the payload that make the sum of the rest complete.
    payload = bytes(udp(CLIENT, f"{WEB_1}:80", payload=b"\0\0"))[40:42]
    result = node.overlay_ingress(udp(CLIENT, SERVER, payload=payload))
    assert_result(result, TC_OK, udp(CLIENT, f"{WEB_1}:80", payload=payload))
    assert result.data[40:42] == b"\xff\xff"


def test_every_port_of_the_vip_is_balanced(node: Node, web: Service) -> None:
    for port in (1, 53, 80, 65535):
        result = node.overlay_ingress(tcp(CLIENT, f"{VIP}:{port}"))
        assert_result(result, TC_OK, tcp(CLIENT, f"{WEB_1}:{port}"))


@pytest.mark.parametrize(
    ("destination", "vni"),
    [
        pytest.param("10.0.1.99:80", VNI, id="unknown address"),
        pytest.param(SERVER, OTHER_VNI, id="another network"),
    ],
)
@pytest.mark.parametrize("make", PACKETS)
def test_what_is_not_balanced_passes(
    node: Node, web: Service, destination: str, vni: int, make: MakePacket
) -> None:
    packet = make(CLIENT, destination)
    assert_result(node.overlay_ingress(packet, vni), TC_UNSPEC, packet)
    assert node.reasons() == {"handback_no_frontend": 1}
    assert node.flows() == {}


def test_answer_in_another_network_passes(node: Node, web: Service) -> None:
    node.overlay_ingress(tcp(CLIENT, SERVER))
    answer = tcp(f"{WEB_1}:80", CLIENT, "SA")
    assert_result(node.overlay_egress(answer, OTHER_VNI), TC_UNSPEC, answer)


def test_same_vip_in_two_networks(node: Node, web: Service) -> None:
    node.vip(VIP, OTHER_VNI).backends(WEB_2)
    assert_result(node.overlay_ingress(tcp(CLIENT, SERVER)), TC_OK, tcp(CLIENT, f"{WEB_1}:80"))
    assert_result(
        node.overlay_ingress(tcp(CLIENT, SERVER), OTHER_VNI), TC_OK, tcp(CLIENT, f"{WEB_2}:80")
    )


@pytest.mark.parametrize("flags", ["S", "A", "PA", "FA", "R"])
def test_flow_keeps_its_backend(node: Node, web: Service, flags: str) -> None:
    node.overlay_ingress(tcp(CLIENT, SERVER))
    web.backends(WEB_2).choose(WEB_2)
    result = node.overlay_ingress(tcp(CLIENT, SERVER, flags))
    assert_result(result, TC_OK, tcp(CLIENT, f"{WEB_1}:80", flags))


@pytest.mark.parametrize("end", ["FA", "R"])
def test_syn_after_the_end_chooses_anew(node: Node, web: Service, end: str) -> None:
    node.overlay_ingress(tcp(CLIENT, SERVER))
    node.overlay_ingress(tcp(CLIENT, SERVER, end))
    web.backends(WEB_2).choose(WEB_2)
    result = node.overlay_ingress(tcp(CLIENT, SERVER))
    assert_result(result, TC_OK, tcp(CLIENT, f"{WEB_2}:80"))
    assert len(node.flows()) == len(node.flows("replies")) == 1


def test_syn_after_the_servers_end_chooses_anew(node: Node, web: Service) -> None:
    node.overlay_ingress(tcp(CLIENT, SERVER))
    node.overlay_egress(tcp(f"{WEB_1}:80", CLIENT, "FA"))
    web.backends(WEB_2).choose(WEB_2)
    result = node.overlay_ingress(tcp(CLIENT, SERVER))
    assert_result(result, TC_OK, tcp(CLIENT, f"{WEB_2}:80"))


def test_draining_backend_keeps_its_flow_but_gets_no_syn(node: Node, web: Service) -> None:
    node.overlay_ingress(tcp(CLIENT, SERVER))
    web.backends(WEB_2).choose(WEB_2).state(WEB_1, DRAINING)
    kept = node.overlay_ingress(tcp(CLIENT, SERVER, "A"))
    assert_result(kept, TC_OK, tcp(CLIENT, f"{WEB_1}:80", "A"))
    opened = node.overlay_ingress(tcp(CLIENT, SERVER, "S"))
    assert_result(opened, TC_OK, tcp(CLIENT, f"{WEB_2}:80", "S"))


def test_flow_of_a_gone_backend_moves(node: Node, web: Service) -> None:
    node.overlay_ingress(udp(CLIENT, SERVER))
    web.backends(WEB_2).choose(WEB_2).state(WEB_1, GONE)
    result = node.overlay_ingress(udp(CLIENT, SERVER))
    assert_result(result, TC_OK, udp(CLIENT, f"{WEB_2}:80"))
    answer = node.overlay_egress(udp(f"{WEB_2}:80", CLIENT))
    assert_result(answer, TC_OK, udp(SERVER, CLIENT, macs=between(WEB_2, ALICE)))
    late = udp(f"{WEB_1}:80", CLIENT)
    assert_result(node.overlay_egress(late), TC_UNSPEC, late)


def test_backend_whose_id_was_given_to_another_is_gone(node: Node, web: Service) -> None:
    node.overlay_ingress(udp(CLIENT, SERVER))
    fresh = int.from_bytes(socket.inet_aton(WEB_3), "little")
    node.set_backend(web.ids[WEB_1], address=fresh, mac=docker_mac(WEB_3))
    result = node.overlay_ingress(udp(CLIENT, SERVER))
    assert_result(result, TC_OK, udp(CLIENT, f"{WEB_3}:80"))


@pytest.mark.parametrize("make", PACKETS)
def test_without_backends_no_flow_begins(node: Node, web: Service, make: MakePacket) -> None:
    web.choose()
    node.overlay_ingress(make(CLIENT, SERVER))
    assert node.reasons() == {"drop_no_backend": 1}
    assert node.flows() == node.flows("replies") == {}
    assert node.counter("frontend", web.frontend) == Counter()


# --- a task that is balanced to itself


ITSELF = f"{WEB_1}:4000"


@pytest.mark.parametrize("make", PACKETS)
def test_task_balanced_to_itself(node: Node, web: Service, make: MakePacket) -> None:
    asked = node.overlay_ingress(make(ITSELF, SERVER))
    assert_result(
        asked, TC_REDIRECT, make(f"{VIP}:4000", f"{WEB_1}:80", macs=between(WEB_1, WEB_1))
    )
    answered = node.overlay_ingress(make(f"{WEB_1}:80", f"{VIP}:4000"))
    assert_result(answered, TC_REDIRECT, make(SERVER, ITSELF, macs=between(WEB_1, WEB_1)))
    assert node.reasons() == {}


def test_what_goes_back_into_the_task_passes_its_egress(node: Node, web: Service) -> None:
    asked = node.overlay_ingress(tcp(ITSELF, SERVER))
    assert_result(node.overlay_egress(asked.data), TC_UNSPEC, asked.data)
    answered = node.overlay_ingress(tcp(f"{WEB_1}:80", f"{VIP}:4000", "SA"))
    assert_result(node.overlay_egress(answered.data), TC_UNSPEC, answered.data)


def test_task_balanced_to_itself_on_equal_ports(node: Node, web: Service) -> None:
    asked = node.overlay_ingress(udp(f"{WEB_1}:80", SERVER))
    assert asked.verdict == TC_REDIRECT
    answered = node.overlay_ingress(udp(f"{WEB_1}:80", SERVER, payload=b"answer"))
    assert answered.verdict == TC_REDIRECT


# --- the two directions of a flow


def test_lost_reply_entry_is_made_again(node: Node, web: Service) -> None:
    node.overlay_ingress(tcp(CLIENT, SERVER))
    node.forget("replies")
    node.age("flows", 2)
    node.overlay_ingress(tcp(CLIENT, SERVER, "A"))
    answer = node.overlay_egress(tcp(f"{WEB_1}:80", CLIENT, "A"))
    assert_result(answer, TC_OK, tcp(SERVER, CLIENT, "A", macs=between(WEB_1, ALICE)))


def test_lost_forward_entry_is_made_again(node: Node, web: Service) -> None:
    node.overlay_ingress(tcp(CLIENT, SERVER))
    node.forget("flows")
    node.age("replies", 2)
    node.overlay_egress(tcp(f"{WEB_1}:80", CLIENT, "A"))
    web.backends(WEB_2).choose(WEB_2)
    result = node.overlay_ingress(tcp(CLIENT, SERVER, "A"))
    assert_result(result, TC_OK, tcp(CLIENT, f"{WEB_1}:80", "A"))


def test_news_of_a_flow_reach_both_entries(node: Node, web: Service) -> None:
    node.overlay_ingress(tcp(CLIENT, SERVER))
    node.overlay_ingress(tcp(CLIENT, SERVER, "FA"))
    node.overlay_egress(tcp(f"{WEB_1}:80", CLIENT, "FA"))
    (forward,) = node.flows("flows").values()
    (backward,) = node.flows("replies").values()
    assert forward.flags == backward.flags == 0b1011
