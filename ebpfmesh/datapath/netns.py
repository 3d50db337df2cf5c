# SPDX-License-Identifier: Apache-2.0
"""Sockets in other network namespaces.

A socket belongs to the namespace in which it was opened, for good. So a thread enters the
namespace, opens the socket and ends: no process is forked, and no other thread moves.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_CLONE_NEWNET = 0x40000000
_NETLINK_ROUTE, _NETLINK_SOCK_DIAG = 0, 4
_SO_NETNS_COOKIE = 71

_libc = ctypes.CDLL(None, use_errno=True)


def _open_netlink(protocol: int = _NETLINK_ROUTE) -> socket.socket:
    # The kernel makes no difference between datagram and raw; asyncio wants the former.
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    return socket.socket(socket.AF_NETLINK, kind, protocol)


def _open_diag() -> socket.socket:
    return _open_netlink(_NETLINK_SOCK_DIAG)


def _open_packet() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)


def _enter_and_open(path: str, open_here: Callable[[], socket.socket]) -> socket.socket:
    """Moves the calling thread into the namespace for the rest of its life."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, _CLONE_NEWNET):
            number = ctypes.get_errno()
            # dockerd unmounts a namespace that it gives up at once, but removes the file below
            # it only a minute later: until then there is a file that is no namespace.
            if number == errno.EINVAL:
                number = errno.ENOENT
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(fd)
    return open_here()


def _open_in(netns: str, open_here: Callable[[], socket.socket]) -> socket.socket:
    if not netns:
        return open_here()
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(_enter_and_open, netns, open_here).result()


def netlink_socket(netns: str) -> socket.socket:
    """An rtnetlink socket in the namespace at path `netns`; in the caller's own if that is empty.

    The caller closes it. Raises `FileNotFoundError` if there is no namespace at that path (any
    more), `OSError` if it may not be entered.
    """
    return _open_in(netns, _open_netlink)


def cookie_of(opened: socket.socket) -> int:
    """The kernel's name for the namespace of a socket; it is never given twice."""
    return int.from_bytes(opened.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")


def packet_socket(netns: str) -> socket.socket:
    """A raw packet socket that receives nothing; otherwise as `netlink_socket`."""
    return _open_in(netns, _open_packet)


def diag_socket(netns: str) -> socket.socket:
    """A socket that the kernel can be asked about sockets by; otherwise as `netlink_socket`."""
    return _open_in(netns, _open_diag)
