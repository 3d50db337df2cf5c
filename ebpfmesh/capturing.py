# SPDX-License-Identifier: Apache-2.0
"""What ``ebpfmesh capture`` asks an agent for, and which packets are a service's. Pure, no I/O.

A filter is a program for the kernel (see its Documentation/networking/filter.rst). It runs on an
Ethernet frame and returns how many bytes of it are wanted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address
from typing import NamedTuple

from ebpfmesh.explanation import BadQuestion
from ebpfmesh.model import Frozen, Protocol

MAX_COUNT, MAX_SECONDS, MAX_SNAPLEN = 1_000_000, 3600, 65535
MAX_PORTS = 50
MAX_ADDRESSES = 900

# Operations: class, size or comparison, and where the operand is.
_LOAD_BYTE, _LOAD_HALF, _LOAD_WORD = 0x30, 0x28, 0x20
_LOAD_BYTE_BEHIND_IP, _LOAD_HALF_BEHIND_IP = 0x50, 0x48  # at X, which _IP_LENGTH has set
_IP_LENGTH = 0xB1
_EQUAL, _RETURN = 0x15, 0x06
_ALL, _NOTHING = 0xFFFF, 0
_ETHERTYPE, _IPV4, _IPV6 = 12, 0x0800, 0x86DD
_PROTOCOL, _PROTOCOL_6, _SOURCE, _DESTINATION = 23, 20, 26, 30
_L4, _PORTS_6 = 14, 54
_ICMP, _ICMP_6 = 1, 58
_ERRORS, _ERRORS_6 = (3, 4, 5, 11, 12), (1, 2, 3, 4)  # types of messages about a packet
# Of a packet inside the tunnel, where the outer header has no options.
_INNER_PROTOCOL, _INNER_PORTS = 14 + 20 + 8 + 8 + 14 + 9, 14 + 20 + 8 + 8 + 14 + 20

Ports = Collection[tuple[Protocol, int]]


class Instruction(NamedTuple):
    """struct sock_filter: where it goes on, from the next one, is `then` or `otherwise`."""

    code: int
    value: int
    then: int = 0
    otherwise: int = 0


class Capture(Frozen, frozen=True):
    """Of one service: till `count` packets or `seconds` are over, `snaplen` bytes of each."""

    service: str
    count: int = 1000
    seconds: float = 60.0
    snaplen: int = 262
    xdp: bool = False

    @classmethod
    def asked(cls, service: str, count: str, seconds: str, snaplen: str, *, xdp: bool) -> Capture:
        """Check what was asked. Raises `BadQuestion`."""
        return cls(
            service=service,
            count=int(_within("count", count, 1, MAX_COUNT)),
            seconds=_within("seconds", seconds, 0.1, MAX_SECONDS),
            snaplen=int(_within("snaplen", snaplen, 64, MAX_SNAPLEN)),
            xdp=xdp,
        )


def _within(name: str, text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise BadQuestion(f"{name} {text!r}: wanted a number from {least:g} to {most}")
    return value


def by_ports(ports: Ports, tunnel_port: int = 0) -> list[Instruction]:
    """Packets from or to one of these, ICMP errors; with a tunnel's port also the same inside."""
    ports = sorted(ports)[:MAX_PORTS]
    protocols = sorted({protocol for protocol, _ in ports})
    four = [Instruction(_IP_LENGTH, _L4)]
    four += _if(_LOAD_BYTE, _PROTOCOL, _ICMP, _any_of(_LOAD_BYTE_BEHIND_IP, _L4, _ERRORS))
    six = _if(_LOAD_BYTE, _PROTOCOL_6, _ICMP_6, _any_of(_LOAD_BYTE, _PORTS_6, _ERRORS_6))
    for protocol in protocols:
        numbers = [port for of, port in ports if of is protocol]
        four += _if(_LOAD_BYTE, _PROTOCOL, protocol, _either(_LOAD_HALF_BEHIND_IP, _L4, numbers))
        six += _if(_LOAD_BYTE, _PROTOCOL_6, protocol, _either(_LOAD_HALF, _PORTS_6, numbers))
    if tunnel_port:
        four += _if(_LOAD_BYTE, _PROTOCOL, Protocol.UDP, _inside(tunnel_port, ports, protocols))
    return [*_ethertypes(four, six), Instruction(_RETURN, _NOTHING)]


def _inside(tunnel_port: int, ports: Ports, protocols: Iterable[Protocol]) -> list[Instruction]:
    errors = _any_of(_LOAD_BYTE, _INNER_PORTS, _ERRORS)
    inner = _if(_LOAD_BYTE, _INNER_PROTOCOL, _ICMP, errors)
    for protocol in protocols:
        numbers = [port for of, port in ports if of is protocol]
        body = _either(_LOAD_HALF, _INNER_PORTS, numbers)
        inner += _if(_LOAD_BYTE, _INNER_PROTOCOL, protocol, body)
    return _if(_LOAD_HALF_BEHIND_IP, _L4 + 2, tunnel_port, inner)


def by_addresses(addresses: Iterable[str]) -> list[Instruction]:
    """IPv4 packets from or to one of these."""
    wanted = [int(IPv4Address(address)) for address in sorted(set(addresses))][:MAX_ADDRESSES]
    return [
        *(Instruction(_LOAD_HALF, _ETHERTYPE), Instruction(_EQUAL, _IPV4, 1, 0)),
        Instruction(_RETURN, _NOTHING),
        *_any_of(_LOAD_WORD, _SOURCE, wanted),
        *_any_of(_LOAD_WORD, _DESTINATION, wanted),
        Instruction(_RETURN, _NOTHING),
    ]


def _ethertypes(four: list[Instruction], six: list[Instruction]) -> list[Instruction]:
    return [*_if(_LOAD_HALF, _ETHERTYPE, _IPV4, four), *_if(_LOAD_HALF, _ETHERTYPE, _IPV6, six)]


def _if(load: int, place: int, value: int, body: list[Instruction]) -> list[Instruction]:
    """`body` where that is at that place. A jump goes 255 far, so it goes round by a long one."""
    over = Instruction(0x05, len(body))
    return [Instruction(load, place), Instruction(_EQUAL, value, 1, 0), over, *body]


def _either(load: int, place: int, ports: list[int]) -> list[Instruction]:
    """Source or destination port."""
    return [*_any_of(load, place, ports), *_any_of(load, place + 2, ports)]


def _any_of(load: int, place: int, values: Iterable[int]) -> list[Instruction]:
    found = [Instruction(load, place)]
    for value in values:
        found += [Instruction(_EQUAL, value, 0, 1), Instruction(_RETURN, _ALL)]
    return found
