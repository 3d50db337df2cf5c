# SPDX-License-Identifier: Apache-2.0
"""Makes packets wrong, in ways that attackers and broken machines have made them wrong."""

from __future__ import annotations

import socket
from collections.abc import Callable
from random import Random

from ..net import (
    ALICE,
    CLIENT,
    CLIENT6,
    HERE,
    HERE_GATEWAY,
    HERE_TOO_GATEWAY,
    MESH_VNI,
    NODE_A,
    NODE_A6,
    NODE_B,
    NODE_C,
    STRANGER,
    THERE,
    VIP,
    VNI,
    WEB_1,
    docker_mac,
    surrogate,
)
from .oracle import (
    ETHERNET,
    HEADER6,
    ICMP,
    ICMP6,
    IPV6,
    SCTP,
    TCP,
    UDP,
    WRAP,
    is_tunnel,
    sctp_checksum,
)
from .seeds import CLIENT_PORTS, EMPTY_VIP, OWN_VIP, PORTS

LONGEST = 4000  # what a frame may grow to
SHORTEST = 14  # less than an Ethernet header is never run

ADDRESSES = [
    socket.inet_aton(a)
    for a in (
        *(CLIENT, STRANGER, NODE_A, NODE_B, NODE_C, HERE, THERE, HERE_GATEWAY, HERE_TOO_GATEWAY),
        *(ALICE, VIP, EMPTY_VIP, OWN_VIP, WEB_1),
        *(surrogate(CLIENT6), "247.255.255.255"),
        *("0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.1", "192.0.2.255", "198.51.100.7"),
    )
]
_PORTS = [p.to_bytes(2, "big") for p in (*PORTS, *CLIENT_PORTS, 80, 0, 4789, 65535, 53)]
_TYPES = [bytes.fromhex(t) for t in ("0800", "0806", "86dd", "8100", "88a8", "0000", "ffff")]
_LENGTHS = (0, 1, 19, 20, 21, 27, 28, 33, 39, 40, 41, 60, 84, 575, 1450, 1500, 65535)
_FRAGMENT = (0x2000, 0x2001, 0x0001, 0x0003, 0x1FFF, 0x3FFF, 0x4000, 0x6000, 0x8000, 0x00B9)
_FIRST = (0x45, 0x45, 0x46, 0x4F, 0x44, 0x40, 0x4E, 0x55, 0x65, 0x05)
_PROTOCOLS = (0, 1, 2, 4, 6, 6, 17, 17, 41, 47, 50, 58, 132, 132, 255)
_ERRORS = [bytes.fromhex(e) for e in ("0304", "0303", "0b00", "0c00", "0501", "0400")]
_ERRORS6 = [bytes.fromhex(e) for e in ("0200", "0200", "0104", "0100", "0300", "0400", "8000")]
_MTUS6 = [mtu.to_bytes(4, "big")[2:] for mtu in (0, 68, 1280, 1400, 65535)]
ADDRESSES6 = [
    socket.inet_pton(socket.AF_INET6, a)
    for a in (CLIENT6, NODE_A6, "2001:db8::12", "::", "::1", "ff02::1", "::ffff:192.0.2.100")
]
_VNIS = (MESH_VNI, MESH_VNI, MESH_VNI, VNI, 0, MESH_VNI + 1, 0xFFFFFF)
_MACS = [bytes.fromhex(docker_mac(a).replace(":", "")) for a in (NODE_A, NODE_B, HERE, THERE)]
_MACS += [bytes(6), b"\xff" * 6, bytes.fromhex("0100 5e00 0001")]

Mutator = Callable[[Random, bytearray], bytearray]


def _byte(rng: Random, data: bytearray) -> bytearray:
    data[rng.randrange(min(len(data), 130))] = rng.getrandbits(8)
    return data


def _bit(rng: Random, data: bytearray) -> bytearray:
    data[rng.randrange(min(len(data), 130))] ^= 1 << rng.randrange(8)
    return data


def _cut(rng: Random, data: bytearray) -> bytearray:
    del data[rng.randrange(SHORTEST, len(data) + 1) :]
    return data


def _pad(rng: Random, data: bytearray) -> bytearray:
    return data + rng.randbytes(rng.choice((1, 2, 6, 20, 46, 700)))


def _put(where: int, choices: list[bytes]) -> Mutator:
    def mutator(rng: Random, data: bytearray) -> bytearray:
        value = rng.choice(choices)
        if len(data) >= where + len(value):
            data[where : where + len(value)] = value
        return data

    return mutator


def _put6(where: int, choices: list[bytes]) -> Mutator:
    """Changes an IPv6 packet."""
    inside = _put(where, choices)

    def mutator(rng: Random, data: bytearray) -> bytearray:
        return inside(rng, data) if data[12:14] == IPV6 else data

    return mutator


def _quote6(rng: Random, data: bytearray) -> bytearray:
    """An ICMPv6 error about its answer."""
    if data[12:14] != IPV6 or len(data) < ETHERNET + HEADER6 + 8:
        return data
    turned = data[14:22] + data[38:54] + data[22:38] + data[56:58] + data[54:56] + data[58:]
    message = rng.choice(_ERRORS6) + bytes(4) + rng.choice(_MTUS6) + bytes(turned[:1232])
    header = data[14:18] + len(message).to_bytes(2, "big") + bytes((ICMP6, 64)) + data[22:54]
    return data[:14] + header + message


def _words(values: tuple[int, ...]) -> list[bytes]:
    return [v.to_bytes(2, "big") for v in values]


def _bytes(values: tuple[int, ...] | range) -> list[bytes]:
    return [bytes([v]) for v in values]


def _turn(rng: Random, data: bytearray) -> bytearray:
    """The answer to it."""
    if len(data) >= 38:
        data[0:12] = data[6:12] + data[0:6]
        data[26:38] = data[30:34] + data[26:30] + data[36:38] + data[34:36]
    return data


def _vlan(rng: Random, data: bytearray) -> bytearray:
    data[12:12] = rng.choice((b"\x81\x00\x00\x05", b"\x88\xa8\x00\x07", b"\x81\x00\x00\x00"))
    return data


def _wrap(rng: Random, data: bytearray) -> bytearray:
    """Into a tunnel, more or less ours."""
    length = len(data) - ETHERNET + WRAP
    source, to = rng.choice(ADDRESSES[:9]), rng.choice(ADDRESSES[2:5])
    if rng.random() < 0.5:
        source, to = ADDRESSES[3], ADDRESSES[2]
    ip = bytes.fromhex("4500") + length.to_bytes(2, "big") + bytes.fromhex("000040004011 0000")
    udp = b"\xc0\x01" + (b"\x12\xb5" if rng.random() < 0.9 else b"\x12\xb6")
    udp += (length - 20).to_bytes(2, "big") + bytes(2)
    vxlan = bytes.fromhex("08000000") + rng.choice(_VNIS).to_bytes(3, "big") + b"\0"
    inner = _inner_mac(rng) + _inner_mac(rng) + bytes(data[12:14])
    outer = bytes(data[:12]) + b"\x08\x00" + ip + source + to + udp + vxlan + inner
    return bytearray(outer) + data[ETHERNET:]


def _inner_mac(rng: Random) -> bytes:
    return rng.choice(_MACS) if rng.random() < 0.8 else rng.randbytes(6)


def _unwrap(rng: Random, data: bytearray) -> bytearray:
    if is_tunnel(bytes(data)):
        del data[ETHERNET : ETHERNET + WRAP]
    return data


def _in_the_tunnel(where: int, choices: list[bytes]) -> Mutator:
    """Changes the inner packet of a wrapped one."""
    inside = _put(where + WRAP, choices)

    def mutator(rng: Random, data: bytearray) -> bytearray:
        return inside(rng, data) if is_tunnel(bytes(data)) else data

    return mutator


def _quote(rng: Random, data: bytearray) -> bytearray:
    """An ICMP error that quotes it."""
    quoted = bytes(data[ETHERNET : ETHERNET + rng.choice((20, 24, 28, 28, 28, 48, 548))])
    kind = rng.choice(_ERRORS)
    icmp = kind + bytes(4) + rng.choice((b"\x05\x78", b"\0\0")) + quoted
    length = (20 + len(icmp)).to_bytes(2, "big")
    source = bytes(data[30:34]) if rng.random() < 0.5 else rng.choice(ADDRESSES)
    to = bytes(data[26:30]) if rng.random() < 0.5 else rng.choice(ADDRESSES)
    ip = b"\x45\x00" + length + bytes.fromhex("0000000040010000") + (source + to).ljust(8, b"\0")
    return data[:12] + b"\x08\x00" + ip + icmp


def _another_port(rng: Random, data: bytearray) -> bytearray:
    """A flow that no other packet is likely to have."""
    at = 34 + WRAP if is_tunnel(bytes(data)) else 34
    if len(data) >= at + 2:
        data[at : at + 2] = rng.randbytes(2)
    return data


def _noise(rng: Random, data: bytearray) -> bytearray:
    return bytearray(rng.randbytes(rng.randrange(SHORTEST, 200)))


def _noise_behind_ethernet(rng: Random, data: bytearray) -> bytearray:
    return data[:14] + rng.randbytes(rng.randrange(200))


_PLACES6 = (
    (14, _bytes((0x60, 0x60, 0x6F, 0x40, 0x50, 0x00))),
    (18, _words((0, 1, 7, 8, 19, 20, 21, 1400, 1460, 65515, 65516, 65535))),
    (20, _bytes((0, 6, 6, 17, 17, 43, 44, 50, 51, 58, 58, 59, 60, 132, 135, 1, 4))),
    (21, _bytes((0, 1, 2, 255))),
    (22, ADDRESSES6),
    (38, ADDRESSES6),
    (54, _PORTS),
    (56, _PORTS),
)

MUTATORS: list[Mutator] = [
    *(_put6(where, choices) for where, choices in _PLACES6),
    *(_quote6, _quote6),
    *(_byte, _byte, _bit, _bit, _cut, _cut, _pad, _turn, _turn, _vlan, _quote, _quote),
    *(_another_port, _another_port, _another_port, _another_port),
    *(_wrap, _wrap, _wrap, _unwrap, _noise, _noise_behind_ethernet),
    _put(0, _MACS),
    _put(6, _MACS),
    _put(12, _TYPES),
    _put(14, _bytes(_FIRST)),
    _put(16, _words(_LENGTHS)),
    _put(20, _words(_FRAGMENT)),
    _put(22, _bytes((0, 1, 2, 255))),
    _put(23, _bytes(_PROTOCOLS)),
    _put(26, ADDRESSES),
    _put(30, ADDRESSES),
    _put(34, _PORTS),
    _put(36, _PORTS),
    _put(38, _words(_LENGTHS)),
    _put(46, _bytes((0x00, 0x40, 0x50, 0x60, 0xF0))),
    _put(47, _bytes(range(0, 64))),
    _put(54, _bytes((0, 1, 2, 3, 255))),
    _put(55, _bytes((0, 1, 2, 4, 255))),
    _in_the_tunnel(0, _MACS),
    _in_the_tunnel(6, _MACS),
    _in_the_tunnel(12, _TYPES),
    _in_the_tunnel(14, _bytes(_FIRST)),
    _in_the_tunnel(16, _words(_LENGTHS)),
    _in_the_tunnel(20, _words(_FRAGMENT)),
    _in_the_tunnel(26, ADDRESSES),
    _in_the_tunnel(30, ADDRESSES),
    _in_the_tunnel(36, _PORTS),
    _in_the_tunnel(47, _bytes(range(0, 64))),
]


def mutated(rng: Random, seed: bytes) -> bytes:
    """One packet: the seed as it is, or changed up to five times; often with right checksums."""
    many = rng.choice((0, 0, 1, 1, 1, 2, 2, 3, 5))
    if not many:
        return seed
    data = bytearray(seed)
    for _ in range(many):
        data = rng.choice(MUTATORS)(rng, data)
        if len(data) < SHORTEST + 1:
            data = data + bytes(SHORTEST + 1 - len(data))
    del data[LONGEST:]
    if rng.random() < 0.6:
        if data[12:14] == IPV6:
            _set_checksum6(data)
        else:
            _set_checksums(data, 0)
        if is_tunnel(bytes(data)):
            _set_checksums(data, WRAP)
    return bytes(data)


def _checksum(data: bytes | bytearray, pseudo: int = 0) -> bytes:
    words = bytes(data) + b"\0" * (len(data) & 1)
    total = (int.from_bytes(words, "big") + pseudo) % 65535
    return (65535 - total).to_bytes(2, "big")


def _set_checksum6(data: bytearray) -> None:
    """Of an IPv6 packet without extension headers."""
    end = 54 + (data[18] << 8 | data[19]) if len(data) >= 62 else 0
    where = 54 + {TCP: 16, UDP: 6, ICMP6: 2}.get(data[20], 0) if end else 0
    if not 54 < where < where + 2 <= end <= len(data):
        return
    pseudo = int.from_bytes(data[22:54], "big") + data[20] + end - 54
    data[where : where + 2] = b"\0\0"
    data[where : where + 2] = _checksum(data[54:end], pseudo)


def _set_checksums(data: bytearray, at: int) -> None:
    """Those of the IPv4 packet whose Ethernet header is at `at`, as far as it has any."""
    l3, l4 = at + 14, at + 34
    if len(data) < l4 + 8 or data[l3] != 0x45:
        return
    data[l3 + 10 : l3 + 12] = b"\0\0"
    data[l3 + 10 : l3 + 12] = _checksum(data[l3:l4])
    end = l3 + (data[l3 + 2] << 8 | data[l3 + 3])
    if not l4 + 8 <= end <= len(data):
        return
    protocol = data[l3 + 9]
    where = {TCP: l4 + 16, UDP: l4 + 6, ICMP: l4 + 2}.get(protocol, 0)
    if where and where + 2 <= end and not (protocol == UDP and data[where : where + 2] == b"\0\0"):
        length = end - l4
        pseudo = int.from_bytes(data[l3 + 12 : l4], "big") + protocol + length
        data[where : where + 2] = b"\0\0"
        data[where : where + 2] = _checksum(data[l4:end], 0 if protocol == ICMP else pseudo)
    elif protocol == SCTP and l4 + 12 <= end:
        data[l4 + 8 : l4 + 12] = bytes(4)
        data[l4 + 8 : l4 + 12] = sctp_checksum(bytes(data[l4:end]))
