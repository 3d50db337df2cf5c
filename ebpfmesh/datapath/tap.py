# SPDX-License-Identifier: Apache-2.0
"""Copies of the packets that pass a link, in any network namespace (packet(7))."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from ebpfmesh.capturing import Instruction
from ebpfmesh.datapath.netns import packet_socket

_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA = 263, 6, 8
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 26, 33, 35
_ETH_P_ALL = 3
_OUTGOING = 4  # PACKET_OUTGOING
_BUFFER = 4 << 20  # bytes
_ANCILLARY = 256  # bytes; more than both kinds need

_libc = ctypes.CDLL(None, use_errno=True)


class Copy(NamedTuple):
    """One packet. `time_ns` since 1970; `length` is what it had, of which `data` was kept."""

    time_ns: int
    data: bytes
    length: int
    outbound: bool


class Tap:
    """Sees what comes in at a link before programs of tc do, and what goes out after them."""

    def __init__(
        self, netns: str, ifindex: int, wanted: Sequence[Instruction], snaplen: int
    ) -> None:
        """`netns` is a path, empty for this namespace. Raises `OSError`."""
        self._snaplen = snaplen
        self._received = self._dropped = 0
        self._socket = packet_socket(netns)
        try:
            self._socket.setblocking(False)
            self._set_filter(wanted)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            self._bind(ifindex)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For select(2)."""
        return self._socket.fileno()

    def take(self) -> Copy | None:
        """The next packet, if there is one. Raises `OSError` if the link has gone."""
        try:
            data, notes, _, address = self._socket.recvmsg(self._snaplen, _ANCILLARY)
        except BlockingIOError:
            return None
        time_ns, length = 0, len(data)
        for level, kind, value in notes:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack_from("=qq", value)
                time_ns = seconds * 10**9 + nanoseconds
            elif (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                (length,) = struct.unpack_from("=I", value, 4)
        return Copy(time_ns, data, length, outbound=address[2] == _OUTGOING)

    def counts(self) -> tuple[int, int]:
        """How many packets have been wanted, and how many of these found no room."""
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        received, dropped = struct.unpack("=II", raw)  # since it was asked last
        self._received += received
        self._dropped += dropped
        return self._received, self._dropped

    def close(self) -> None:
        """Ends it."""
        self._socket.close()

    def _set_filter(self, wanted: Sequence[Instruction]) -> None:
        code = ctypes.create_string_buffer(
            b"".join(struct.pack("=HBBI", i.code, i.then, i.otherwise, i.value) for i in wanted)
        )
        program = struct.pack("@HP", len(wanted), ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def _bind(self, ifindex: int) -> None:
        """By number: names change, and are those of another namespace."""
        address = struct.pack(
            "=HHiHBB8s", socket.AF_PACKET, socket.htons(_ETH_P_ALL), ifindex, 0, 0, 0, b""
        )
        if _libc.bind(self._socket.fileno(), address, len(address)):
            number = ctypes.get_errno()
            raise OSError(number, f"link {ifindex}: {os.strerror(number)}")
