# SPDX-License-Identifier: Apache-2.0
"""SCTP: its checksum under new ports, the life of an association, and its refusal. RFC 9260.

Expected packets carry the checksum that scapy computes over all of them; `crc32c` below is a third
one, bit by bit.
"""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.sctp import (
    SCTP,
    SCTPChunkAbort,
    SCTPChunkCookieAck,
    SCTPChunkData,
    SCTPChunkError,
    SCTPChunkHeartbeatReq,
    SCTPChunkInit,
    SCTPChunkInitAck,
    SCTPChunkShutdown,
    SCTPChunkShutdownAck,
    SCTPChunkShutdownComplete,
)
from scapy.packet import Packet

from ebpfmesh.datapath import crc32c as constants

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    NODE_A,
    NODE_B,
    NODE_B_MAC,
    PUBLISHED,
    TARGET,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    Macs,
    between,
    docker_mac,
    sctp,
    tunnel_port,
    wrapped,
)
from .node import TC_OK, TC_REDIRECT, TC_SHOT, Node, assert_result
from .world import DRAINING, GONE, Service

PROTO_SCTP = 132
SOURCE, ENTRY = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}"
TASK = f"{HERE_GATEWAY}:{TARGET}"
INTO_TASK = (FROM_CLIENT[0], docker_mac(HERE_GATEWAY))
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")
TUNNELLED = (NODE_B_MAC, FROM_CLIENT[1])
ASKING, SERVER = f"{ALICE}:4000", f"{VIP}:80"

INIT = SCTPChunkInit(init_tag=0x12345678)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def checksum_is_right(frame: bytes) -> bool:
    packet = frame[34 : 14 + int.from_bytes(frame[16:18], "big")]
    return crc32c(packet[:8] + bytes(4) + packet[12:]) == int.from_bytes(packet[8:12], "little")


def test_this_is_the_crc_of_the_rfc() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_constants_are_those_of_the_crc() -> None:
    def shifted(value: int, count: int) -> int:
        for _ in range(count):
            value = constants.shifted(value)
        return value

    shifts = constants.shifts(300)
    assert all(shifts[n] == shifted(1 << 31, n) for n in (0, 1, 2, 255, 299))
    words = constants.constants()
    assert len(words) == 65536 + 4 * 256
    zeros = crc32c(bytes(4))
    for place in range(4):
        word = bytes(place) + b"\xa5" + bytes(3 - place)
        assert words[65536 + 256 * (3 - place) + 0xA5] == crc32c(word) ^ zeros


@pytest.fixture
def published(node: Node) -> Service:
    return node.port(PUBLISHED, TARGET, PROTO_SCTP).backends(node.here())


# --- the checksum


@pytest.mark.parametrize("length", [*range(1, 10), 100, 252, 256, 1000, 1428, 1444])
def test_both_ways_to_a_target_port_of_another_number(
    node: Node, published: Service, length: int
) -> None:
    payload = bytes(n * 7 & 0xFF for n in range(length))
    asked = node.nic_ingress(sctp(SOURCE, ENTRY, macs=FROM_CLIENT, payload=payload))
    assert_result(asked, TC_REDIRECT, sctp(SOURCE, TASK, macs=INTO_TASK, payload=payload))
    assert checksum_is_right(asked.data)
    answered = node.gateway_ingress(sctp(TASK, SOURCE, macs=OUT_OF_TASK, payload=payload))
    assert_result(answered, TC_REDIRECT, sctp(ENTRY, SOURCE, macs=OUT_OF_TASK, payload=payload))
    assert checksum_is_right(answered.data)
    assert node.reasons() == {}


def test_longest_packet(node: Node, published: Service) -> None:
    """As long as a program run by BPF_PROG_TEST_RUN may see one, in one page."""
    payload = bytes(n & 0xFF for n in range(3300))
    asked = node.nic_ingress(sctp(SOURCE, ENTRY, macs=FROM_CLIENT, payload=payload))
    assert_result(asked, TC_REDIRECT, sctp(SOURCE, TASK, macs=INTO_TASK, payload=payload))


@pytest.mark.parametrize("target", [1, 255, 256, 8081, 32768, 65535])
def test_every_bit_of_a_port(node: Node, target: int) -> None:
    node.port(PUBLISHED, target, PROTO_SCTP).backends(node.here())
    asked = node.nic_ingress(sctp(SOURCE, ENTRY, macs=FROM_CLIENT))
    assert_result(
        asked, TC_REDIRECT, sctp(SOURCE, f"{HERE_GATEWAY}:{target}", macs=INTO_TASK, ttl=63)
    )


def test_padding_of_ethernet_is_not_part_of_it(node: Node, published: Service) -> None:
    packet = sctp(SOURCE, ENTRY, macs=FROM_CLIENT, payload=b"abcd")
    asked = node.nic_ingress(bytes(packet) + bytes(10))
    expected = bytes(sctp(SOURCE, TASK, macs=INTO_TASK, payload=b"abcd")) + bytes(10)
    assert_result(asked, TC_REDIRECT, expected)


def test_wrong_checksum_stays_wrong(node: Node, published: Service) -> None:
    packet = bytearray(bytes(sctp(SOURCE, ENTRY, macs=FROM_CLIENT)))
    packet[-1] ^= 0x40
    asked = node.nic_ingress(bytes(packet))
    assert asked.verdict == TC_REDIRECT
    assert not checksum_is_right(asked.data)


def test_empty_checksum_stays_empty(node: Node, published: Service) -> None:
    """The card fills it in (offload), or both ends do without."""
    asked = node.nic_ingress(sctp(SOURCE, ENTRY, macs=FROM_CLIENT, checksum=0))
    assert_result(asked, TC_REDIRECT, sctp(SOURCE, TASK, macs=INTO_TASK, checksum=0))


def by_b(chunk: Packet | None = None) -> Packet:
    packet = sctp(SOURCE, f"{NODE_B}:{PUBLISHED}", macs=TUNNELLED, chunk=chunk)
    return wrapped(packet, (NODE_B, NODE_A), (NODE_B, HERE), 0xC001, TUNNELLED)


def test_two_associations_that_meet_at_the_task(node: Node, published: Service) -> None:
    """One client port through two nodes: the later one gets another source port."""
    node.nic_ingress(sctp(SOURCE, ENTRY, macs=FROM_CLIENT))
    moved = node.nic_ingress(by_b())
    port = int(Ether(moved.data)[SCTP].sport)
    assert port != 4000
    at_task = f"{CLIENT}:{port}"
    into = (TUNNELLED[0], docker_mac(HERE_GATEWAY))
    assert_result(moved, TC_REDIRECT, sctp(at_task, TASK, macs=into))
    answered = node.gateway_ingress(sctp(TASK, at_task, macs=OUT_OF_TASK))
    expected = sctp(f"{NODE_B}:{PUBLISHED}", SOURCE)
    assert answered.data[14 + 50 :] == bytes(expected[IP])


def test_answer_through_the_tunnel(node: Node, published: Service) -> None:
    node.nic_ingress(by_b())
    reply = sctp(TASK, SOURCE, macs=OUT_OF_TASK)
    expected = wrapped(
        sctp(f"{NODE_B}:{PUBLISHED}", SOURCE),
        (NODE_A, NODE_B),
        (NODE_A, NODE_B),
        tunnel_port(reply),
        OUT_OF_TASK,
    )
    assert_result(node.gateway_ingress(reply), TC_REDIRECT, expected)


# --- the life of an association, at a VIP and at a published port


@pytest.fixture
def web(node: Node) -> Service:
    service = node.vip(VIP, VNI).backends(WEB_1, WEB_2).choose(WEB_1)
    node.overlay_ingress(sctp(ASKING, SERVER, chunk=INIT, tag=0))
    return service


def arrives_at(node: Node, chunk: Packet | None = None) -> str:
    """The backend that a packet of the client's goes to."""
    return str(Ether(node.overlay_ingress(sctp(ASKING, SERVER, chunk=chunk)).data)[IP].dst)


ENDS = [
    pytest.param(SCTPChunkAbort(), id="abort"),
    pytest.param(SCTPChunkShutdownComplete(), id="shutdown complete"),
    pytest.param(SCTPChunkShutdown(), id="shutdown"),
    pytest.param(SCTPChunkShutdownAck(), id="shutdown ack"),
]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("by_server", [True, False])
def test_init_after_the_end_chooses_anew(
    node: Node, web: Service, end: Packet, by_server: bool
) -> None:
    web.choose(WEB_2)
    if by_server:
        node.overlay_egress(sctp(f"{WEB_1}:80", ASKING, chunk=end))
    else:
        node.overlay_ingress(sctp(ASKING, SERVER, chunk=end))
    assert arrives_at(node) == WEB_1  # what is no INIT is late
    assert arrives_at(node, INIT) == WEB_2
    assert len(node.flows()) == len(node.flows("replies")) == 1


@pytest.mark.parametrize(
    "chunk",
    [INIT, SCTPChunkInitAck(), SCTPChunkData(data=b"x"), SCTPChunkHeartbeatReq()],
    ids=["init", "init ack", "data", "heartbeat"],
)
def test_living_association_keeps_its_backend(node: Node, web: Service, chunk: Packet) -> None:
    web.choose(WEB_2)
    assert arrives_at(node, chunk) == WEB_1


def test_chunk_types_above_fifteen_end_nothing(node: Node, web: Service) -> None:
    """Their low bits are those of INIT, ABORT and others."""
    web.choose(WEB_2)
    for kind in range(16, 256):
        packet = bytearray(bytes(sctp(ASKING, SERVER)))
        packet[46] = kind
        assert node.overlay_ingress(bytes(packet)).verdict == TC_OK
    assert arrives_at(node, INIT) == WEB_1


def test_draining_backend_keeps_it_and_gets_no_init(node: Node, web: Service) -> None:
    web.choose(WEB_2).state(WEB_1, DRAINING)
    assert arrives_at(node) == WEB_1
    assert arrives_at(node, INIT) == WEB_2


def test_ended_association_gives_its_port_up(node: Node, web: Service) -> None:
    node.vip("10.0.1.22", VNI).backends(WEB_1)
    node.overlay_ingress(sctp(ASKING, SERVER, chunk=SCTPChunkAbort()))
    result = node.overlay_ingress(sctp(ASKING, "10.0.1.22:80", chunk=INIT))
    assert int(Ether(result.data)[SCTP].sport) == 4000


def test_published_port_chooses_anew_after_the_end(node: Node, published: Service) -> None:
    node.nic_ingress(sctp(SOURCE, ENTRY, macs=FROM_CLIENT, chunk=INIT))
    published.backends(node.here_too()).choose("10.0.0.8")
    late = node.nic_ingress(sctp(SOURCE, ENTRY, macs=FROM_CLIENT, chunk=SCTPChunkAbort()))
    assert Ether(late.data)[IP].dst == HERE_GATEWAY
    again = node.nic_ingress(sctp(SOURCE, ENTRY, macs=FROM_CLIENT, chunk=INIT))
    assert Ether(again.data)[IP].dst == "172.18.0.8"


# --- nobody is there


def refusal(source: str, destination: str, macs: Macs, chunk: Packet, tag: int) -> Packet:
    packet = sctp(source, destination, macs=macs, chunk=chunk, tag=tag, id=0, ttl=64)
    packet[IP].flags = "DF"
    return packet


ANSWERS = [
    pytest.param(INIT, 0, SCTPChunkAbort(), INIT.init_tag, id="init"),
    pytest.param(INIT, 9, SCTPChunkAbort(TCB=1), 9, id="init with a tag"),
    pytest.param(SCTPChunkData(data=b"hello"), 7, SCTPChunkAbort(TCB=1), 7, id="data"),
    pytest.param(SCTPChunkHeartbeatReq(), 7, SCTPChunkAbort(TCB=1), 7, id="heartbeat"),
    pytest.param(SCTPChunkShutdownAck(), 7, SCTPChunkShutdownComplete(TCB=1), 7, id="shutdown ack"),
]


@pytest.mark.parametrize(("chunk", "tag", "answer", "answered_tag"), ANSWERS)
def test_vip_without_backends_refuses(
    node: Node, chunk: Packet, tag: int, answer: Packet, answered_tag: int
) -> None:
    node.vip(VIP, VNI)
    result = node.overlay_ingress(sctp(ASKING, SERVER, chunk=chunk, tag=tag))
    expected = refusal(SERVER, ASKING, between(VIP, ALICE), answer, answered_tag)
    assert_result(result, TC_REDIRECT, expected)
    assert checksum_is_right(result.data)
    assert node.reasons() == {"drop_no_backend": 1}
    assert node.flows() == {}


@pytest.mark.parametrize(("chunk", "tag", "answer", "answered_tag"), ANSWERS)
def test_published_port_without_backends_refuses(
    node: Node, chunk: Packet, tag: int, answer: Packet, answered_tag: int
) -> None:
    node.port(PUBLISHED, TARGET, PROTO_SCTP)
    result = node.nic_ingress(sctp(SOURCE, ENTRY, macs=FROM_CLIENT, chunk=chunk, tag=tag))
    back = (FROM_CLIENT[1], FROM_CLIENT[0])
    assert_result(result, TC_REDIRECT, refusal(ENTRY, SOURCE, back, answer, answered_tag))


def test_refusal_leaves_the_checksum_to_the_card_too(node: Node) -> None:
    node.vip(VIP, VNI)
    result = node.overlay_ingress(sctp(ASKING, SERVER, chunk=INIT, tag=0, checksum=0))
    answer = SCTPChunkAbort()
    expected = refusal(SERVER, ASKING, between(VIP, ALICE), answer, INIT.init_tag)
    expected[SCTP].chksum = 0
    assert_result(result, TC_REDIRECT, expected)


@pytest.mark.parametrize(
    "chunk",
    [SCTPChunkAbort(), SCTPChunkShutdownComplete(), SCTPChunkCookieAck(), SCTPChunkError()],
    ids=["abort", "shutdown complete", "cookie ack", "error"],
)
def test_what_must_not_be_answered_is_dropped(node: Node, chunk: Packet) -> None:
    node.vip(VIP, VNI)
    assert node.overlay_ingress(sctp(ASKING, SERVER, chunk=chunk)).verdict == TC_SHOT
    assert node.reasons() == {"drop_no_backend": 1}


def test_association_is_aborted_when_its_backend_has_gone(node: Node, web: Service) -> None:
    web.state(WEB_1, GONE).choose(WEB_2)
    result = node.overlay_ingress(sctp(ASKING, SERVER))
    expected = refusal(SERVER, ASKING, between(VIP, ALICE), SCTPChunkAbort(TCB=1), 7)
    assert_result(result, TC_REDIRECT, expected)
    assert node.reasons() == {"drop_backend_gone": 1}
    assert arrives_at(node, INIT) == WEB_2


def test_task_that_has_gone_is_refused_through_the_tunnel(node: Node, published: Service) -> None:
    published.state(HERE, GONE)
    result = node.nic_ingress(by_b(INIT))
    assert (result.verdict, Ether(result.data)[UDP].dport) == (TC_REDIRECT, 4789)
    expected = refusal(f"{NODE_B}:{PUBLISHED}", SOURCE, TUNNELLED, SCTPChunkAbort(TCB=1), 7)
    assert result.data[14 + 50 :] == bytes(expected[IP])


def test_error_about_an_association_names_the_clients_ports(node: Node, published: Service) -> None:
    node.nic_ingress(sctp(SOURCE, ENTRY, macs=FROM_CLIENT))
    about = IP(bytes(sctp(SOURCE, TASK)[IP])[:28])
    error = Ether(src=OUT_OF_TASK[0], dst=OUT_OF_TASK[1]) / IP(src=HERE_GATEWAY, dst=CLIENT)
    result = node.gateway_ingress(error / ICMP(type=3, code=2) / about)
    assert result.verdict == TC_REDIRECT
    found = Ether(result.data)
    assert found[IP].src == NODE_A
    assert bytes(found[ICMP].payload)[12:24] == bytes(sctp(SOURCE, ENTRY)[IP])[12:24]


@pytest.mark.parametrize("length", range(34, 50))
def test_less_than_a_chunk_is_left_alone(node: Node, published: Service, length: int) -> None:
    part = bytes(sctp(SOURCE, ENTRY, macs=FROM_CLIENT))[:length]
    assert node.nic_ingress(part).data == part
    assert node.flows() == node.flows("entries") == {}
