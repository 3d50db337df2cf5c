# SPDX-License-Identifier: Apache-2.0
"""IPv4 fragments: the later ones, which have no ports, go the way of the first."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from .net import (
    ALICE,
    CLIENT,
    CLIENT_MAC,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    HERE_TOO_GATEWAY,
    NODE_A,
    NODE_A_MAC,
    NODE_B,
    NODE_B_MAC,
    OTHER_VNI,
    PUBLISHED,
    TARGET,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    Macs,
    between,
    docker_mac,
    fragments,
    put_together,
    sctp,
    tcp,
    tunnel_port,
    udp,
    wrapped,
)
from .node import (
    TC_OK,
    TC_REDIRECT,
    TC_SHOT,
    TC_UNSPEC,
    XDP_DROP,
    XDP_PASS,
    XDP_TX,
    Node,
    assert_result,
)
from .prog_run import Result
from .world import GONE, Counter, Service, remote

Run = Callable[[Packet], Result]
MakePacket = Callable[..., Packet]

CONTENT = bytes(range(251)) * 33  # 8 kB, and no two pieces of it alike
ASKS, SERVER = f"{ALICE}:4000", f"{VIP}:80"
WEB = f"{WEB_1}:80"

SOURCE, ENTRY, TASK = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}", f"{HERE_GATEWAY}:{TARGET}"
BRIDGE_MAC = "02:42:00:00:00:01"
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), BRIDGE_MAC)
NEIGHBOUR = f"{HERE_TOO_GATEWAY}:4000"
FROM_NEIGHBOUR = (docker_mac(HERE_TOO_GATEWAY), BRIDGE_MAC)
ROOM = 1424  # payload of a fragment that fits the tunnel

# The first fragment comes first; the later ones in any order.
ORDERS = [
    pytest.param(lambda pieces: pieces, id="in order"),
    pytest.param(lambda pieces: [pieces[0], *reversed(pieces[1:])], id="the last one second"),
]
Order = Callable[[list[Packet]], list[Packet]]


def big(source: str, destination: str, **fields: object) -> Packet:
    return udp(source, destination, payload=CONTENT, id=7, **fields)  # type: ignore[arg-type]


def assert_translated(
    run: Run, sent: list[Packet], verdict: int, expected: list[Packet]
) -> list[bytes]:
    results = [run(piece) for piece in sent]
    for result, piece in zip(results, expected, strict=True):
        assert_result(result, verdict, piece)
    return [result.data for result in results]


def assert_whole(frames: list[bytes], source: str, destination: str) -> None:
    """A host that gets these has the datagram, and accepts its checksum."""
    whole = put_together(frames)
    assert f"{whole.src}:{whole[UDP].sport}" == source
    assert f"{whole.dst}:{whole[UDP].dport}" == destination
    assert bytes(whole[UDP].payload) == CONTENT
    claimed = whole[UDP].chksum
    del whole[UDP].chksum
    assert IP(bytes(whole))[UDP].chksum == claimed


# --- VIP


@pytest.fixture
def web(node: Node) -> Service:
    return node.vip(VIP, VNI).backends(WEB_1)


@pytest.mark.parametrize("order", ORDERS)
def test_question_and_answer_through_a_vip(node: Node, web: Service, order: Order) -> None:
    asked, wanted = order(fragments(big(ASKS, SERVER))), order(fragments(big(ASKS, WEB)))
    frames = assert_translated(node.overlay_ingress, asked, TC_OK, wanted)
    assert_whole(frames, ASKS, WEB)
    back = between(WEB_1, ALICE)
    answer = order(fragments(big(WEB, ASKS, macs=back)))
    wanted = order(fragments(big(SERVER, ASKS, macs=back)))
    frames = assert_translated(node.overlay_egress, answer, TC_OK, wanted)
    assert_whole(frames, SERVER, ASKS)
    assert node.reasons() == {}


def test_each_fragment_counts(node: Node, web: Service) -> None:
    pieces = fragments(big(ASKS, SERVER))
    for piece in pieces:
        node.overlay_ingress(piece)
    size = sum(len(piece) - 14 for piece in pieces)
    assert node.counter("frontend", web.frontend) == Counter((len(pieces), size), (0, 0), 1)


def test_task_that_asks_itself(node: Node, web: Service) -> None:
    own = f"{WEB_1}:4000"
    back = docker_mac(WEB_1), docker_mac(WEB_1)
    wanted = fragments(big(f"{VIP}:4000", WEB, macs=back))
    assert_translated(node.overlay_ingress, fragments(big(own, SERVER)), TC_REDIRECT, wanted)
    answer = fragments(big(WEB, f"{VIP}:4000"))
    wanted = fragments(big(SERVER, own, macs=back))
    assert_translated(node.overlay_ingress, answer, TC_REDIRECT, wanted)


@pytest.mark.parametrize("checksum", [0, None])
def test_checksum_of_the_first(node: Node, web: Service, checksum: int | None) -> None:
    asked = fragments(big(ASKS, SERVER, checksum=checksum))
    wanted = fragments(big(ASKS, WEB, checksum=checksum))
    assert_translated(node.overlay_ingress, asked, TC_OK, wanted)


@pytest.mark.parametrize("make", [tcp, sctp])
def test_other_protocols(node: Node, web: Service, make: MakePacket) -> None:
    asked = fragments(make(ASKS, SERVER, payload=CONTENT, id=7))
    wanted = fragments(make(ASKS, WEB, payload=CONTENT, id=7))
    assert_translated(node.overlay_ingress, asked, TC_OK, wanted)


def test_last_fragment_of_one_byte(node: Node, web: Service) -> None:
    def cut(packet: Packet) -> list[Packet]:
        return fragments(packet, 1480)

    asked = cut(udp(ASKS, SERVER, payload=bytes(1473), id=7))
    assert len(asked[1]) == 14 + 20 + 1
    wanted = cut(udp(ASKS, WEB, payload=bytes(1473), id=7))
    assert_translated(node.overlay_ingress, asked, TC_OK, wanted)


@pytest.fixture
def two(node: Node) -> dict[str, str]:
    """Backend -> an address and port of the client that it is chosen for."""
    node.vip(VIP, VNI).backends(WEB_1, WEB_2)
    sources: dict[str, str] = {}
    for port in range(4000, 4100):
        chosen = Ether(node.overlay_ingress(udp(f"{ALICE}:{port}", SERVER)).data)[IP].dst
        sources.setdefault(chosen, f"{ALICE}:{port}")
    return sources


def pieces_to(node: Node, source: str, ident: int) -> list[Packet]:
    return fragments(udp(source, SERVER, payload=CONTENT, id=ident))


def taken_by(node: Node, piece: Packet) -> str:
    return str(Ether(node.overlay_ingress(piece).data)[IP].dst)


def test_datagrams_that_come_mixed(node: Node, two: dict[str, str]) -> None:
    one, other = pieces_to(node, two[WEB_1], 7), pieces_to(node, two[WEB_2], 8)
    taken = [(taken_by(node, a), taken_by(node, b)) for a, b in zip(one, other, strict=True)]
    assert taken == [(WEB_1, WEB_2)] * len(one)


def test_id_that_is_used_again(node: Node, two: dict[str, str]) -> None:
    for backend in (WEB_1, WEB_2, WEB_1):
        assert {taken_by(node, piece) for piece in pieces_to(node, two[backend], 7)} == {backend}


def assert_handed_back(node: Node, packet: Packet, reason: str, vni: int = VNI) -> None:
    assert_result(node.overlay_ingress(packet, vni), TC_UNSPEC, packet)
    assert node.reasons() == {f"handback_{reason}": 1}


def test_first_one_that_is_not_known(node: Node, web: Service) -> None:
    assert_handed_back(node, fragments(big(ASKS, SERVER))[1], "fragment")


def test_first_one_that_is_too_old(node: Node, web: Service) -> None:
    first, later, *_ = fragments(big(ASKS, SERVER))
    node.overlay_ingress(first)
    node.age("fragments", 29)
    assert node.overlay_ingress(later).verdict == TC_OK
    node.age("fragments", 2)
    assert_handed_back(node, later, "fragment")


@pytest.mark.parametrize(
    ("fields", "vni"),
    [
        pytest.param({"id": 8}, VNI, id="id"),
        pytest.param({"src": WEB_2}, VNI, id="source"),
        pytest.param({"dst": "10.0.1.99"}, VNI, id="destination"),
        pytest.param({"proto": 132}, VNI, id="protocol"),
        pytest.param({}, OTHER_VNI, id="network"),
    ],
)
def test_first_one_of_another_datagram(
    node: Node, web: Service, fields: dict[str, object], vni: int
) -> None:
    node.vip(VIP, OTHER_VNI).backends(WEB_2)
    first, later, *_ = fragments(big(ASKS, SERVER))
    node.overlay_ingress(first)
    for name, value in fields.items():
        setattr(later[IP], name, value)
    assert_handed_back(node, Ether(bytes(later)), "fragment", vni)


def moved(packet: Packet, offset: int) -> Packet:
    packet[IP].frag = offset
    return packet


BAD = [
    pytest.param(tcp, 1, id="over the flags of TCP"),
    pytest.param(tcp, 2, id="over the checksum of TCP"),
    pytest.param(udp, 8191, id="beyond the longest packet"),
]


@pytest.mark.parametrize(("make", "offset"), BAD)
def test_fragment_that_nobody_sends(
    node: Node, web: Service, make: MakePacket, offset: int
) -> None:
    first, later, *_ = fragments(make(ASKS, SERVER, payload=CONTENT, id=7))
    node.overlay_ingress(first)
    assert_handed_back(node, moved(later, offset), "bad_fragment")


@pytest.mark.parametrize(("make", "size"), [(udp, 8), (tcp, 16)])
def test_first_one_too_short_for_its_ports_or_flags(
    node: Node, web: Service, make: MakePacket, size: int
) -> None:
    first, later, *_ = fragments(make(ASKS, SERVER, payload=CONTENT, id=7), size)
    if make is udp:
        first[IP].remove_payload()
        first[IP].proto = 17
        first /= b"\x0f\xa0\x00\x50"
    packet = Ether(bytes(first))
    assert_result(node.overlay_ingress(packet), TC_UNSPEC, packet)
    assert node.reasons() == {"handback_truncated": 1}
    assert node.overlay_ingress(later).verdict == TC_UNSPEC
    assert node.flows() == {}


def test_nothing_is_noted_of_what_is_not_translated(node: Node, web: Service) -> None:
    for piece in fragments(big(ASKS, "10.0.1.99:80")):
        assert_result(node.overlay_ingress(piece), TC_UNSPEC, piece)
    assert len(node.table("fragments")) == 0


def test_only_the_first_is_refused(node: Node, web: Service) -> None:
    web.choose()
    first, later, *_ = fragments(big(ASKS, SERVER))
    result = node.overlay_ingress(first)
    quoted = IP(bytes(first[IP])[:28])
    back = docker_mac(VIP), docker_mac(ALICE)
    answer = IP(src=VIP, dst=ALICE, id=0, flags="DF", ttl=64) / ICMP(type=3, code=3) / quoted
    assert_result(result, TC_REDIRECT, Ether(src=back[0], dst=back[1]) / answer)
    assert_result(node.overlay_ingress(later), TC_UNSPEC, later)


def test_later_one_is_not_refused(node: Node, web: Service) -> None:
    first, later, *_ = fragments(big(ASKS, SERVER))
    node.overlay_ingress(first)
    web.choose().state(WEB_1, GONE)
    assert node.overlay_ingress(later).verdict == TC_SHOT
    assert node.reasons() == {"drop_no_backend": 1}


# --- published ports


@pytest.fixture
def here(node: Node) -> Service:
    return node.port(PUBLISHED, TARGET, 17).backends(node.here())


def question(to: str = ENTRY, macs: Macs = FROM_CLIENT, size: int = ROOM) -> list[Packet]:
    return fragments(big(SOURCE, to, macs=macs), size)


def test_xdp_leaves_fragments_to_tc(node: Node) -> None:
    """It would send later ones on before the first, which tc may have to split."""
    node.port(PUBLISHED, TARGET, 17).backends(remote(HERE))
    for piece in question():
        assert_result(node.nic_xdp(piece), XDP_PASS, piece)
    assert node.flows("entries") == {}


def test_task_of_the_node_that_is_asked(node: Node, here: Service) -> None:
    into = (CLIENT_MAC, docker_mac(HERE_GATEWAY))
    wanted = fragments(big(SOURCE, TASK, macs=into))
    assert_translated(node.nic_ingress, question(size=1480), TC_REDIRECT, wanted)
    answer = fragments(big(TASK, SOURCE, macs=OUT_OF_TASK))
    wanted = fragments(big(ENTRY, SOURCE, macs=OUT_OF_TASK))
    frames = assert_translated(node.gateway_ingress, answer, TC_REDIRECT, wanted)
    assert_whole(frames, ENTRY, SOURCE)


@pytest.mark.parametrize("order", ORDERS)
def test_question_and_answer_through_the_tunnel(node: Node, node_b: Node, order: Order) -> None:
    node.port(PUBLISHED, TARGET, 17).backends(remote(HERE))
    node_b.port(PUBLISHED, TARGET, 17).backends(node_b.here())
    port = tunnel_port(big(SOURCE, ENTRY))

    # A, asked, wraps; B unwraps in XDP, or tc does both; the task gets it.
    sent = order(question())
    wire = [
        wrapped(piece, (NODE_A, NODE_B), (NODE_A, HERE), port, (CLIENT_MAC, NODE_A_MAC))
        for piece in sent
    ]
    assert_translated(node.nic_ingress, sent, TC_REDIRECT, wire)
    for piece, packet in zip(sent, wire, strict=True):
        inner = piece.copy()
        inner[Ether].src, inner[Ether].dst = CLIENT_MAC, NODE_A_MAC
        assert_result(node_b.nic_xdp(packet), XDP_PASS, inner)
    into = (CLIENT_MAC, docker_mac(HERE_GATEWAY))
    wanted = order(fragments(big(SOURCE, TASK, macs=into), ROOM))
    frames = assert_translated(node_b.nic_ingress, wire, TC_REDIRECT, wanted)
    assert_whole(frames, SOURCE, TASK)

    # The task answers; B wraps; A unwraps, in XDP or in tc, and knows nothing of ports.
    answers = order(fragments(big(TASK, SOURCE, macs=OUT_OF_TASK), ROOM))
    asked = order(fragments(big(ENTRY, SOURCE, macs=OUT_OF_TASK), ROOM))
    port = tunnel_port(big(TASK, SOURCE))
    wire = [wrapped(p, (NODE_B, NODE_A), (NODE_B, NODE_A), port, OUT_OF_TASK) for p in asked]
    assert_translated(node_b.gateway_ingress, answers, TC_REDIRECT, wire)
    out = order(fragments(big(ENTRY, SOURCE, macs=(NODE_A_MAC, CLIENT_MAC)), ROOM))
    frames = assert_translated(node.nic_xdp, wire, XDP_TX, out)
    assert_whole(frames, ENTRY, SOURCE)
    assert_translated(node.nic_ingress, wire, TC_REDIRECT, asked)
    assert node.reasons() == node_b.reasons() == {}


def test_answer_goes_straight_to_the_client(node_dsr: Node) -> None:
    node_dsr.port(PUBLISHED, TARGET, 17).backends(node_dsr.here())
    for piece in question():
        node_dsr.nic_ingress(
            wrapped(piece, (NODE_A, NODE_B), (NODE_A, HERE), 0xC001, (NODE_A_MAC, NODE_B_MAC))
        )
    answer = fragments(big(TASK, SOURCE, macs=OUT_OF_TASK))
    wanted = fragments(big(ENTRY, SOURCE, macs=OUT_OF_TASK))
    assert_translated(node_dsr.gateway_ingress, answer, TC_REDIRECT, wanted)


def through_tunnel(piece: Packet) -> Packet:
    return wrapped(piece, (NODE_A, NODE_B), (NODE_A, HERE), 0xC001, (NODE_A_MAC, NODE_B_MAC))


def test_unknown_one_out_of_the_tunnel_is_dropped(node_b: Node) -> None:
    """The kernel would send it to the node that it was meant for, and so round and round."""
    node_b.port(PUBLISHED, TARGET, 17).backends(node_b.here())
    assert node_b.nic_ingress(through_tunnel(question()[1])).verdict == TC_SHOT
    assert node_b.reasons() == {"drop_fragment": 1}


@pytest.mark.parametrize(("make", "offset"), BAD)
def test_bad_one_out_of_the_tunnel_is_dropped(node_b: Node, make: MakePacket, offset: int) -> None:
    node_b.port(PUBLISHED, TARGET, 17).backends(node_b.here())
    later = fragments(make(SOURCE, ENTRY, payload=CONTENT, id=7), ROOM)[1]
    packet = through_tunnel(moved(later, offset))
    assert node_b.nic_xdp(packet).verdict == XDP_DROP
    assert node_b.nic_ingress(packet).verdict == TC_SHOT
    assert node_b.reasons() == {"drop_bad_inner": 2}


def test_container_asks_a_task_of_its_node(node: Node, here: Service) -> None:
    asked = fragments(big(NEIGHBOUR, ENTRY, macs=FROM_NEIGHBOUR))
    wanted = fragments(big(NEIGHBOUR, TASK, macs=(FROM_NEIGHBOUR[0], docker_mac(HERE_GATEWAY))))
    assert_translated(lambda p: node.gateway_ingress(p, "gw1"), asked, TC_REDIRECT, wanted)
    answer = fragments(big(TASK, NEIGHBOUR, macs=OUT_OF_TASK))
    wanted = fragments(big(ENTRY, NEIGHBOUR, macs=(OUT_OF_TASK[0], FROM_NEIGHBOUR[0])))
    assert_translated(node.gateway_ingress, answer, TC_REDIRECT, wanted)


def test_container_asks_a_task_of_another_node(node: Node) -> None:
    node.port(PUBLISHED, TARGET, 17).backends(remote(HERE))
    elsewhere = f"{NODE_B}:{PUBLISHED}"
    asked = fragments(big(NEIGHBOUR, ENTRY, macs=FROM_NEIGHBOUR))
    wanted = fragments(big(NEIGHBOUR, elsewhere, macs=FROM_NEIGHBOUR))
    assert_translated(lambda p: node.gateway_ingress(p, "gw1"), asked, TC_OK, wanted)
    back = (BRIDGE_MAC, FROM_NEIGHBOUR[0])
    answer = fragments(big(elsewhere, NEIGHBOUR, macs=back))
    wanted = fragments(big(ENTRY, NEIGHBOUR, macs=back))
    assert_translated(lambda p: node.gateway_egress(p, "gw1"), answer, TC_OK, wanted)


def test_tcp_segment_in_fragments(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(node.here())
    asked = fragments(tcp(SOURCE, ENTRY, macs=FROM_CLIENT, payload=CONTENT, id=7))
    into = (CLIENT_MAC, docker_mac(HERE_GATEWAY))
    wanted = fragments(tcp(SOURCE, TASK, macs=into, payload=CONTENT, id=7))
    frames = assert_translated(node.nic_ingress, asked, TC_REDIRECT, wanted)
    assert put_together(frames)[TCP].dport == TARGET


def test_sctp_under_another_port_is_dropped(node: Node) -> None:
    """Its checksum, of all that it brings, could not follow the port: not all of it is here."""
    node.port(PUBLISHED, TARGET, 132).backends(node.here())
    for piece in fragments(sctp(SOURCE, ENTRY, macs=FROM_CLIENT, payload=CONTENT, id=7))[:2]:
        assert node.nic_ingress(piece).verdict == TC_SHOT
    assert node.reasons() == {"drop_rewrite_failed": 2}
