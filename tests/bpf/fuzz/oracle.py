# SPDX-License-Identifier: Apache-2.0
"""Reads packets as the tests understand the RFCs: nothing here knows how the programs do it."""

from __future__ import annotations

import socket
from typing import NamedTuple

from scapy.layers.sctp import crc32c

from ..net import MESH_VNI, NODE_A, NODE_B, NODE_C

ETHERNET = 14
WRAP = 50  # outer IP, UDP, VXLAN, inner Ethernet
TCP, UDP, ICMP, SCTP, ICMP6 = 6, 17, 1, 132, 58
IPV6 = b"\x86\xdd"
HEADER6 = 40
_LEAST = {TCP: 20, UDP: 8, SCTP: 12}  # bytes of the transport header
VTEP = socket.inet_aton(NODE_A)
OTHER_VTEPS = {socket.inet_aton(NODE_B), socket.inet_aton(NODE_C)}
_VXLAN = bytes.fromhex("08000000") + MESH_VNI.to_bytes(3, "big")
SECOND_CHANCE, ATTEMPT = 0x80, 0x0F  # in the byte behind the VNI


class Flow(NamedTuple):
    """A 5-tuple as it lies in a map's key: addresses and ports as in the packet."""

    tuple: bytes
    protocol: int


def flow_of(frame: bytes, *, fragments: bool = False) -> Flow | None:
    """The flow of a sound TCP, UDP or SCTP packet; of a first fragment too if `fragments`."""
    if len(frame) < ETHERNET + 28 or frame[12:15] != b"\x08\x00\x45":
        return None
    # More fragments to come, or not the first one.
    if frame[20] & 0x1F or frame[21] or (frame[20] & 0x20 and not fragments):
        return None
    protocol = frame[23]
    total = frame[16] << 8 | frame[17]
    least = _LEAST.get(protocol)
    if least is None or total < 20 + min(least, 20 if protocol == TCP else 8):
        return None
    if total + ETHERNET > len(frame):
        return None
    return Flow(frame[26:38], protocol)


def follows_another(frame: bytes) -> bool:
    """Whether it is a later fragment: its flow is that of the first one."""
    ipv4 = len(frame) >= ETHERNET + 20 and frame[12:15] == b"\x08\x00\x45"
    return ipv4 and bool(frame[20] & 0x1F or frame[21])


def may_end_another(frame: bytes) -> bool:
    """Whether it is "port unreachable": its sender's flow of datagrams may end (bpf/ending.h)."""
    is_icmp = frame[12:15] == b"\x08\x00\x45" and frame[ETHERNET + 9 : ETHERNET + 10] == b"\x01"
    return is_icmp and frame[ETHERNET + 20 : ETHERNET + 22] == b"\x03\x03"


class Flow6(NamedTuple):
    """An IPv6 client, the address and ports of its packet to this node."""

    client: bytes
    node: bytes
    ports: bytes
    protocol: int

    def by(self, surrogate: bytes) -> Flow:
        """The flow that it becomes, if that address stands in for the client."""
        return Flow(surrogate + VTEP + self.ports, self.protocol)


def flow6_of(frame: bytes) -> Flow6 | None:
    """The flow of a sound TCP or UDP packet of IPv6, without extension headers."""
    if len(frame) < ETHERNET + HEADER6 + 8 or frame[12:14] != IPV6 or frame[14] >> 4 != 6:
        return None
    protocol, length = frame[20], frame[18] << 8 | frame[19]
    if protocol not in {TCP, UDP} or length < _LEAST[protocol]:
        return None
    if ETHERNET + HEADER6 + length > len(frame):
        return None
    return Flow6(frame[22:38], frame[38:54], frame[54:58], protocol)


def is_tunnel(frame: bytes) -> bool:
    """Whether it is VXLAN of the mesh's own network, whoever it is from and for."""
    return (
        len(frame) >= ETHERNET + WRAP
        and frame[12:15] == b"\x08\x00\x45"
        and not (frame[20] & 0x3F or frame[21])
        and frame[23] == UDP
        and frame[36:38] == b"\x12\xb5"
        and frame[42:49] == _VXLAN
        and not frame[49] & ~(SECOND_CHANCE | ATTEMPT)
    )


def is_for_us(frame: bytes) -> bool:
    """Whether a tunnel's packet is for this node."""
    return is_tunnel(frame) and frame[30:34] == VTEP


def inner_of(frame: bytes) -> bytes:
    """What a wrapped packet carries, from its Ethernet header on."""
    return frame[WRAP:]


def first_part(frame: bytes, whole: bytes) -> bool:
    """Whether it is a first fragment, soundly cut from a packet that was whole."""
    if frame[12:14] == IPV6 or len(frame) < ETHERNET + 28:
        return False
    if not frame[20] & 0x20 or whole[20] & 0x20:
        return False
    kept = (frame[16] << 8 | frame[17]) - 20
    return not frame[20] & 0x1F and not frame[21] and kept % 8 == 0 and adds_up(frame[14:34])


def completed(frame: bytes, whole: bytes) -> bytes:
    """A first part and the rest of the packet that it was cut from, put together."""
    end, total = 14 + (frame[16] << 8 | frame[17]), whole[16:18]
    header = frame[14:16] + total + frame[18:20] + bytes(2) + frame[22:24] + bytes(2) + frame[26:34]
    check = (0xFFFF - int.from_bytes(header, "big") % 0xFFFF).to_bytes(2, "big")
    return frame[:14] + header[:10] + check + header[12:] + frame[34:end] + whole[end:]


def adds_up(data: bytes, pseudo: int = 0) -> bool:
    """Whether 16-bit words that contain their Internet checksum sum up to it. RFC 1071."""
    if len(data) & 1:
        data += b"\0"
    # 2**16 is 1 modulo 65535: the number itself has the sum of its words.
    return (int.from_bytes(data, "big") + pseudo) % 65535 == 0


def sctp_checksum(segment: bytes) -> bytes:
    """Of a packet whose own checksum is 0. RFC 9260, 6.8."""
    return int(crc32c(segment)).to_bytes(4, "big")  # type: ignore[no-untyped-call]


def _pseudo(frame: bytes, length: int) -> int:
    return int.from_bytes(frame[26:34], "big") + frame[23] + length


def checksums_hold(frame: bytes) -> bool:
    """Of an IP packet without options, the whole of it there: header and transport.

    False also for what has no such checksums to speak of.
    """
    if frame[12:14] == IPV6:
        return _checksum6_holds(frame)
    if len(frame) < ETHERNET + 28 or frame[12:15] != b"\x08\x00\x45":
        return False
    total = frame[16] << 8 | frame[17]
    if total < 28 or ETHERNET + total > len(frame) or frame[20] & 0x3F or frame[21]:
        return False
    if not adds_up(frame[14:34]):
        return False
    return _transport_holds(frame, frame[34 : ETHERNET + total], frame[23])


def _checksum6_holds(frame: bytes) -> bool:
    total = ETHERNET + HEADER6 + (frame[18] << 8 | frame[19]) if len(frame) >= 62 else 0
    if not ETHERNET + HEADER6 + 8 <= total <= len(frame) or frame[14] >> 4 != 6:
        return False
    segment, protocol = frame[54:total], frame[20]
    pseudo = int.from_bytes(frame[22:54], "big") + protocol + len(segment)
    if protocol == UDP and (
        int.from_bytes(segment[4:6], "big") != len(segment) or segment[6:8] == bytes(2)
    ):
        return False
    if protocol == TCP and len(segment) < 20:
        return False
    return protocol in {TCP, UDP, ICMP6} and adds_up(segment, pseudo)


def _transport_holds(frame: bytes, segment: bytes, protocol: int) -> bool:
    if protocol == TCP:
        return len(segment) >= 20 and adds_up(segment, _pseudo(frame, len(segment)))
    if protocol == UDP:
        if int.from_bytes(segment[4:6], "big") != len(segment):
            return False
        return segment[6:8] == b"\0\0" or adds_up(segment, _pseudo(frame, len(segment)))
    if protocol == ICMP:
        return adds_up(segment)
    if protocol == SCTP and len(segment) >= 12:
        bare = segment[:8] + bytes(4) + segment[12:]
        return sctp_checksum(bare) == segment[8:12]
    return False
