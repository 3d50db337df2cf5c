# SPDX-License-Identifier: Apache-2.0
"""Lists of links and addresses, read out of the kernel's answers (rtnetlink(7)).

Only what is needed is read, and statistics are not asked for: the kernel keeps every change of a
link waiting while it writes such a list.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 20, 22

_AF_INET6 = 10
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: something has changed while the list was written
_TIMES = 8
_ERROR, _DONE = 2, 3
_CHUNK = 1 << 16
_ARPHRD_ETHER = 1
_IN_USE = 0x1 | 0x40  # IFF_UP, IFF_RUNNING (netdevice(7))

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_STATUS = struct.Struct("=i")
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=I")
_KIND = 0x3FFF  # the rest of an attribute's type are flags

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_EXT_MASK = 18, 29
_INFO_KIND, _INFO_DATA, _VXLAN_ID = 1, 2, 1
_SKIP_STATISTICS = 1 << 3  # RTEXT_FILTER_SKIP_STATS
_IFA_ADDRESS, _IFA_LOCAL = 1, 2

Attributes = Mapping[int, bytes]


@dataclass(frozen=True)
class Link:
    """`peer` is the other end's index in its own namespace (veth), `vni` a vxlan's network.

    `ethernet` tells whether its frames have Ethernet headers (a tunnel's may have none), `up`
    whether it may carry any now: it is switched on, and has a carrier.
    """

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    master: int
    peer: int
    vni: int
    ethernet: bool = True
    up: bool = True


@dataclass(frozen=True)
class LinkAddress:
    """An address on a link, as text: dotted, or as RFC 5952 writes IPv6."""

    index: int
    address: str
    prefix: int


def links(asked: socket.socket) -> list[Link]:
    """Every link of the namespace of an rtnetlink socket. Raises `OSError`."""
    mask = _ATTRIBUTE.pack(_ATTRIBUTE.size + _NUMBER.size, _IFLA_EXT_MASK)
    request = _LINK.pack(0, 0, 0, 0, 0) + mask + _NUMBER.pack(_SKIP_STATISTICS)
    return [_link(body) for body in _dump(asked, RTM_GETLINK, RTM_NEWLINK, request)]


def addresses(asked: socket.socket, family: int) -> list[LinkAddress]:
    """Every address of a family (`AF_INET`, `AF_INET6`), as `links`."""
    request = _ADDRESS.pack(family, 0, 0, 0, 0)
    # A kernel without IPv6 lists what it has instead.
    found = _dump(asked, RTM_GETADDR, RTM_NEWADDR, request)
    return [_address(body) for body in found if body[0] == family]


def _dump(asked: socket.socket, ask: int, answer: int, request: bytes) -> list[bytes]:
    """The bodies of a list's messages; asked for again where it does not tell one moment."""
    found: list[bytes] = []
    for _ in range(_TIMES):
        asked.send(_HEADER.pack(_HEADER.size + len(request), ask, _DUMP, 0, 0) + request)
        found = []
        whole, done = True, False
        while not done:
            for kind, flags, body in _messages(asked.recv(_CHUNK)):
                whole &= not flags & _INTERRUPTED
                if kind in {_ERROR, _DONE}:
                    _check(body)
                    done = True
                elif kind == answer:
                    found.append(body)
        if whole:
            break
    return found


def _messages(part: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of each."""
    at = 0
    while at < len(part):
        length, kind, flags, _, _ = _HEADER.unpack_from(part, at)
        yield kind, flags, part[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _check(body: bytes) -> None:
    (status,) = _STATUS.unpack_from(body)
    if status < 0:
        raise OSError(-status, os.strerror(-status))


def _attributes(body: bytes) -> Attributes:
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        found[kind & _KIND] = body[at + _ATTRIBUTE.size : at + length]
        at += max(_ATTRIBUTE.size, (length + 3) & ~3)
    return found


def _number(found: Attributes, kind: int) -> int:
    raw = found.get(kind)
    return int(_NUMBER.unpack_from(raw)[0]) if raw else 0


def _text(found: Attributes, kind: int) -> str:
    return found.get(kind, b"").rstrip(b"\0").decode()


def _link(body: bytes) -> Link:
    _, hardware, index, flags, _ = _LINK.unpack_from(body)
    found = _attributes(body[_LINK.size :])
    info = _attributes(found.get(_IFLA_LINKINFO, b""))
    kind = _text(info, _INFO_KIND)
    data = _attributes(info.get(_INFO_DATA, b"")) if kind == "vxlan" else {}
    return Link(
        index=index,
        name=_text(found, _IFLA_IFNAME),
        kind=kind,
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found, _IFLA_MTU),
        master=_number(found, _IFLA_MASTER),
        peer=_number(found, _IFLA_LINK),
        vni=_number(data, _VXLAN_ID),
        ethernet=hardware == _ARPHRD_ETHER,
        up=flags & _IN_USE == _IN_USE,
    )


def _address(body: bytes) -> LinkAddress:
    family, prefix, _, _, index = _ADDRESS.unpack_from(body)
    found = _attributes(body[_ADDRESS.size :])
    raw = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    size = 16 if family == _AF_INET6 else 4
    return LinkAddress(index, socket.inet_ntop(family, raw[:size]), prefix)
