# SPDX-License-Identifier: Apache-2.0
"""IPv6 clients of published ports: IPv6 in, IPv4 to the task, IPv6 back."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from ebpfmesh.agent.flowlist import list_flows
from ebpfmesh.agent.naming import Named
from ebpfmesh.takeover import Mode

from .net import (
    CLIENT6,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    HERE_TOO,
    NODE_A,
    NODE_A6,
    NODE_B,
    PUBLISHED,
    TARGET,
    THERE,
    docker_mac,
    fragments,
    sctp,
    surrogate,
    tcp,
    tcp6,
    tunnel_port,
    udp,
    udp6,
    wrapped,
)
from .node import TC_REDIRECT, TC_SHOT, TC_UNSPEC, XDP_PASS, Node, assert_result
from .prog_run import Result
from .world import GONE, Service, remote

MakePacket = Callable[..., Packet]

SOURCE6, ENTRY6 = (CLIENT6, 4000), (NODE_A6, PUBLISHED)
CLIENT = surrogate(CLIENT6)
SOURCE, ENTRY, TASK = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}", f"{HERE_GATEWAY}:{TARGET}"
BRIDGE_MAC = "02:42:00:00:00:01"
INTO_TASK = (FROM_CLIENT[0], docker_mac(HERE_GATEWAY))
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), BRIDGE_MAC)
TO_CLIENT = (FROM_CLIENT[1], FROM_CLIENT[0])
SHORTEST_SKB = 54  # the kernel refuses to run a tc program on less than an IPv6 header
AS_IP4: dict[str, Any] = {"id": 0, "flags": "DF"}  # what comes from IPv6 may not be fragmented
TCP_, UDP_ = socket.IPPROTO_TCP, socket.IPPROTO_UDP

BOTH = pytest.mark.parametrize(
    ("make", "make6", "protocol"), [(tcp, tcp6, TCP_), (udp, udp6, UDP_)], ids=["tcp", "udp"]
)


def from6(make: MakePacket, *args: Any, **kwargs: Any) -> Packet:
    """An IPv4 packet that was one of IPv6."""
    packet: Packet = make(*args, **kwargs)
    packet[IP].id, packet[IP].flags = 0, "DF"
    return packet


@pytest.fixture
def node6(node: Node) -> Node:
    node.addresses(NODE_A6)
    return node


@pytest.fixture
def web(node6: Node) -> Service:
    return node6.port(PUBLISHED, TARGET).backends(node6.here())


def syn6(source: tuple[str, int] = SOURCE6, flags: str = "S") -> Packet:
    return tcp6(source, ENTRY6, flags)


def surrogates(node: Node) -> set[str]:
    return {socket.inet_ntoa(bytes(key)) for key in node.table("surrogates")}


# --- a task of the node asked


@BOTH
@pytest.mark.parametrize("payload", [b"", b"odd", b"question", bytes(range(256)) * 4])
def test_question_and_answer(
    node6: Node, make: MakePacket, make6: MakePacket, protocol: int, payload: bytes
) -> None:
    node6.port(PUBLISHED, TARGET, protocol).backends(node6.here())
    asked = node6.nic_ip6(make6(SOURCE6, ENTRY6, payload=payload))
    expected = from6(make, SOURCE, TASK, macs=INTO_TASK, payload=payload)
    assert_result(asked, TC_REDIRECT, expected)
    answered = node6.gateway_ingress(make(TASK, SOURCE, macs=OUT_OF_TASK, payload=payload))
    expected = make6(ENTRY6, SOURCE6, macs=OUT_OF_TASK, payload=payload)
    assert_result(answered, TC_REDIRECT, expected)
    assert node6.reasons() == {}


def test_headers_are_mapped(node6: Node, web: Service) -> None:
    """Traffic class and hop limit go along, both ways, one hop less; the flow label does not."""
    asked = node6.nic_ip6(tcp6(SOURCE6, ENTRY6, tc=0xB9, fl=0x12345, hlim=33))
    expected = from6(tcp, SOURCE, TASK, macs=INTO_TASK, tos=0xB9, ttl=32)
    assert_result(asked, TC_REDIRECT, expected)
    answered = node6.gateway_ingress(tcp(TASK, SOURCE, "SA", macs=OUT_OF_TASK, tos=0xB8, ttl=44))
    expected = tcp6(ENTRY6, SOURCE6, "SA", macs=OUT_OF_TASK, tc=0xB8, hlim=43)
    assert_result(answered, TC_REDIRECT, expected)


def test_checksum_that_becomes_zero_is_sent_as_ones(node6: Node) -> None:
    """UDP says "none" by 0. The payload is chosen so that the sum comes out as that."""
    node6.port(PUBLISHED, TARGET, UDP_).backends(node6.here())
    plain = udp(SOURCE, ENTRY, macs=FROM_CLIENT, payload=b"\0\0")
    payload = int(Ether(bytes(plain))[IP].payload.chksum).to_bytes(2, "big")
    result = node6.nic_ip6(udp6(SOURCE6, ENTRY6, payload=payload))
    expected = from6(udp, SOURCE, TASK, macs=INTO_TASK, payload=payload)
    assert_result(result, TC_REDIRECT, expected)
    back = udp6(ENTRY6, SOURCE6, macs=OUT_OF_TASK, payload=b"\0\0")
    payload = int(Ether(bytes(back))[IPv6].payload.chksum).to_bytes(2, "big")
    answered = node6.gateway_ingress(udp(TASK, SOURCE, macs=OUT_OF_TASK, payload=payload))
    assert Ether(answered.data)[IPv6].payload.chksum == 0xFFFF
    expected = udp6(ENTRY6, SOURCE6, macs=OUT_OF_TASK, payload=payload)
    assert_result(answered, TC_REDIRECT, expected)


@pytest.mark.parametrize(
    ("offered", "taken"), [(1460, 1440), (1440, 1440), (8940, 1440), (536, 536)]
)
def test_segments_have_room_as_ipv6(node6: Node, web: Service, offered: int, taken: int) -> None:
    result = node6.nic_ip6(tcp6(SOURCE6, ENTRY6, options=[("MSS", offered)]))
    expected = from6(tcp, SOURCE, TASK, macs=INTO_TASK, options=[("MSS", taken)])
    assert_result(result, TC_REDIRECT, expected)


def test_flow_is_counted_and_kept(node6: Node, web: Service) -> None:
    node6.nic_ip6(syn6())
    web.backends(node6.here_too()).choose(HERE_TOO)
    again = node6.nic_ip6(syn6(flags="A"))
    assert_result(again, TC_REDIRECT, from6(tcp, SOURCE, TASK, "A", macs=INTO_TASK))
    assert node6.counter("entry", web.frontend).connections == 1
    assert node6.counter("entry", web.frontend).to_backend[0] == 2
    assert node6.counter("frontend", web.frontend).connections == 1


@pytest.mark.parametrize(("size", "sent"), [(1480, True), (1481, False)])
def test_answer_must_have_room_as_ipv6(node6: Node, web: Service, size: int, sent: bool) -> None:
    """Else the task is told how long an IPv4 packet may be that becomes one of IPv6."""
    node6.nic_ip6(syn6())
    payload = bytes(size - 40)
    answer = from6(tcp, TASK, SOURCE, "A", macs=OUT_OF_TASK, payload=payload)
    result = node6.gateway_ingress(answer)
    if sent:
        expected = tcp6(ENTRY6, SOURCE6, "A", macs=OUT_OF_TASK, payload=payload)
        assert_result(result, TC_REDIRECT, expected)
        return
    told: Packet = Ether(src=BRIDGE_MAC, dst=OUT_OF_TASK[0]) / IP(
        src=CLIENT, dst=HERE_GATEWAY, **AS_IP4
    )
    told /= ICMP(type=3, code=4, nexthopmtu=1480) / Raw(bytes(answer[IP])[:28])
    assert_result(result, TC_REDIRECT, told)
    assert node6.reasons() == {"drop_too_big": 1}


# --- a task of another node


@BOTH
def test_there_and_back_through_the_tunnel(
    node6: Node, node_b: Node, make: MakePacket, make6: MakePacket, protocol: int
) -> None:
    node6.port(PUBLISHED, TARGET, protocol).backends(node6.here()._replace(vtep=NODE_B, gateway=""))
    node_b.port(PUBLISHED, TARGET, protocol).backends(node_b.here())
    there_and_back(node6, node_b, make, make6)


@BOTH
def test_there_and_back_where_answers_go_straight_to_clients(
    node6: Node, node_dsr: Node, make: MakePacket, make6: MakePacket, protocol: int
) -> None:
    """But not to these: the entry node alone knows who they are."""
    node6.port(PUBLISHED, TARGET, protocol).backends(node6.here()._replace(vtep=NODE_B, gateway=""))
    node_dsr.port(PUBLISHED, TARGET, protocol).backends(node_dsr.here())
    there_and_back(node6, node_dsr, make, make6)


def there_and_back(node6: Node, node_b: Node, make: MakePacket, make6: MakePacket) -> None:
    sent = node6.nic_ip6(make6(SOURCE6, ENTRY6, payload=b"question"))
    question = from6(make, SOURCE, ENTRY, macs=FROM_CLIENT, payload=b"question")
    route = (NODE_A, NODE_B), (NODE_A, HERE)
    expected = wrapped(question, *route, tunnel_port(question), FROM_CLIENT)
    assert_result(sent, TC_REDIRECT, expected)
    delivered = node_b.nic_ingress(sent.data)
    expected = from6(make, SOURCE, TASK, macs=INTO_TASK, payload=b"question")
    assert_result(delivered, TC_REDIRECT, expected)
    replied = node_b.gateway_ingress(make(TASK, SOURCE, macs=OUT_OF_TASK, payload=b"answer"))
    assert replied.verdict == TC_REDIRECT
    assert_result(node6.nic_xdp(replied.data), XDP_PASS, replied.data)
    returned = node6.nic_ingress(replied.data)
    expected = make6(ENTRY6, SOURCE6, macs=OUT_OF_TASK, payload=b"answer")
    assert_result(returned, TC_REDIRECT, expected)
    assert node6.reasons() == node_b.reasons() == {}


# --- nobody answers


def test_connection_is_reset(node6: Node, web: Service) -> None:
    web.choose()
    reset = tcp6(ENTRY6, SOURCE6, "RA", macs=TO_CLIENT, hlim=64)
    reset[TCP].seq, reset[TCP].ack, reset[TCP].window = 0, 1001, 0
    assert_result(node6.nic_ip6(syn6()), TC_REDIRECT, reset)
    assert node6.reasons() == {"drop_no_backend": 1}


def test_connection_of_a_gone_task_is_reset(node6: Node, web: Service) -> None:
    node6.nic_ip6(syn6())
    web.state(HERE, GONE).choose()
    segment = syn6(flags="A")
    segment[TCP].ack = 7777
    reset = tcp6(ENTRY6, SOURCE6, "R", macs=TO_CLIENT, hlim=64)
    reset[TCP].seq, reset[TCP].window = 7777, 0
    assert_result(node6.nic_ip6(segment), TC_REDIRECT, reset)


@pytest.mark.parametrize("payload", [b"", b"odd", b"question", bytes(500)])
def test_datagram_is_unreachable(node6: Node, payload: bytes) -> None:
    node6.port(PUBLISHED, TARGET, UDP_)
    result = node6.nic_ip6(udp6(SOURCE6, ENTRY6, payload=payload))
    (quoted,) = assert_icmp6(result, ICMPv6DestUnreach(code=4))
    assert (quoted.src, quoted.dst, quoted.nh) == (CLIENT6, NODE_A6, UDP_)
    assert (quoted[UDP].sport, quoted[UDP].dport) == (4000, PUBLISHED)
    assert bytes(quoted[UDP].payload) == payload
    assert node6.reasons() == {"drop_no_backend": 1}


def assert_icmp6(result: Result, message: Packet) -> list[Packet]:
    """An ICMPv6 error for the client, its checksum as scapy computes it; returns what it quotes."""
    assert result.verdict == TC_REDIRECT
    got = Ether(result.data)
    assert (got[IPv6].src, got[IPv6].dst, got[IPv6].nh) == (NODE_A6, CLIENT6, 58)
    whole = IPv6(src=NODE_A6, dst=CLIENT6, hlim=64) / message / Raw(result.data[62:])
    assert result.data[14:] == bytes(whole)
    return [IPv6(result.data[62:])]


# --- ICMP errors


@pytest.mark.parametrize("size", [1471, 1500])
def test_question_too_long_for_the_tunnel(node6: Node, size: int) -> None:
    """The client is told what is left as IPv6."""
    node6.port(PUBLISHED, TARGET).backends(remote(THERE))
    assert node6.nic_ip6(tcp6(SOURCE6, ENTRY6, "A", payload=bytes(1410))).verdict == TC_REDIRECT
    assert node6.reasons() == {}
    result = node6.nic_ip6(tcp6(SOURCE6, ENTRY6, "A", payload=bytes(size - 60)))
    (quoted,) = assert_icmp6(result, ICMPv6PacketTooBig(mtu=1470))
    assert (quoted.src, quoted.dst, quoted.plen) == (CLIENT6, NODE_A6, size - 40)
    assert bytes(quoted.payload)[:4] == struct.pack(">HH", 4000, PUBLISHED)
    assert node6.reasons() == {"drop_too_big": 1}


def test_port_that_the_task_has_closed(node6: Node) -> None:
    node6.port(PUBLISHED, TARGET, UDP_).backends(node6.here())
    delivered = Ether(node6.nic_ip6(udp6(SOURCE6, ENTRY6)).data)
    refusal: Packet = Ether(src=OUT_OF_TASK[0], dst=OUT_OF_TASK[1]) / IP(
        src=HERE_GATEWAY, dst=CLIENT
    )
    refusal /= ICMP(type=3, code=3) / delivered[IP]
    (quoted,) = assert_icmp6(node6.gateway_ingress(refusal), ICMPv6DestUnreach(code=4))
    assert (quoted.src, quoted.dst) == (CLIENT6, NODE_A6)
    assert (quoted[UDP].sport, quoted[UDP].dport) == (4000, PUBLISHED)
    assert node6.reasons() == {}


ROUTER6 = "2001:db8::1"
ERRORS = [
    pytest.param(ICMPv6PacketTooBig(mtu=1400), ICMP(type=3, code=4, nexthopmtu=1380), id="too big"),
    pytest.param(
        ICMPv6PacketTooBig(mtu=600), ICMP(type=3, code=4, nexthopmtu=1260), id="below 1280"
    ),
    pytest.param(ICMPv6DestUnreach(code=0), ICMP(type=3, code=1), id="no route"),
    pytest.param(ICMPv6DestUnreach(code=1), ICMP(type=3, code=10), id="prohibited"),
    pytest.param(ICMPv6DestUnreach(code=4), ICMP(type=3, code=3), id="port"),
    pytest.param(ICMPv6TimeExceeded(code=0), ICMP(type=11, code=0), id="hop limit"),
]


def error_about(answer: Packet, message: Packet) -> Packet:
    """What a router on the way to the client says of an answer."""
    about = Raw(bytes(answer[IPv6])[: 1280 - 48])
    frame: Packet = Ether(src=FROM_CLIENT[0], dst=FROM_CLIENT[1])
    return frame / IPv6(src=ROUTER6, dst=NODE_A6, hlim=60) / message / about


@pytest.mark.parametrize(("message", "told"), ERRORS)
def test_error_about_an_answer_reaches_the_task(
    node6: Node, web: Service, message: Packet, told: Packet
) -> None:
    node6.nic_ip6(syn6())
    answer = tcp6(ENTRY6, SOURCE6, "A", payload=bytes(1400))
    result = node6.nic_ip6(error_about(answer, message))
    quote = IP(src=HERE_GATEWAY, dst=CLIENT, ttl=63, len=1440, proto=6, **AS_IP4)
    quoted = bytes(answer[IPv6])[40 : 1280 - 48]
    quoted = TARGET.to_bytes(2, "big") + quoted[2:]
    expected: Packet = Ether(src=INTO_TASK[0], dst=INTO_TASK[1])
    expected /= IP(src=CLIENT, dst=HERE_GATEWAY, ttl=60, proto=1, **AS_IP4)
    expected /= told / quote / Raw(quoted)
    assert_result(result, TC_REDIRECT, expected)
    assert node6.reasons() == {}


def test_error_about_an_answer_reaches_the_tasks_node(node6: Node) -> None:
    node6.port(PUBLISHED, TARGET).backends(remote(THERE))
    node6.nic_ip6(syn6())
    answer = tcp6(ENTRY6, SOURCE6, "A", payload=bytes(1400))
    result = node6.nic_ip6(error_about(answer, ICMPv6PacketTooBig(mtu=1400)))
    assert result.verdict == TC_REDIRECT
    inner = IP(result.data[64:])
    assert (inner.src, inner.dst) == (CLIENT, NODE_A)
    assert (inner[ICMP].type, inner[ICMP].code, inner[ICMP].nexthopmtu) == (3, 4, 1380)
    assert bytes(inner) == bytes(_recomputed(inner))


def test_error_about_an_answer_of_a_task_that_has_gone(node6: Node, web: Service) -> None:
    node6.nic_ip6(syn6())
    web.state(HERE, GONE)
    error = error_about(tcp6(ENTRY6, SOURCE6, "A"), ICMPv6DestUnreach(code=4))
    assert node6.nic_ip6(error).verdict == TC_SHOT
    assert node6.reasons() == {"drop_backend_gone": 1}


def test_error_about_a_gone_tasks_answer_to_the_tunnels_port(node6: Node) -> None:
    """What it quotes looks like a packet of the tunnel."""
    client = (CLIENT6, 4789)
    service = node6.port(PUBLISHED, TARGET, UDP_).backends(node6.here())
    node6.nic_ip6(udp6(client, ENTRY6))
    service.state(HERE, GONE)
    error = error_about(udp6(ENTRY6, client), ICMPv6DestUnreach(code=4))
    assert node6.nic_ip6(error).verdict == TC_SHOT
    assert node6.reasons() == {"drop_backend_gone": 1}


def _recomputed(packet: Packet) -> Packet:
    """The same, with checksums of scapy's."""
    copy = packet.copy()
    del copy.chksum, copy.payload.chksum
    return copy


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(
            error_about(tcp6((NODE_A6, 81), SOURCE6, "A"), ICMPv6DestUnreach(code=4)),
            id="about another port",
        ),
        pytest.param(
            error_about(tcp6(ENTRY6, ("fd00::77", 4000), "A"), ICMPv6DestUnreach(code=4)),
            id="about an unknown client",
        ),
        pytest.param(
            error_about(tcp6(ENTRY6, (CLIENT6, 4001), "A"), ICMPv6DestUnreach(code=4)),
            id="about an unknown flow",
        ),
        pytest.param(
            error_about(tcp6(ENTRY6, SOURCE6, "A"), ICMPv6ParamProblem(code=0)),
            id="of another kind",
        ),
        pytest.param(
            bytes(error_about(tcp6(ENTRY6, SOURCE6, "A"), ICMPv6DestUnreach(code=4)))[:110],
            id="truncated",
        ),
    ],
)
def test_other_errors_are_the_kernels(node6: Node, web: Service, packet: Packet) -> None:
    node6.nic_ip6(syn6())
    assert_result(node6.nic_ip6(packet), TC_UNSPEC, packet)
    assert node6.reasons() == {}


# --- handed over, as IPv4


def test_published_port_with_the_tunnels_number(node6: Node) -> None:
    node6.port(4789, TARGET, UDP_).backends(node6.here())
    packet = wrapped(tcp(SOURCE, ENTRY), (NODE_B, NODE_A), (NODE_B, HERE), 0xC000)
    payload = bytes(packet[UDP].payload)
    result = node6.nic_ip6(udp6(SOURCE6, (NODE_A6, 4789), payload=payload))
    assert result.verdict == TC_REDIRECT
    assert IP(result.data[14:])[UDP].dport == TARGET
    assert node6.reasons() == {}


def test_packet_keeps_its_mark(node6: Node, web: Service) -> None:
    assert node6.nic_ip6(syn6(), mark=77).mark == 77


# --- surrogates

OTHER6 = "fd00::77"


def test_two_clients_with_one_hash(node6: Node, web: Service) -> None:
    """The later one gets the next address, and keeps it when the first one goes."""
    node6.stands_for(CLIENT, OTHER6, NODE_A6)
    next_one = f"{surrogate(CLIENT6, 1)}:4000"
    expected = from6(tcp, next_one, TASK, macs=INTO_TASK)
    assert_result(node6.nic_ip6(syn6()), TC_REDIRECT, expected)
    node6.forget("surrogates")
    node6.stands_for(surrogate(CLIENT6, 1), CLIENT6, NODE_A6)
    assert_result(node6.nic_ip6(syn6()), TC_REDIRECT, expected)
    answer = node6.gateway_ingress(tcp(TASK, next_one, "SA", macs=OUT_OF_TASK))
    assert_result(answer, TC_REDIRECT, tcp6(ENTRY6, SOURCE6, "SA", macs=OUT_OF_TASK))
    assert surrogates(node6) == {surrogate(CLIENT6, 1)}


@pytest.mark.parametrize(("idle_s", "place"), [(170, None), (190, 2)])
def test_surrogate_of_a_silent_client_is_taken(
    node6: Node, web: Service, idle_s: int, place: int | None
) -> None:
    for i in range(4):
        node6.stands_for(
            surrogate(CLIENT6, i), f"fd00::{i + 1}", NODE_A6, idle_s=idle_s if i == 2 else 0
        )
    result = node6.nic_ip6(syn6())
    if place is None:
        assert result.verdict == TC_SHOT
        assert node6.reasons() == {"drop_no_surrogate": 1}
        return
    taken = f"{surrogate(CLIENT6, place)}:4000"
    assert_result(result, TC_REDIRECT, from6(tcp, taken, TASK, macs=INTO_TASK))


def test_living_client_does_not_grow_silent(node6: Node, web: Service) -> None:
    node6.stands_for(CLIENT, CLIENT6, NODE_A6, idle_s=170)
    node6.nic_ip6(syn6())
    for i in range(1, 4):
        node6.stands_for(surrogate(CLIENT6, i), f"fd00::{i + 1}", NODE_A6)
    node6.age("surrogates", 20)
    assert node6.nic_ip6(syn6(flags="A")).verdict == TC_REDIRECT
    (own,) = (
        s for k, s in node6.table("surrogates").items() if socket.inet_ntoa(bytes(k)) == CLIENT
    )
    assert socket.inet_ntop(socket.AF_INET6, bytes(own.client)) == CLIENT6


def test_answer_whose_client_was_forgotten(node6: Node, web: Service) -> None:
    """It is lost; the client's next packet mends that."""
    node6.nic_ip6(syn6())
    node6.forget("surrogates")
    answer = tcp(TASK, SOURCE, "SA", macs=OUT_OF_TASK)
    assert node6.gateway_ingress(answer).verdict == TC_SHOT
    assert node6.reasons() == {"drop_no_surrogate": 1}
    assert node6.nic_ip6(syn6(flags="A")).verdict == TC_REDIRECT
    expected = tcp6(ENTRY6, SOURCE6, "SA", macs=OUT_OF_TASK)
    assert_result(node6.gateway_ingress(answer), TC_REDIRECT, expected)


def test_client_that_asks_two_addresses_of_the_node(node6: Node, web: Service) -> None:
    """One port, two flows: each is answered from the address that it asked."""
    second = ("2001:db8::11", PUBLISHED)
    node6.addresses(second[0])
    node6.nic_ip6(syn6())
    next_one = f"{surrogate(CLIENT6, 1)}:4000"
    expected = from6(tcp, next_one, TASK, macs=INTO_TASK)
    assert_result(node6.nic_ip6(tcp6(SOURCE6, second)), TC_REDIRECT, expected)
    for client, asked in ((SOURCE, ENTRY6), (next_one, second)):
        answer = node6.gateway_ingress(tcp(TASK, client, "SA", macs=OUT_OF_TASK))
        assert_result(answer, TC_REDIRECT, tcp6(asked, SOURCE6, "SA", macs=OUT_OF_TASK))


@pytest.mark.parametrize("make", [tcp, udp], ids=["tcp", "udp"])
def test_nobody_else_comes_from_a_surrogate(node6: Node, make: MakePacket) -> None:
    for protocol in (TCP_, UDP_):
        node6.port(PUBLISHED, TARGET, protocol).backends(node6.here())
    packet = make(SOURCE, ENTRY, macs=FROM_CLIENT)
    assert_result(node6.nic_xdp(packet), XDP_PASS, packet)
    assert_result(node6.nic_ingress(packet), TC_SHOT, packet)
    assert node6.reasons() == {"drop_surrogate_source": 1}
    assert node6.flows("entries") == {}


def test_container_does_not_come_from_a_surrogate(node6: Node, web: Service) -> None:
    packet = tcp(SOURCE, ENTRY, macs=OUT_OF_TASK)
    assert_result(node6.gateway_ingress(packet), TC_SHOT, packet)
    assert node6.reasons() == {"drop_surrogate_source": 1}


def test_sctp_to_a_surrogate_is_nobodys(node6: Node) -> None:
    """No IPv6 client speaks it with a task: another node has made it up."""
    node6.stands_for(CLIENT, CLIENT6, NODE_A6)
    answer = wrapped(sctp(ENTRY, SOURCE), (NODE_B, NODE_A), (NODE_B, NODE_A), 50000)
    assert node6.nic_ingress(answer).verdict == TC_SHOT
    assert node6.reasons() == {"drop_no_surrogate": 1}


@pytest.mark.parametrize("place", [0, 1])
def test_fragment_to_a_surrogate_is_dropped(node6: Node, place: int) -> None:
    node6.stands_for(CLIENT, CLIENT6, NODE_A6)
    piece = fragments(udp(ENTRY, SOURCE, payload=bytes(2000)), 1400)[place]
    answer = wrapped(piece, (NODE_B, NODE_A), (NODE_B, NODE_A), 50000)
    assert node6.nic_ingress(answer).verdict == TC_SHOT
    assert node6.reasons() == {"drop_ipv6_fragment": 1}


# --- what is refused, and what is left alone


@pytest.mark.parametrize(
    ("networks", "let_in"),
    [
        (["fd00:192:0:2::/64"], True),
        ([f"{CLIENT6}/128"], True),
        (["::/0"], True),
        (["fd00:192:0:3::/64"], False),
        (["0.0.0.0/0", "240.0.0.0/4"], False),
        ([], False),
    ],
)
def test_list_of_allowed_clients(
    node6: Node, web: Service, networks: list[str], let_in: bool
) -> None:
    """It is the client's own address that counts."""
    web.allow(*networks)
    assert node6.nic_ip6(syn6()).verdict == (TC_REDIRECT if let_in else TC_SHOT)
    assert node6.reasons() == ({} if let_in else {"drop_not_allowed": 1})
    assert surrogates(node6) == ({CLIENT} if let_in else set())


def test_datagram_without_a_checksum(node6: Node) -> None:
    node6.port(PUBLISHED, TARGET, UDP_).backends(node6.here())
    assert node6.nic_ip6(udp6(SOURCE6, ENTRY6, checksum=0)).verdict == TC_SHOT
    assert node6.reasons() == {"drop_no_checksum": 1}
    node6.nic_ip6(udp6(SOURCE6, ENTRY6))
    answer = udp(TASK, SOURCE, macs=OUT_OF_TASK, checksum=0)
    assert node6.gateway_ingress(answer).verdict == TC_SHOT
    assert node6.reasons() == {"drop_no_checksum": 2}


def test_fragment_of_an_answer(node6: Node) -> None:
    node6.port(PUBLISHED, TARGET, UDP_).backends(node6.here())
    node6.nic_ip6(udp6(SOURCE6, ENTRY6))
    first = udp(TASK, SOURCE, macs=OUT_OF_TASK, payload=bytes(1000), flags="MF", id=7)
    assert node6.gateway_ingress(first).verdict == TC_SHOT
    assert node6.reasons() == {"drop_ipv6_fragment": 1}


def frame6(*layers: Packet) -> Packet:
    packet: Packet = Ether(src=FROM_CLIENT[0], dst=FROM_CLIENT[1]) / IPv6(src=CLIENT6, dst=NODE_A6)
    for layer in layers:
        packet /= layer
    return packet


SEGMENT = TCP(sport=4000, dport=PUBLISHED, flags="S")


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(frame6(ICMPv6ND_NS(tgt=NODE_A6)), id="neighbour solicitation"),
        pytest.param(frame6(ICMPv6EchoRequest()), id="ping"),
        pytest.param(tcp6(SOURCE6, (NODE_A6, 81)), id="another port"),
        pytest.param(udp6(SOURCE6, ENTRY6), id="another protocol"),
        pytest.param(tcp6(SOURCE6, ("2001:db8::66", PUBLISHED)), id="another machine's"),
        pytest.param(tcp6(("ff02::1", 4000), ENTRY6), id="from a group"),
        pytest.param(tcp6(("::", 4000), ENTRY6), id="from nobody"),
        pytest.param(tcp6(("::1", 4000), ENTRY6), id="from a loopback address"),
        pytest.param(tcp6(("::ffff:192.0.2.66", 4000), ENTRY6), id="from a mapped address"),
        pytest.param(bytes(syn6())[:60], id="truncated"),
        pytest.param(tcp6(SOURCE6, ENTRY6, version=4), id="of another version"),
        pytest.param(tcp6(SOURCE6, ENTRY6, plen=12), id="too short for its header"),
        pytest.param(tcp6(SOURCE6, ENTRY6, plen=21), id="longer than it is"),
        pytest.param(tcp(SOURCE, ENTRY), id="IPv4"),
    ],
)
def test_what_is_not_balanced_passes(node6: Node, web: Service, packet: Packet | bytes) -> None:
    assert_result(node6.nic_ip6(packet), TC_UNSPEC, packet)
    assert node6.reasons() == {}
    assert surrogates(node6) == set()


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(frame6(IPv6ExtHdrFragment(m=1), SEGMENT), id="fragment"),
        pytest.param(frame6(IPv6ExtHdrHopByHop(), SEGMENT), id="hop by hop"),
        pytest.param(frame6(IPv6ExtHdrDestOpt(), SEGMENT), id="destination options"),
    ],
)
def test_extension_headers_are_the_kernels(node6: Node, web: Service, packet: Packet) -> None:
    assert_result(node6.nic_filters(packet), TC_UNSPEC, packet)
    assert node6.reasons() == {"handback_ipv6_extension": 1}


@pytest.mark.parametrize(
    "packet", [syn6(), error_about(tcp6(ENTRY6, SOURCE6, "A"), ICMPv6PacketTooBig(mtu=1400))]
)
def test_every_truncated_packet_is_harmless(node6: Node, web: Service, packet: Packet) -> None:
    whole = bytes(packet)
    for length in range(SHORTEST_SKB, len(whole)):
        part = whole[:length]
        assert_result(node6.nic_ip6(part), TC_UNSPEC, part)
    assert surrogates(node6) == set()


def test_answer_to_the_nodes_own_connection_passes(node6: Node, web: Service) -> None:
    with socket.socket(socket.AF_INET6) as own:
        own.setblocking(False)
        own.bind((NODE_A6, PUBLISHED))
        own.connect_ex((CLIENT6, 5000))
        answer = tcp6((CLIENT6, 5000), ENTRY6, "SA")
        assert_result(node6.nic_ip6(answer), TC_UNSPEC, answer)
    assert surrogates(node6) == set()


@pytest.mark.parametrize("flags", ["S", "A"])
def test_what_is_not_balanced_now_is_refused(node6: Node, web: Service, flags: str) -> None:
    """The path before does not serve IPv6 clients: nothing is given back to it."""
    node6.mode(Mode.GIVING_BACK if flags == "S" else Mode.SERVING, grace_s=60)
    result = node6.nic_ip6(syn6(flags=flags))
    assert result.verdict == TC_REDIRECT
    assert Ether(result.data)[IPv6].dst == CLIENT6
    assert Ether(result.data)[TCP].flags.R
    reason = "giving_back" if flags == "S" else "unknown_flow"
    assert node6.reasons() == {f"handback_{reason}": 1}


def test_flow_is_listed_with_its_client(node6: Node, web: Service) -> None:
    node6.nic_ip6(syn6())
    (flow,) = list_flows(node6.module, lambda _: Named())
    assert (flow.client, flow.frontend) == (f"[{CLIENT6}]:4000", ENTRY)


def test_without_its_other_half_the_border_drops(node6: Node, web: Service) -> None:
    """The programs that packets are handed over to are not in place."""
    programs = node6.table("programs")
    for index in programs:
        del programs[index]
    assert node6.nic_ip6(syn6()).verdict == TC_SHOT
    assert node6.reasons() == {"drop_rewrite_failed": 1}
