# SPDX-License-Identifier: Apache-2.0
"""Who sends what to whom, from the first bytes of an Ethernet frame. Pure, no I/O.

Nothing in a frame is trusted: what is cut short, or makes no sense, is described as far as it goes.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

_ETHERNET, _IPV4, _IPV6 = 14, 20, 40
_VLANS = (0x8100, 0x88A8)
_ETHERTYPES = {0x0800: "ipv4", 0x0806: "arp", 0x86DD: "ipv6"}
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_WITH_PORTS = (6, 17, 132)
_ICMP = (1, 58)
_UDP, _TCP = 17, 6
_TCP_FLAGS = 13  # where they lie in its header
_FLAG_NAMES = "FSRPAU"
_OFFSET, _MORE = 0x1FFF, 0x2000  # of fragments
_VXLAN = 16  # UDP's header and its own
_VXLAN_FLAGS = b"\x08\x00\x00\x00"
_ARP_WORDS = {1: "who-has", 2: "is-at"}


class Frame(NamedTuple):
    """`protocol` is its name, or a number in words; ports are 0 where there are none.

    `flags` are those of TCP, as letters (``SA``). `info` is what else is worth saying.
    """

    protocol: str = ""
    source: str = ""
    source_port: int = 0
    destination: str = ""
    destination_port: int = 0
    flags: str = ""
    info: str = ""


def end(address: str, port: int) -> str:
    """An address with its port, if it has one."""
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def protocol_name(number: int) -> str:
    """``tcp``, or ``protocol 47``."""
    return _PROTOCOLS.get(number, f"protocol {number}")


def tcp_flags(bits: int) -> str:
    """The letters of those that are set: FIN, SYN, RST, PSH, ACK, URG."""
    return "".join(name for place, name in enumerate(_FLAG_NAMES) if bits >> place & 1)


def read(head: bytes, tunnel_port: int = 4789) -> Frame:
    """What a frame that begins so is; of one of the tunnel (VXLAN), what is inside."""
    kind, at, tags = _ethertype(head)
    if kind == "arp":
        return _arp(head[at:])
    if kind == "ipv6":
        return _ipv6(head[at:], tags)
    if kind != "ipv4":
        return Frame(kind or "cut short", info=tags)
    return _ipv4(head[at:], tunnel_port, tags)


def _ethertype(head: bytes) -> tuple[str, int, str]:
    """Its name, where what it names begins, and what tags are before it."""
    at = _ETHERNET
    tags: list[str] = []
    while len(head) >= at:
        (kind,) = struct.unpack_from(">H", head, at - 2)
        if kind not in _VLANS:
            return _ETHERTYPES.get(kind, f"ethertype {kind:#06x}"), at, " ".join(tags)
        if len(head) >= at + 4:
            tags.append(f"VLAN {struct.unpack_from('>H', head, at)[0] & 0xFFF}")
        at += 4
    return "", at, " ".join(tags)


def _arp(packet: bytes) -> Frame:
    if len(packet) < 28:  # noqa: PLR2004 - the length of ARP for IPv4
        return Frame("arp", info="cut short")
    (operation,) = struct.unpack_from(">H", packet, 6)
    sender, target = IPv4Address(packet[14:18]), IPv4Address(packet[24:28])
    word = _ARP_WORDS.get(operation, f"operation {operation}")
    return Frame("arp", str(sender), 0, str(target), 0, info=word)


def _ipv4(packet: bytes, tunnel_port: int, tags: str) -> Frame:
    if len(packet) < _IPV4:
        return Frame("ipv4", info="cut short")
    header = (packet[0] & 15) * 4
    (fragment,) = struct.unpack_from(">H", packet, 6)
    number, source, destination = packet[9], packet[12:16], packet[16:20]
    said = [tags] if tags else []
    if header > _IPV4:
        said.append("options")
    if fragment & (_OFFSET | _MORE):
        said.append(f"fragment at {(fragment & _OFFSET) * 8}")
    rest = b"" if fragment & _OFFSET else packet[header:]
    if inner := _tunnelled(number, rest, tunnel_port):
        return inner._replace(info=f"{inner.info} in the tunnel from {IPv4Address(source)}".strip())
    return _transport(number, str(IPv4Address(source)), str(IPv4Address(destination)), rest, said)


def _ipv6(packet: bytes, tags: str) -> Frame:
    if len(packet) < _IPV6:
        return Frame("ipv6", info="cut short")
    source, destination = str(IPv6Address(packet[8:24])), str(IPv6Address(packet[24:40]))
    return _transport(packet[6], source, destination, packet[_IPV6:], [tags] if tags else [])


def _tunnelled(number: int, rest: bytes, tunnel_port: int) -> Frame | None:
    if number != _UDP or len(rest) < _VXLAN:
        return None
    (port,) = struct.unpack_from(">H", rest, 2)
    if port != tunnel_port or rest[8:12] != _VXLAN_FLAGS:
        return None
    return read(rest[_VXLAN:], 0)  # one inside another is not looked into


def _transport(number: int, source: str, destination: str, rest: bytes, said: list[str]) -> Frame:
    ports, flags = (0, 0), ""
    if number in _WITH_PORTS and len(rest) >= 4:  # noqa: PLR2004 - two ports
        ports = struct.unpack_from(">HH", rest)
    if number == _TCP and len(rest) > _TCP_FLAGS:
        flags = tcp_flags(rest[_TCP_FLAGS])
    if number in _ICMP and len(rest) >= 2:  # noqa: PLR2004 - type and code
        said = [*said, f"type {rest[0]} code {rest[1]}"]
    return Frame(
        protocol_name(number), source, ports[0], destination, ports[1], flags, " ".join(said)
    )
