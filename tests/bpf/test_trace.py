# SPDX-License-Identifier: Apache-2.0
"""What the programs tell who listens: flows that begin, and every reason, with its packet."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ebpfmesh import frame
from ebpfmesh.agent.naming import Naming
from ebpfmesh.agent.tracer import Listener, Tracer
from ebpfmesh.datapath.events import Event, Ring
from ebpfmesh.datapath.loader import Module
from ebpfmesh.model import MeshState
from ebpfmesh.takeover import Mode
from ebpfmesh.tracing import Path as Way
from ebpfmesh.tracing import Told, Watch

from .net import (
    ALICE,
    CLIENT,
    CLIENT6,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    NODE_A,
    NODE_A6,
    NODE_A_MAC,
    NODE_B,
    NODE_B_MAC,
    PUBLISHED,
    STRANGER,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    arp_request,
    tcp,
    tcp6,
    udp,
    wrapped,
)
from .node import TC_OK, TC_REDIRECT, TC_SHOT, TC_UNSPEC, XDP_DROP, XDP_PASS, XDP_TX, Node
from .sandbox import ifindex
from .sockets import Processes
from .world import DRAINING, GONE, Service, remote

ALL = (1 << 64) - 1
ASKING, SERVER = f"{ALICE}:4000", f"{VIP}:80"
SOURCE, ENTRY = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}"
INTO_B = (NODE_A_MAC, NODE_B_MAC)
ROOM = 256 * 1024 // (176 + 8)  # events, each with its header
WAYS = list(Way)


@pytest.fixture
def ring(node: Node) -> Iterator[Ring]:
    ring = Ring(node.module)
    ring.want(ALL, 60)
    yield ring
    ring.close()


@pytest.fixture
def ring_b(node_b: Node) -> Iterator[Ring]:
    ring = Ring(node_b.module)
    ring.want(ALL, 60)
    yield ring
    ring.close()


@pytest.fixture
def web(node: Node) -> Service:
    return node.vip(VIP, VNI).backends(WEB_1, WEB_2)


def told(ring: Ring, node: Node) -> list[tuple[str, str, Event]]:
    """What has happened, by kind or way, and by reason."""
    found = []
    for event in ring.read(1000):
        kind, reason = node.module.reasons.get(event.what, ("", ""))
        found.append((kind or str(WAYS[event.path]), reason, event))
    return found


def the_only(ring: Ring, node: Node) -> tuple[str, str, Event]:
    (one,) = told(ring, node)
    return one


def ends(event: Event) -> tuple[str, str]:
    """From the packet as it was read, or from its first bytes."""
    seen = frame.read(event.head) if event.head else event
    return (
        frame.end(seen.source, seen.source_port),
        frame.end(seen.destination, seen.destination_port),
    )


# --- flows


def test_flow_on_a_vip(node: Node, web: Service, ring: Ring) -> None:
    before = time.monotonic_ns()
    asked = node.overlay_ingress(tcp(ASKING, SERVER))
    way, reason, event = the_only(ring, node)
    assert (way, reason, event.program, event.vni) == ("vip", "", "overlay_ingress", VNI)
    assert ends(event) == (ASKING, SERVER)
    assert web.ids[Ether(asked.data)[IP].dst] == event.backend
    assert (event.protocol, event.tcp_flags, event.length) == (6, 2, 40)
    assert before <= event.time_ns <= time.monotonic_ns()


def test_flow_to_a_task_of_this_node(node: Node, ring: Ring) -> None:
    web = node.port(PUBLISHED, TARGET).backends(node.here())
    assert node.nic_xdp(tcp(SOURCE, ENTRY, macs=FROM_CLIENT)).verdict == XDP_PASS
    assert told(ring, node) == []
    assert node.nic_ingress(tcp(SOURCE, ENTRY, macs=FROM_CLIENT)).verdict == TC_REDIRECT
    way, _, event = the_only(ring, node)
    assert (way, event.program, event.vni) == ("local", "nic_ingress", 0)
    assert (ends(event), event.backend, event.entry) == ((SOURCE, ENTRY), web.ids[HERE], "")


def test_flow_to_another_node(node: Node, ring: Ring) -> None:
    web = node.port(PUBLISHED, TARGET).backends(remote(THERE))
    node.nic_ingress(tcp(SOURCE, ENTRY, macs=FROM_CLIENT))
    way, _, event = the_only(ring, node)
    assert (way, event.program) == ("wrapped", "nic_ingress")
    assert (ends(event), event.backend) == ((SOURCE, ENTRY), web.ids[THERE])


def test_flow_to_another_node_by_xdp(node: Node, ring: Ring) -> None:
    node.port(PUBLISHED, TARGET).backends(remote(THERE))
    assert node.nic_xdp(tcp(SOURCE, ENTRY, macs=FROM_CLIENT)).verdict == XDP_TX
    way, _, event = the_only(ring, node)
    assert (way, event.program, ends(event)) == ("wrapped", "nic_xdp", (SOURCE, ENTRY))


def from_tunnel(to: str = HERE) -> Packet:
    """As node A sends it to node B."""
    asked = tcp(SOURCE, ENTRY)
    return wrapped(asked, (NODE_A, NODE_B), (NODE_A, to), 0xC001, INTO_B)


def test_flow_out_of_the_tunnel(node_b: Node, ring_b: Ring) -> None:
    web = node_b.port(PUBLISHED, TARGET).backends(node_b.here())
    assert node_b.nic_ingress(from_tunnel()).verdict == TC_REDIRECT
    way, _, event = the_only(ring_b, node_b)
    assert (way, event.entry, event.backend) == ("mesh", NODE_A, web.ids[HERE])
    assert ends(event) == (SOURCE, ENTRY)


def test_flow_of_an_ipv6_client(node: Node, ring: Ring) -> None:
    node.addresses(NODE_A6)
    node.port(PUBLISHED, TARGET).backends(node.here())
    assert node.nic_filters(tcp6((CLIENT6, 4000), (NODE_A6, PUBLISHED))).verdict == TC_REDIRECT
    way, _, event = the_only(ring, node)
    assert (way, event.source, event.source_port) == ("local", CLIENT6, 4000)


def test_what_goes_on_is_not_told(node: Node, web: Service, ring: Ring) -> None:
    """All is wanted; a packet of a flow that is known says nothing, in either direction."""
    asked = node.overlay_ingress(tcp(ASKING, SERVER))
    task = str(Ether(asked.data)[IP].dst)
    assert len(told(ring, node)) == 1
    for flags in ("A", "PA", "FA"):
        assert node.overlay_egress(tcp(f"{task}:80", ASKING, flags)).verdict == TC_OK
        assert node.overlay_ingress(tcp(ASKING, SERVER, flags)).verdict == TC_OK
    assert told(ring, node) == []


# --- drops and what is handed back


def test_drop_with_its_packet(node: Node, web: Service, ring: Ring) -> None:
    forged = tcp(f"{STRANGER}:4000", SERVER)
    node.endpoint(ALICE, VNI, ifindex("gw0"))
    assert node.overlay_ingress(forged).verdict == TC_SHOT
    kind, reason, event = the_only(ring, node)
    assert (kind, reason, event.program, event.vni) == (
        *("drop", "spoofed_source", "overlay_ingress"),
        VNI,
    )
    assert ends(event) == (f"{STRANGER}:4000", SERVER)
    assert event.head == bytes(forged)


def test_drop_by_xdp(node: Node, ring: Ring) -> None:
    stranger = wrapped(tcp(SOURCE, ENTRY), (STRANGER, NODE_A), (NODE_B, HERE), 0xC001, INTO_B)
    assert node.nic_xdp(stranger).verdict == XDP_DROP
    kind, reason, event = the_only(ring, node)
    assert (kind, reason, event.program) == ("drop", "bad_outer_source", "nic_xdp")
    seen = frame.read(event.head)
    assert (ends(event), seen.info) == ((SOURCE, ENTRY), f"in the tunnel from {STRANGER}")


def test_refusal_names_who_was_refused(node: Node, ring: Ring) -> None:
    """The packet has become its own answer by then."""
    node.vip(VIP, VNI).backends()
    assert node.overlay_ingress(tcp(ASKING, SERVER)).verdict == TC_REDIRECT
    kind, reason, event = the_only(ring, node)
    assert (kind, reason, ends(event)) == ("drop", "no_backend", (ASKING, SERVER))


def test_refusal_of_a_task_that_has_gone(node_b: Node, ring_b: Ring) -> None:
    node_b.port(PUBLISHED, TARGET).backends(node_b.here()).state(HERE, GONE).choose()
    assert node_b.nic_ingress(from_tunnel()).verdict == TC_REDIRECT
    kind, reason, event = the_only(ring_b, node_b)
    assert (kind, reason, ends(event)) == ("drop", "backend_gone", (SOURCE, ENTRY))


def test_expired_packet(node: Node, ring: Ring) -> None:
    node.port(PUBLISHED, TARGET).backends(node.here())
    assert node.nic_ingress(tcp(SOURCE, ENTRY, macs=FROM_CLIENT, ttl=1)).verdict == TC_REDIRECT
    kind, reason, event = the_only(ring, node)
    assert (kind, reason, ends(event)) == ("drop", "ttl_exceeded", (SOURCE, ENTRY))


def test_answer_without_a_hop_left(node: Node, ring: Ring) -> None:
    node.port(PUBLISHED, TARGET).backends(node.here())
    node.nic_ingress(tcp(SOURCE, ENTRY, macs=FROM_CLIENT))
    told(ring, node)
    answer = tcp(f"{HERE_GATEWAY}:{TARGET}", SOURCE, "SA", ttl=1)
    assert node.gateway_ingress(answer).verdict == TC_REDIRECT
    kind, reason, event = the_only(ring, node)
    assert (kind, reason) == ("drop", "ttl_exceeded")
    assert ends(event) == (f"{HERE_GATEWAY}:{TARGET}", SOURCE)


def test_handback(node: Node, ring: Ring) -> None:
    ping = arp_request(STRANGER, NODE_A)
    assert node.nic_ingress(ping).verdict == TC_UNSPEC
    kind, reason, event = the_only(ring, node)
    assert (kind, reason, event.program) == ("handback", "not_ipv4", "nic_ingress")
    seen = frame.read(event.head)
    assert (seen.protocol, seen.source, seen.info) == ("arp", STRANGER, "who-has")


def test_frame_of_one_byte_less(node: Node, ring: Ring) -> None:
    """Shorter than what is kept of it, and longer."""
    for payload in (b"", b"x" * 1000):
        packet = udp(SOURCE, f"{NODE_A}:9", macs=FROM_CLIENT, payload=payload)
        node.nic_ingress(packet)
        _, reason, event = the_only(ring, node)
        assert (reason, event.length) == ("no_frontend", len(packet))
        assert event.head == bytes(packet)[:120]


def test_answer_that_is_left_alone_is_not_told(node: Node, ring: Ring) -> None:
    """Nothing is counted of it; nor is it taken for what was told before."""
    node.vip(VIP, VNI).backends(WEB_1)
    node.overlay_ingress(tcp(ASKING, f"{WEB_2}:80"))
    assert the_only(ring, node)[1] == "no_frontend"
    assert node.overlay_egress(tcp(f"{WEB_2}:80", ASKING, "SA")).verdict == TC_UNSPEC
    assert told(ring, node) == []


def test_ipv6_client_of_what_is_not_served_now(node: Node, ring: Ring) -> None:
    """Two programs see it, one tells."""
    node.addresses(NODE_A6)
    node.port(PUBLISHED, TARGET).backends()
    node.nic_filters(tcp6((CLIENT6, 4000), (NODE_A6, PUBLISHED)))
    kind, reason, event = the_only(ring, node)
    assert (kind, reason, event.source) == ("drop", "no_backend", CLIENT6)


def test_ipv6_client_of_what_is_given_back(node: Node, ring: Ring) -> None:
    """The kernel knows nobody by that address: the client is refused, and told of."""
    node.addresses(NODE_A6)
    node.port(PUBLISHED, TARGET).backends(node.here())
    node.mode(Mode.GIVING_BACK)
    node.nic_filters(tcp6((CLIENT6, 4000), (NODE_A6, PUBLISHED)))
    kind, reason, event = the_only(ring, node)
    assert (kind, reason, event.program) == ("handback", "giving_back", "nic_ingress")
    assert node.nic_ingress(arp_request(STRANGER, NODE_A)).verdict == TC_UNSPEC
    assert the_only(ring, node)[1] == "not_ipv4"


# --- another backend


def test_retry_names_who_was_silent(node: Node, web: Service, ring: Ring) -> None:
    silent = str(Ether(node.overlay_ingress(tcp(ASKING, SERVER)).data)[IP].dst)
    told(ring, node)
    for name in ("flows", "replies"):
        node.age(name, 1.0)
    other = str(Ether(node.overlay_ingress(tcp(ASKING, SERVER)).data)[IP].dst)
    (kind, reason, retry), (way, _, flow) = told(ring, node)
    assert (kind, reason, way) == ("retry", "no_answer", "vip")
    assert (retry.backend, flow.backend) == (web.ids[silent], web.ids[other])


def test_retry_by_the_entry_node(node: Node, ring: Ring) -> None:
    web = node.port(PUBLISHED, TARGET).backends(remote(THERE), remote("10.0.0.7"))
    node.nic_xdp(tcp(SOURCE, ENTRY, macs=FROM_CLIENT))
    ((_, _, first),) = told(ring, node)
    node.age("entries", 1.0)
    node.nic_xdp(tcp(SOURCE, ENTRY, macs=FROM_CLIENT))
    (kind, reason, retry), (way, _, flow) = told(ring, node)
    assert (kind, reason, way) == ("retry", "no_answer", "wrapped")
    assert (retry.backend, {retry.backend, flow.backend}) == (first.backend, {*web.ids.values()})


def test_second_chance(node_b: Node, ring_b: Ring) -> None:
    web = node_b.port(PUBLISHED, TARGET).backends(node_b.here(), node_b.here_too())
    web.state(HERE, DRAINING).choose("10.0.0.8")
    node_b.nic_ingress(from_tunnel())
    (kind, reason, retry), (way, _, flow) = told(ring_b, node_b)
    assert (kind, reason, way) == ("retry", "second_chance", "mesh")
    assert (retry.backend, flow.backend) == (web.ids[HERE], web.ids["10.0.0.8"])


# --- sockets of the node


def test_flow_of_a_process(sock_module: Module, processes: Processes) -> None:
    node = Node(sock_module)
    node.addresses(NODE_A)
    web = node.port(PUBLISHED, TARGET, 17).backends(remote(THERE))
    ring = Ring(sock_module)
    ring.want(ALL, 60)
    try:
        for address, family in (("127.0.0.1", "AF_INET"), ("::1", "AF_INET6")):
            processes.run(
                f"socket.socket(socket.{family}, socket.SOCK_DGRAM)"
                f".connect(('{address}', {PUBLISHED}))"
            )
            way, _, event = the_only(ring, node)
            assert (way, event.backend, event.protocol) == ("socket", web.ids[THERE], 17)
            assert event.destination == ("127.0.0.1" if family == "AF_INET" else "")
            assert event.destination_port == PUBLISHED
        web.choose()
        processes.run(
            f"socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('{NODE_A}', {PUBLISHED}))"
        )
        way, reason, event = the_only(ring, node)
        assert (way, reason, event.destination) == ("handback", "no_backend", NODE_A)
    finally:
        ring.close()
        node.clear()


# --- what is asked for, and how much


def test_nothing_is_told_unasked(node: Node, web: Service, ring: Ring) -> None:
    for wanted, seconds in ((0, 60.0), (ALL, -1.0)):
        ring.want(wanted, seconds)
        node.overlay_ingress(tcp(ASKING, SERVER))
        node.nic_ingress(arp_request(STRANGER, NODE_A))
        assert told(ring, node) == []
    assert node.reasons() == {"handback_not_ipv4": 2}


def test_only_what_is_asked_for(node: Node, web: Service, ring: Ring) -> None:
    numbers = {name: number for number, name in node.module.reasons.items()}
    for wanted, found in ((1, [""]), (1 << numbers["handback", "not_ipv4"], ["not_ipv4"])):
        ring.want(wanted, 60)
        node.overlay_ingress(tcp(f"{ALICE}:{4000 + wanted % 1000}", SERVER))
        node.nic_ingress(arp_request(STRANGER, NODE_A))
        node.nic_ingress(udp(SOURCE, f"{NODE_A}:9", macs=FROM_CLIENT))
        assert [reason for _, reason, _ in told(ring, node)] == found


def test_the_same_becomes_of_packets(node: Node, web: Service, ring: Ring) -> None:
    """Whether anyone listens or not."""
    packets = [tcp(ASKING, SERVER), tcp(ASKING, SERVER, "A"), udp(ASKING, SERVER)]
    listened_to = [node.overlay_ingress(packet) for packet in packets]
    ring.want(0, 0)
    assert [node.overlay_ingress(packet) for packet in packets] == listened_to


def test_ring_holds_so_many_and_the_rest_is_counted(node: Node, web: Service, ring: Ring) -> None:
    flood = node.overlay_flood(tcp(ASKING, SERVER))
    for source in range(ROOM + 100):
        assert flood(0x0A020000 + source) == TC_OK
    first = ring.read(10)
    assert [event.source for event in first] == [f"10.2.0.{i}" for i in range(10)]
    assert (len(ring.read(10**6)), ring.lost(), ring.lost()) == (ROOM - 10, 100, 0)
    node.overlay_ingress(tcp(ASKING, SERVER))
    assert the_only(ring, node)[2].source == ALICE


def test_who_comes_later_hears_of_later(node: Node, web: Service, ring: Ring) -> None:
    node.overlay_ingress(tcp(ASKING, SERVER))
    other = Ring(node.module)
    try:
        other.want(ALL, 60)
        node.overlay_ingress(tcp(f"{ALICE}:4001", SERVER))
        assert [event.source_port for event in other.read(10)] == [4001]
    finally:
        other.close()


async def test_two_listeners_hear_what_each_has_asked_for(node: Node, web: Service) -> None:
    def naming() -> Naming:
        return Naming(MeshState(), {}, {}, {})

    tracer = Tracer(lambda: Ring(node.module), naming, reasons=node.module.reasons)
    flows, drops = Watch(client="10.0.1.3/32"), Watch(reasons=frozenset({"not_ipv4"}))
    async with tracer.listen(flows) as one, tracer.listen(drops) as two:
        node.overlay_ingress(tcp(ASKING, SERVER))
        node.overlay_ingress(tcp(f"{STRANGER}:9", SERVER))
        node.nic_ingress(arp_request(STRANGER, NODE_A))
        assert [each.source for each in await heard(one)] == [ASKING]
        assert [each.info for each in await heard(two)] == ["who-has"]
    assert tracer._reading is not None
    await tracer._reading
    assert node.table("tracing")[0].wanted == 0


async def heard(listener: Listener) -> list[Told]:
    """The first that comes."""
    while not (told := await listener.take(10)):
        pass
    return told
