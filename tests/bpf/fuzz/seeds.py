# SPDX-License-Identifier: Apache-2.0
"""Packets that the programs understand, and a node that has something for each of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import product

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from ..net import (
    ALICE,
    CLIENT,
    CLIENT6,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    HERE_TOO_GATEWAY,
    NODE_A,
    NODE_A6,
    NODE_A_MAC,
    NODE_B,
    NODE_B_MAC,
    NODE_C,
    PUBLISHED,
    SECOND_CHANCE,
    STRANGER,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    arp_reply,
    arp_request,
    docker_mac,
    echo,
    sctp,
    surrogate,
    tcp,
    tcp6,
    udp,
    udp6,
    wrapped,
)
from ..node import Node
from ..world import DRAINING, GONE, READY, Service, remote

# Published ports: tasks here, elsewhere, both, none, and one that has gone.
LOCAL, REMOTE, MIXED, EMPTY, LOST = PUBLISHED, 8081, 8082, 8083, 8084
EMPTY_VIP, OWN_VIP = "10.0.1.22", "10.0.1.23"
PORTS = (LOCAL, REMOTE, MIXED, EMPTY, LOST)
CLIENT_PORTS = (4000, 4001, 4002)
UNDERLAY: tuple[str, str] = (NODE_B_MAC, NODE_A_MAC)
BRIDGE = "02:42:00:00:00:01"
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), BRIDGE)

_PROTOCOLS = (socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_SCTP)


def furnish(node: Node) -> list[Service]:
    """Frontends and backends of every kind; returns the services whose backends may change."""
    changing = []
    for protocol in _PROTOCOLS:
        # An SCTP port that is not its target port may be refused: some are, some are not.
        local = node.port(LOCAL, TARGET, protocol).backends(node.here(), node.here_too())
        node.port(REMOTE, REMOTE, protocol).backends(remote(THERE))
        mixed = node.port(MIXED, MIXED, protocol).backends(node.here(), remote("10.0.0.7", NODE_C))
        node.port(EMPTY, TARGET, protocol).choose()
        node.port(LOST, LOST, protocol).backends(node.here()).state(HERE, GONE)
        changing += [local, mixed]
    changing.append(node.vip(VIP, VNI).backends(WEB_1, WEB_2))
    node.vip(EMPTY_VIP, VNI).choose()
    node.vip(OWN_VIP, VNI).backends(ALICE)
    return changing


# Who sends, where the bench knows it: address, network and MAC, as the seeds below have them.
SENDERS = {
    "overlay_ingress": (ALICE, VNI, FROM_CLIENT[0]),
    "gateway_ingress": (HERE_GATEWAY, 0, OUT_OF_TASK[0]),
}

STATES = (READY, READY, DRAINING, GONE)


def _questions(source: str, to: str, macs: tuple[str, str]) -> Iterator[Packet]:
    for flags in ("S", "A", "PA", "FA", "R"):
        options = [("MSS", 1460)] if flags == "S" else None
        payload = b"GET /" if flags == "PA" else b""
        yield tcp(source, to, flags, macs=macs, options=options, payload=payload)
    yield udp(source, to, macs=macs)
    yield udp(source, to, macs=macs, checksum=0, payload=b"odd")
    yield sctp(source, to, macs=macs)


def _answers(source: str, to: str, macs: tuple[str, str] | None = None) -> Iterator[Packet]:
    for flags in ("SA", "A", "FA", "RA"):
        options = [("NOP", None), ("MSS", 1460)] if flags == "SA" else None
        yield tcp(source, to, flags, macs=macs, options=options)
    yield udp(source, to, macs=macs)
    yield sctp(source, to, macs=macs)


def _tunnelled(packet: Packet, to: str, source: str = NODE_B, **fields: object) -> Packet:
    return wrapped(packet, (source, NODE_A), (NODE_B, to), 0xC001, UNDERLAY, **fields)  # type: ignore[arg-type]


def _published() -> Iterator[Packet]:
    for sport, port in product(CLIENT_PORTS, PORTS):
        source = f"{CLIENT}:{sport}"
        yield from _questions(source, f"{NODE_A}:{port}", FROM_CLIENT)
        for packet in _questions(source, f"{NODE_B}:{port}", UNDERLAY):
            yield _tunnelled(packet, HERE)
        for packet in _answers(f"{NODE_A}:{port}", source):
            yield _tunnelled(packet, NODE_A)
        target = TARGET if port == LOCAL else port
        yield from _answers(f"{HERE_GATEWAY}:{target}", source, OUT_OF_TASK)
        neighbour = f"{HERE_TOO_GATEWAY}:{sport}"
        for entry in (NODE_A, NODE_B):
            yield from _questions(neighbour, f"{entry}:{port}", (UNDERLAY[0], BRIDGE))
        yield from _answers(f"{HERE_GATEWAY}:{target}", neighbour, OUT_OF_TASK)


def _overlay() -> Iterator[Packet]:
    for sport, vip in product(CLIENT_PORTS, (VIP, EMPTY_VIP, OWN_VIP, WEB_1)):
        source = f"{ALICE}:{sport}"
        yield from _questions(source, f"{vip}:80", FROM_CLIENT)
        yield from _answers(f"{WEB_1}:80", source)
        yield from _answers(f"{WEB_2}:80", source)
        yield from _answers(f"{OWN_VIP}:{sport}", f"{ALICE}:80")
    yield from _questions(f"{WEB_1}:4000", f"{VIP}:80", FROM_CLIENT)
    yield echo(ALICE, VIP)
    yield echo(ALICE, WEB_1)
    yield echo(ALICE, VIP, reply=True)
    yield from (arp_request(ALICE, VIP), arp_request(ALICE, WEB_1), arp_reply(WEB_1, ALICE))
    yield Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(op="who-has", psrc=VIP, pdst=VIP)


def _errors() -> Iterator[Packet]:
    """ICMP errors about flows that the other seeds make."""
    about = (
        (CLIENT, NODE_A, tcp(f"{NODE_A}:{LOCAL}", f"{CLIENT}:4000", "A")),
        (CLIENT, NODE_A, udp(f"{NODE_A}:{REMOTE}", f"{CLIENT}:4000")),
        (HERE_GATEWAY, CLIENT, udp(f"{CLIENT}:4000", f"{HERE_GATEWAY}:{TARGET}")),
        (WEB_1, ALICE, udp(f"{ALICE}:4000", f"{WEB_1}:80")),
        (ALICE, VIP, tcp(f"{VIP}:80", f"{ALICE}:4000", "A")),
        (NODE_C, NODE_A, sctp(f"{NODE_A}:{LOCAL}", f"{CLIENT}:4000")),
    )
    for (source, to, quoted), kind in product(about, ((3, 4), (3, 3), (11, 0), (12, 0))):
        error = (
            Ether(src=FROM_CLIENT[0], dst=FROM_CLIENT[1])
            / IP(src=source, dst=to)
            / ICMP(type=kind[0], code=kind[1], nexthopmtu=1400 if kind == (3, 4) else 0)
            / Raw(bytes(quoted[IP])[:36])
        )
        yield error
        yield _tunnelled(error, HERE)


def _outer_errors() -> Iterator[Packet]:
    """What a router between two nodes says of the tunnel's packets."""
    inside = (
        (tcp(f"{CLIENT}:4000", f"{NODE_A}:{REMOTE}", "A", payload=bytes(400)), THERE),
        (udp(f"{CLIENT}:4001", f"{NODE_A}:{MIXED}"), THERE),
        (tcp(f"{NODE_B}:{LOCAL}", f"{CLIENT}:4000", "A", payload=bytes(400)), NODE_B),
        (udp(f"{NODE_B}:{LOCAL}", f"{CLIENT}:4002"), NODE_B),
        (udp(f"{NODE_A}:{REMOTE}", f"{STANDS_IN}:4000"), NODE_B),
        (udp(f"{STANDS_IN}:4000", f"{NODE_A}:{REMOTE}"), THERE),
    )
    for (packet, to), mtu in product(inside, (1400, 576, 68, 9000)):
        sent = wrapped(packet, (NODE_A, NODE_B), (NODE_A, to), 0xC001)
        header = Ether(src=UNDERLAY[0], dst=UNDERLAY[1]) / IP(src=STRANGER, dst=NODE_A)
        for length in (548, 120, 90, 28):
            quoted = Raw(bytes(sent[IP])[:length])
            yield header / ICMP(type=3, code=4, nexthopmtu=mtu) / quoted


def _fragments() -> Iterator[Packet]:
    for source, to in (
        (f"{CLIENT}:4000", f"{NODE_A}:{LOCAL}"),
        (f"{CLIENT}:4001", f"{NODE_A}:{REMOTE}"),
        (f"{ALICE}:4000", f"{VIP}:80"),
        (f"{HERE_GATEWAY}:{TARGET}", f"{CLIENT}:4000"),
    ):
        whole = udp(source, to, macs=FROM_CLIENT, payload=bytes(range(200)))
        for size in (64, 120):
            yield from fragment(whole, fragsize=size)  # type: ignore[no-untyped-call]


def _odd() -> Iterator[Packet]:
    source, to = f"{CLIENT}:4000", f"{NODE_A}:{LOCAL}"
    eth = Ether(src=FROM_CLIENT[0], dst=FROM_CLIENT[1])
    yield eth / Dot1Q(vlan=5) / tcp(source, to)[IP]
    yield eth / Dot1Q(vlan=5) / Dot1Q(vlan=6) / tcp(source, to)[IP]
    yield eth / IPv6(src="2001:db8::64", dst="2001:db8::11") / TCP(sport=4000, dport=LOCAL)
    yield eth / IPv6(src="2001:db8::64", dst="2001:db8::11") / UDP(sport=4000, dport=LOCAL)
    yield eth / IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_NS(tgt="2001:db8::11")
    yield eth / IPv6(src="2001:db8::64", dst="2001:db8::11") / ICMPv6EchoRequest()
    yield eth / IP(src=CLIENT, dst=NODE_A, proto=47) / Raw(bytes(40))
    yield eth / IP(src=CLIENT, dst=NODE_A, proto=4) / tcp(source, to)[IP]
    yield tcp(source, to, macs=FROM_CLIENT, ttl=0)
    yield tcp(source, to, macs=FROM_CLIENT, ttl=1)
    yield udp(f"{ALICE}:4000", f"{VIP}:80", ttl=1)
    for port, flags in product((LOCAL, REMOTE), ("DF", 0)):
        yield udp(source, f"{NODE_A}:{port}", macs=FROM_CLIENT, payload=bytes(1440), flags=flags)
    answer = tcp(f"{HERE_GATEWAY}:{TARGET}", f"{CLIENT}:4001", "A", payload=bytes(1420))
    answer[IP].flags = "DF"
    yield answer
    yield tcp(f"{STRANGER}:4000", f"{NODE_A}:{LOCAL}", macs=FROM_CLIENT)
    yield udp("127.0.0.1:4000", f"{NODE_A}:{LOCAL}", macs=FROM_CLIENT)
    yield udp(f"{NODE_A}:4000", f"{NODE_A}:{LOCAL}", macs=FROM_CLIENT)
    yield eth / ARP(op="who-has", psrc=CLIENT, pdst=NODE_A)


STANDS_IN = surrogate(CLIENT6)


def _by_ipv6() -> Iterator[Packet]:
    """IPv6 clients ask; tasks and other nodes answer who stands in for them."""
    for sport, port in product(CLIENT_PORTS, PORTS):
        source, asked = (CLIENT6, sport), (NODE_A6, port)
        for flags in ("S", "A", "PA", "FA", "R"):
            yield tcp6(source, asked, flags, options=[("MSS", 1440)] if flags == "S" else None)
        yield udp6(source, asked)
        yield udp6(source, asked, payload=bytes(1400))
        yield udp6(source, asked, checksum=0)
        target = TARGET if port == LOCAL else port
        yield from _answers(f"{HERE_GATEWAY}:{target}", f"{STANDS_IN}:{sport}", OUT_OF_TASK)
        for packet in _answers(f"{NODE_A}:{port}", f"{STANDS_IN}:{sport}"):
            yield _tunnelled(packet, NODE_A)
        for packet in _questions(f"{STANDS_IN}:{sport}", f"{NODE_B}:{port}", UNDERLAY):
            yield _tunnelled(packet, HERE)
    yield tcp(f"{STANDS_IN}:4000", f"{NODE_A}:{LOCAL}", macs=FROM_CLIENT)
    yield udp6(("fe80::1", 4000), (NODE_A6, LOCAL), hlim=1)
    yield udp6(("::ffff:192.0.2.100", 4000), (NODE_A6, LOCAL))
    yield tcp6((CLIENT6, 4000), ("2001:db8::12", LOCAL))


def _errors_by_ipv6() -> Iterator[Packet]:
    """About answers to IPv6 clients, by ICMPv6; about their questions, by a task's ICMP."""
    about = (
        tcp6((NODE_A6, LOCAL), (CLIENT6, 4000), "A", payload=bytes(1200)),
        udp6((NODE_A6, REMOTE), (CLIENT6, 4000)),
        udp6((NODE_A6, MIXED), (CLIENT6, 4001)),
    )
    kinds = (ICMPv6PacketTooBig(mtu=1280), ICMPv6DestUnreach(code=4), ICMPv6TimeExceeded())
    for quoted, kind in product(about, kinds):
        for source in (CLIENT6, "2001:db8::1"):
            header = Ether(src=FROM_CLIENT[0], dst=FROM_CLIENT[1]) / IPv6(src=source, dst=NODE_A6)
            yield header / kind / Raw(bytes(quoted[IPv6])[:1232])
    for kind4 in ((3, 4), (3, 3), (11, 0), (12, 0)):
        question = udp(f"{STANDS_IN}:4000", f"{HERE_GATEWAY}:{TARGET}")
        error = (
            Ether(src=OUT_OF_TASK[0], dst=OUT_OF_TASK[1])
            / IP(src=HERE_GATEWAY, dst=STANDS_IN)
            / ICMP(type=kind4[0], code=kind4[1])
            / Raw(bytes(question[IP])[:36])
        )
        yield error
        yield _tunnelled(error, NODE_A)


def _extensions() -> Iterator[Packet]:
    header = Ether(src=FROM_CLIENT[0], dst=FROM_CLIENT[1]) / IPv6(src=CLIENT6, dst=NODE_A6)
    datagram = udp6((CLIENT6, 4000), (NODE_A6, LOCAL))[IPv6].payload
    for extension in (IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(m=1)):
        yield header / extension / datagram


def _tunnels() -> Iterator[Packet]:
    """Wrapped twice, by strangers, for others, with other networks' identifiers."""
    inside = tcp(f"{CLIENT}:4000", f"{NODE_B}:{LOCAL}")
    once = _tunnelled(inside, HERE)
    yield _tunnelled(once, HERE)
    yield _tunnelled(_tunnelled(once, NODE_A), NODE_A)
    for source in (NODE_C, NODE_A, STRANGER, "127.0.0.1", HERE_GATEWAY):
        yield _tunnelled(inside, HERE, source=source)
    yield _tunnelled(inside, THERE)
    yield _tunnelled(inside, NODE_B)
    yield _tunnelled(inside, "255.255.255.255")
    for source, to in product((NODE_B, NODE_C, STRANGER), (HERE, NODE_A, "10.0.0.99")):
        yield _tunnelled(inside, to, source=source, mark=SECOND_CHANCE)
    mixed = (f"{CLIENT}:4000", f"{NODE_B}:{MIXED}")
    yield from (_tunnelled(make(*mixed), "10.0.0.99") for make in (tcp, udp, sctp))
    yield _tunnelled(inside, HERE, vni=VNI)
    yield wrapped(inside, (HERE_GATEWAY, NODE_B), (NODE_A, THERE), 0xC001, (UNDERLAY[0], BRIDGE))
    yield wrapped(inside, (ALICE, VIP), (NODE_A, THERE), 0xC001)


def _dialogue(source: str, asked: str, answering: list[str], macs: tuple[str, str]) -> list[bytes]:
    """A connection as it should be; whoever may have been chosen answers."""
    packets = []
    for question, answer in (("S", "SA"), ("A", "A"), ("PA", "PA"), ("FA", "FA"), ("A", "")):
        packets.append(tcp(source, asked, question, macs=macs))
        for task in answering if answer else []:
            out = OUT_OF_TASK if task.startswith(HERE_GATEWAY) else None
            packets.append(tcp(task, source, answer, macs=out))
    return [bytes(packet) for packet in packets]


def _dialogue6(port: int) -> list[bytes]:
    """The same of an IPv6 client; the task knows only who stands in for it."""
    packets = []
    for question, answer in (("S", "SA"), ("A", "A"), ("PA", "PA"), ("FA", "FA"), ("A", "")):
        packets.append(tcp6((CLIENT6, port), (NODE_A6, LOCAL), question))
        if answer:
            to = f"{STANDS_IN}:{port}"
            packets.append(tcp(f"{HERE_GATEWAY}:{TARGET}", to, answer, macs=OUT_OF_TASK))
    return [bytes(packet) for packet in packets]


def dialogues() -> list[list[bytes]]:
    """Flows that are what hostile packets are aimed at."""
    tasks, webs = [f"{HERE_GATEWAY}:{TARGET}"], [f"{WEB_1}:80", f"{WEB_2}:80"]
    found = [_dialogue6(port) for port in CLIENT_PORTS]
    for port in (*CLIENT_PORTS, 4003, 4004, 4005):
        found.append(_dialogue(f"{CLIENT}:{port}", f"{NODE_A}:{LOCAL}", tasks, FROM_CLIENT))
        found.append(_dialogue(f"{ALICE}:{port}", f"{VIP}:80", webs, (FROM_CLIENT[0], BRIDGE)))
        found.append(_dialogue(f"{ALICE}:{port}", f"{WEB_1}:80", webs, (FROM_CLIENT[0], BRIDGE)))
    return found


def seeds() -> list[bytes]:
    """All of them, always in the same order."""
    groups = (_published, _overlay, _errors, _outer_errors, _fragments, _odd, _tunnels)
    groups6 = (_by_ipv6, _errors_by_ipv6, _extensions)
    return [bytes(packet) for group in (*groups, *groups6) for packet in group()]
