# SPDX-License-Identifier: Apache-2.0
"""Who listens in a network namespace: one question to the kernel, see sock_diag(7).

Netlink is spoken by hand: pyroute2's class for it opens its socket in the caller's namespace.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from ebpfmesh.datapath.errors import DatapathError
from ebpfmesh.datapath.netns import diag_socket
from ebpfmesh.model import Protocol

_AF_INET, _AF_INET6 = 2, 10
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_STATUS = struct.Struct("=i")
# struct inet_diag_req_v2: family, protocol, extensions, states; then 48 bytes that name one socket.
_REQUEST = struct.Struct("=BBBxI48x")
# struct inet_diag_msg: family, state; source port and address in network byte order.
_MESSAGE = struct.Struct("!BBxxHxx16s48x")
_ATTRIBUTE = struct.Struct("=HH")
_V6ONLY = 11  # INET_DIAG_SKV6ONLY

# Kernel states: a socket of TCP or SCTP that listens; one of UDP that has no peer.
_LISTEN, _CLOSE = 10, 7
_WANTED = {
    Protocol.TCP: 1 << _LISTEN,
    Protocol.UDP: 1 << _CLOSE,
    Protocol.SCTP: 1 << _LISTEN,
}
_CHUNK = 1 << 16


class KernelSilent(DatapathError):
    """This kernel does not tell who listens (no ``tcp_diag``)."""


class Listener(NamedTuple):
    """Takes what comes for an IPv4 address of the namespace other than loopback."""

    protocol: Protocol
    port: int


def listeners(netns: str) -> frozenset[Listener]:
    """Those in the namespace at path `netns`; the caller's own if that is empty.

    Of UDP only sockets without a peer. Protocols other than TCP count if the kernel tells of them.
    Raises `KernelSilent`, or `OSError`: `FileNotFoundError` if there is no such namespace.
    """
    with closing(diag_socket(netns)) as asked:
        found: set[Listener] = set()
        for protocol, states in _WANTED.items():
            for family in (_AF_INET, _AF_INET6):
                try:
                    found.update(_ask(asked, family, protocol, states))
                except FileNotFoundError as error:
                    if (family, protocol) == (_AF_INET, Protocol.TCP):
                        raise KernelSilent(
                            "this kernel has no tcp_diag: it does not tell who listens"
                        ) from error
        return frozenset(found)


def _ask(asked: socket.socket, family: int, protocol: Protocol, states: int) -> Iterator[Listener]:
    size = _HEADER.size + _REQUEST.size
    asked.send(
        _HEADER.pack(size, _BY_FAMILY, _DUMP, 0, 0) + _REQUEST.pack(family, protocol, 0, states)
    )
    found: list[Listener] = []
    while (part := asked.recv(_CHUNK)) and _take(part, protocol, found):
        pass
    return iter(found)


def _take(part: bytes, protocol: Protocol, found: list[Listener]) -> bool:
    """Read the messages of one part of an answer; say whether there is more to come."""
    at = 0
    while at < len(part):
        length, kind, *_ = _HEADER.unpack_from(part, at)
        body = part[at + _HEADER.size : at + length]
        if kind in {_ERROR, _DONE}:
            # A protocol that the kernel does not know is an error at the end of an empty list.
            (status,) = _STATUS.unpack_from(body)
            if status < 0:
                raise OSError(-status, os.strerror(-status))
            return False
        if _is_open(body):
            found.append(Listener(protocol, _MESSAGE.unpack_from(body)[2]))
        at += (length + 3) & ~3
    return True


def _is_open(body: bytes) -> bool:
    """Whether IPv4 clients of other machines are heard."""
    family, _, _, source = _MESSAGE.unpack_from(body)
    if family == _AF_INET:
        return not IPv4Address(source[:4]).is_loopback
    address = IPv6Address(source)
    if mapped := address.ipv4_mapped:
        return not mapped.is_loopback
    return not int(address) and not _is_v6only(body[_MESSAGE.size :])


def _is_v6only(attributes: bytes) -> bool:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if kind == _V6ONLY:
            return bool(attributes[at + _ATTRIBUTE.size])
        at += max(_ATTRIBUTE.size, (length + 3) & ~3)
    return False
