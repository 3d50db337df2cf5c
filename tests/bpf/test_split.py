# SPDX-License-Identifier: Apache-2.0
"""What is too big for the tunnel, and may be fragmented, is split: into a first part that goes on
at once, and a marked copy of the packet that comes in again and becomes the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet

from .net import (
    CLIENT,
    CLIENT_MAC,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    NODE_A,
    NODE_B,
    PUBLISHED,
    TARGET,
    docker_mac,
    fragments,
    put_together,
    sctp,
    tcp,
    tunnel_port,
    udp,
    wrapped,
)
from .node import TC_REDIRECT, TC_SHOT, Node, assert_result
from .test_too_big import fragmentation_needed
from .world import Counter, Service, remote

MakePacket = Callable[..., Packet]

SPLIT_MARK = 0xEBF0DA52
ROOM = 1450  # for an IPv4 packet in the tunnel
FIRST = 1424  # of the payload, in the first part

SOURCE, ENTRY, TASK = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}", f"{HERE_GATEWAY}:{TARGET}"
BY_B = f"{NODE_B}:{PUBLISHED}"
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")
CONTENT = bytes(range(251)) * 33


def datagram(length: int, source: str = SOURCE, to: str = ENTRY, **fields: object) -> Packet:
    """A datagram whose IPv4 packet has that length."""
    macs = OUT_OF_TASK if source == TASK else FROM_CLIENT
    return udp(source, to, macs=macs, payload=CONTENT[: length - 28], id=7, **fields)  # type: ignore[arg-type]


@pytest.fixture
def there(node: Node) -> Service:
    return node.port(PUBLISHED, TARGET, 17).backends(remote(HERE))


def to_b(piece: Packet, port: int) -> Packet:
    """As A sends it to B."""
    return wrapped(piece, (NODE_A, NODE_B), (NODE_A, HERE), port, FROM_CLIENT)


def assert_split(node: Node, packet: Packet, port: int | None = None) -> list[bytes]:
    """The two parts of a packet for a published port, as they leave A."""
    port = tunnel_port(packet) if port is None else port
    parts = fragments(packet, FIRST)
    results = [node.nic_ingress(packet), node.nic_ingress(packet, mark=SPLIT_MARK)]
    for result, part in zip(results, parts, strict=True):
        assert_result(result, TC_REDIRECT, to_b(part, port))
    return [result.data for result in results]


@pytest.mark.parametrize("length", [ROOM + 1, 1456, 1473, 1500])
def test_datagram_of_a_client(node: Node, there: Service, length: int) -> None:
    assert_split(node, datagram(length))
    assert node.reasons() == {}


@pytest.mark.parametrize("checksum", [0, 0xFFFF, 1])
def test_finished_checksum_stays(node: Node, there: Service, checksum: int) -> None:
    assert_split(node, datagram(1500, checksum=checksum))


def test_segment_of_a_client(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(remote(HERE))
    assert_split(node, tcp(SOURCE, ENTRY, "A", macs=FROM_CLIENT, payload=CONTENT[:1460], id=7))


def test_fragments_of_a_client(node: Node, node_b: Node, there: Service) -> None:
    """They arrive at the task of node B as one datagram."""
    node_b.port(PUBLISHED, TARGET, 17).backends(node_b.here())
    whole = udp(SOURCE, ENTRY, macs=FROM_CLIENT, payload=CONTENT, id=7)
    *pieces, last = fragments(whole)
    wire = [part for p in pieces for part in assert_split(node, p, tunnel_port(whole))]
    wire.append(node.nic_ingress(last).data)
    arrived = put_together([node_b.nic_ingress(frame).data for frame in wire])
    expected = IP(bytes(udp(SOURCE, TASK, payload=CONTENT, id=7)[IP]))
    assert bytes(arrived[UDP]) == bytes(expected[UDP])
    assert (arrived.src, arrived.dst) == (CLIENT, HERE_GATEWAY)


def test_rest_that_is_too_big_again(node: Node, there: Service) -> None:
    """From a link of jumbo frames."""
    whole = udp(SOURCE, ENTRY, macs=FROM_CLIENT, payload=CONTENT, id=7)
    port = tunnel_port(whole)
    piece = fragments(whole, 3000)[0]
    parts = fragments(piece, FIRST)
    first, second = node.nic_ingress(piece), node.nic_ingress(piece, mark=SPLIT_MARK)
    rest = fragments(piece, FIRST)[1]
    rest[IP].remove_payload()
    rest /= bytes(piece[IP].payload)[FIRST:]
    third = node.nic_ingress(rest, mark=SPLIT_MARK)
    for result, part in zip((first, second, third), parts, strict=True):
        assert_result(result, TC_REDIRECT, to_b(part, port))


@pytest.mark.parametrize("length", [1500, 1497])
def test_answer_of_a_task(node: Node, length: int) -> None:
    node.port(PUBLISHED, TARGET, 17).backends(node.here())
    question = udp(SOURCE, BY_B)
    node.nic_ingress(wrapped(question, (NODE_B, NODE_A), (NODE_B, HERE), 0xC001))
    answer = datagram(length, TASK, SOURCE)
    results = [node.gateway_ingress(answer, "nic1", mark) for mark in (0, SPLIT_MARK)]
    for result, part in zip(results, fragments(datagram(length, BY_B, SOURCE), FIRST), strict=True):
        expected = wrapped(
            part, (NODE_A, NODE_B), (NODE_A, NODE_B), tunnel_port(answer), OUT_OF_TASK
        )
        assert_result(result, TC_REDIRECT, expected)


def test_packet_counts_once(node: Node, there: Service) -> None:
    assert_split(node, datagram(1500))
    assert node.counter("entry", there.frontend) == Counter((1, 1500), (0, 0), 1)


def test_answer_counts_once(node: Node) -> None:
    here = node.port(PUBLISHED, TARGET, 17).backends(node.here())
    node.nic_ingress(wrapped(udp(SOURCE, BY_B), (NODE_B, NODE_A), (NODE_B, HERE), 0xC001))
    for mark in (0, SPLIT_MARK):
        node.gateway_ingress(datagram(1500, TASK, SOURCE), "nic1", mark)
    assert node.counter("frontend", here.frontend).to_client == (1, 1500)


@pytest.mark.parametrize("flags", ["", "DF"])
def test_sctp_is_told(node: Node, flags: str) -> None:
    """Whether its checksum is finished, which a part could not have, cannot be seen."""
    node.port(PUBLISHED, TARGET, 132).backends(remote(HERE))
    packet = sctp(SOURCE, ENTRY, macs=FROM_CLIENT, payload=bytes(1452), flags=flags)
    assert_result(node.nic_ingress(packet), TC_REDIRECT, fragmentation_needed(packet))
    assert node.reasons() == {"drop_too_big": 1}


def test_fragment_of_sctp(node: Node) -> None:
    node.port(PUBLISHED, PUBLISHED, 132).backends(remote(HERE))
    whole = sctp(SOURCE, ENTRY, macs=FROM_CLIENT, payload=bytes(4000), id=7)
    for piece in fragments(whole)[:2]:
        assert_split(node, piece, tunnel_port(whole))


def test_what_was_whole_and_is_far_too_long(node: Node, there: Service) -> None:
    assert node.nic_ingress(datagram(2000)).verdict == TC_SHOT
    assert node.reasons() == {"drop_too_big": 1}


# --- the mark, on what is no copy of ours


def test_mark_on_a_packet_that_fits(node: Node, there: Service) -> None:
    packet = datagram(ROOM)
    expected = to_b(packet, tunnel_port(packet))
    assert_result(node.nic_ingress(packet, mark=SPLIT_MARK), TC_REDIRECT, expected)
    assert node.counter("entry", there.frontend).to_backend == (1, ROOM)


def test_mark_on_a_packet_that_may_not_be_fragmented(node: Node, there: Service) -> None:
    packet = datagram(1500, flags="DF")
    assert node.nic_ingress(packet, mark=SPLIT_MARK) == node.nic_ingress(packet)
    assert node.reasons() == {"drop_too_big": 2}


def test_mark_on_a_packet_for_a_task_of_this_node(node: Node) -> None:
    node.port(PUBLISHED, TARGET, 17).backends(node.here())
    into = (CLIENT_MAC, docker_mac(HERE_GATEWAY))
    expected = udp(SOURCE, TASK, macs=into, payload=CONTENT[:1472], id=7)
    assert_result(node.nic_ingress(datagram(1500), mark=SPLIT_MARK), TC_REDIRECT, expected)
