# SPDX-License-Identifier: Apache-2.0
"""The addresses that the tests speak of, and packets between them.

An endpoint is written ``address:port``. Lengths and checksums are scapy's.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, defragment, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

# The underlay.
NODE_A, NODE_A_MAC = "192.0.2.11", "02:00:00:00:00:0b"
NODE_B, NODE_B_MAC = "192.0.2.12", "02:00:00:00:00:0c"
NODE_C, NODE_C_MAC = "192.0.2.13", "02:00:00:00:00:0d"
CLIENT, CLIENT_MAC = "192.0.2.100", "02:00:00:00:00:64"
STRANGER = "192.0.2.66"
NODE_A6, NODE_B6, CLIENT6 = "fd00:192:0:2::11", "fd00:192:0:2::12", "fd00:192:0:2::100"
MESH_VNI = 15461121
SECOND_CHANCE = 0x80  # the tunnel's mark

# An overlay network.
VNI, OTHER_VNI = 4097, 4098
VIP = "10.0.1.2"
ALICE = "10.0.1.3"  # a client
WEB_1, WEB_2, WEB_3 = "10.0.1.5", "10.0.1.6", "10.0.1.7"  # the VIP's backends

# Tasks that publish a port: on the ingress network, and on their node's docker_gwbridge.
HERE, HERE_GATEWAY = "10.0.0.5", "172.18.0.5"
HERE_TOO, HERE_TOO_GATEWAY = "10.0.0.8", "172.18.0.8"
THERE = "10.0.0.6"

PUBLISHED, TARGET = 8080, 80

MTU_MSS = 1460
TUNNEL_MSS = 1500 - 50 - 40

Macs = tuple[str, str]  # source, destination

FROM_CLIENT: Macs = (CLIENT_MAC, NODE_A_MAC)


def docker_mac(address: str) -> str:
    """The MAC that Docker gives an endpoint."""
    return "02:42:" + ":".join(f"{int(byte):02x}" for byte in address.split("."))


def split(endpoint: str) -> tuple[str, int]:
    address, _, port = endpoint.partition(":")
    return address, int(port)


def between(source: str, destination: str) -> Macs:
    """The MACs of two Docker endpoints."""
    return docker_mac(source), docker_mac(destination)


def _behind_a_hop(src: str, dst: str, layer: Packet) -> bool:
    """Whether the packet has its way between client and task behind it: one hop."""
    into_task = dst.startswith("172.18.") and getattr(layer, "dport", 0) == TARGET
    inside = src.startswith(("10.", "172.18."))
    out_again = not inside and getattr(layer, "sport", 0) == PUBLISHED
    return into_task or out_again


def _frame(src: str, dst: str, macs: Macs | None, layer: Packet, ip: dict[str, Any]) -> Packet:
    """`options_of_ip` among the fields of the IP header are its options: TCP has some, too."""
    source, destination = macs or between(src, dst)
    if "options_of_ip" in ip:
        ip["options"] = ip.pop("options_of_ip")
    ip.setdefault("ttl", 63 if _behind_a_hop(src, dst, layer) else 64)
    return Ether(src=source, dst=destination) / IP(src=src, dst=dst, **ip) / layer


def tcp(
    source: str,
    destination: str,
    flags: str = "S",
    *,
    macs: Macs | None = None,
    options: list[Any] | None = None,
    payload: bytes = b"",
    **ip: Any,
) -> Packet:
    (src, sport), (dst, dport) = split(source), split(destination)
    segment = TCP(sport=sport, dport=dport, flags=flags, seq=1000, options=options or [])
    return _frame(src, dst, macs, segment / Raw(payload) if payload else segment, ip)


def udp(
    source: str,
    destination: str,
    *,
    macs: Macs | None = None,
    payload: bytes = b"question",
    checksum: int | None = None,
    **ip: Any,
) -> Packet:
    (src, sport), (dst, dport) = split(source), split(destination)
    datagram = UDP(sport=sport, dport=dport, chksum=checksum) / Raw(payload)
    return _frame(src, dst, macs, datagram, ip)


def _frame6(source: str, destination: str, macs: Macs, layer: Packet, ip: dict[str, Any]) -> Packet:
    answered = getattr(layer, "sport", 0) == PUBLISHED
    ip.setdefault("hlim", 63 if answered else 64)
    return Ether(src=macs[0], dst=macs[1]) / IPv6(src=source, dst=destination, **ip) / layer


def tcp6(
    source: tuple[str, int],
    destination: tuple[str, int],
    flags: str = "S",
    *,
    macs: Macs = FROM_CLIENT,
    options: list[Any] | None = None,
    payload: bytes = b"",
    **ip: Any,
) -> Packet:
    segment = TCP(
        sport=source[1], dport=destination[1], flags=flags, seq=1000, options=options or []
    )
    layer = segment / Raw(payload) if payload else segment
    return _frame6(source[0], destination[0], macs, layer, ip)


def udp6(
    source: tuple[str, int],
    destination: tuple[str, int],
    *,
    macs: Macs = FROM_CLIENT,
    payload: bytes = b"question",
    checksum: int | None = None,
    **ip: Any,
) -> Packet:
    datagram = UDP(sport=source[1], dport=destination[1], chksum=checksum) / Raw(payload)
    return _frame6(source[0], destination[0], macs, datagram, ip)


def sctp(
    source: str,
    destination: str,
    *,
    macs: Macs | None = None,
    payload: bytes = b"data",
    chunk: Packet | None = None,
    tag: int = 7,
    checksum: int | None = None,
    **ip: Any,
) -> Packet:
    (src, sport), (dst, dport) = split(source), split(destination)
    header = SCTP(sport=sport, dport=dport, tag=tag, chksum=checksum)
    return _frame(src, dst, macs, header / (chunk or SCTPChunkData(data=payload)), ip)


def fragments(packet: Packet, size: int = 1480) -> list[Packet]:
    """The packet, or fragment, in pieces of that much payload."""
    pieces = list(fragment(packet, size))  # type: ignore[no-untyped-call]
    for piece in pieces:
        piece[IP].proto = Ether(bytes(packet))[IP].proto
    return pieces


def put_together(frames: list[bytes]) -> Packet:
    """What a host makes of fragments: the one IPv4 packet, its checksums as they came."""
    pieces = sorted((Ether(frame)[IP] for frame in frames), key=lambda ip: int(ip.frag))
    (whole,) = defragment(pieces)  # type: ignore[no-untyped-call]
    return IP(bytes(whole))


def echo(src: str, dst: str, *, macs: Macs | None = None, reply: bool = False, **ip: Any) -> Packet:
    message = ICMP(type=0 if reply else 8, id=77, seq=3) / Raw(b"abcdefgh")
    return _frame(src, dst, macs, message, ip)


def arp_request(sender: str, target: str) -> Packet:
    mac = docker_mac(sender)
    return Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op="who-has", hwsrc=mac, psrc=sender, hwdst="00:00:00:00:00:00", pdst=target
    )


def arp_reply(sender: str, target: str) -> Packet:
    return Ether(src=docker_mac(sender), dst=docker_mac(target)) / ARP(
        op="is-at",
        hwsrc=docker_mac(sender),
        psrc=sender,
        hwdst=docker_mac(target),
        pdst=target,
    )


def wrapped(
    packet: Packet,
    route: tuple[str, str],
    inner: tuple[str, str],
    source_port: int,
    macs: Macs = (NODE_A_MAC, NODE_B_MAC),
    vni: int = MESH_VNI,
    mark: int = 0,
    **ip: Any,
) -> Packet:
    """`packet`, its Ethernet header replaced, in the tunnel; `inner` is (entry node, to).

    `mark` is the byte behind the VNI.
    """
    outer = {"src": route[0], "dst": route[1], "id": 0, "flags": "DF", "ttl": 64, **ip}
    entry, to = inner
    outer_layers = (
        IP(**outer)
        / UDP(sport=source_port, dport=4789, chksum=0)
        / VXLAN(flags=8, vni=vni, reserved2=mark)
    )
    inner_eth = Ether(src=docker_mac(entry), dst=docker_mac(to))
    frame: Packet = Ether(src=macs[0], dst=macs[1]) / outer_layers / inner_eth
    frame.add_payload(packet[IP].copy())
    return frame


_MASK = (1 << 64) - 1


def _mix64(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


def surrogate(client: str, place: int = 0) -> str:
    """The IPv4 address that stands for an IPv6 client; the next one if others have `place`."""
    raw = IPv6Address(client).packed
    high, low = int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")
    hashed = (_mix64(_mix64(high) ^ low) >> 32) + place
    return str(IPv4Address(240 << 24 | hashed & 0x07FFFFFF))


def flow_hash(packet: Packet) -> int:
    """The hash by which every node balances: of client, ports and protocol."""
    ip = packet[IP]
    sport, dport = int(ip.payload.sport), int(ip.payload.dport)
    client = int.from_bytes(bytes(map(int, str(ip.src).split("."))), "big") << 32
    x = (client | sport << 16 | dport) + int(ip.proto) * 0x9E3779B97F4A7C15 & _MASK
    return _mix64(x) >> 32


def tunnel_port(packet: Packet) -> int:
    """The outer source port of a packet's tunnel."""
    return 0xC000 | flow_hash(Ether(bytes(packet))) & 0x3FFF
