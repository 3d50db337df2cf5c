# SPDX-License-Identifier: Apache-2.0
"""Blocks of a pcapng file, which Wireshark and tshark read. Pure, no I/O.

The format is that of draft-ietf-opsawg-pcapng. Everything is little-endian; times are nanoseconds
since 1970. The blocks of a file: one `section`, an `interface` for each place, then packets, and at
the end what each interface has lost.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

SECTION, INTERFACE, PACKET, STATISTICS = 0x0A0D0D0A, 1, 6, 5
_MAGIC = 0x1A2B3C4D
_UNKNOWN_LENGTH = 0xFFFFFFFFFFFFFFFF
_ETHERNET = 1
_NANOSECONDS = 9

# Options: what they are depends on the block.
_END, _COMMENT = 0, 1
_USER_APPLICATION = 4
_NAME, _DESCRIPTION, _RESOLUTION = 2, 3, 9
_FLAGS = 2
_RECEIVED, _DROPPED = 4, 5
_INBOUND, _OUTBOUND = 1, 2

Option = tuple[int, bytes]


class Block(NamedTuple):
    """One block: of which kind, and all of it."""

    kind: int
    data: bytes

    @property
    def place(self) -> int:
        """The interface that a packet, or statistics, are of."""
        return int(struct.unpack_from("<I", self.data, 8)[0])

    @property
    def time_ns(self) -> int:
        """When a packet was seen, or till when statistics count."""
        high, low = struct.unpack_from("<II", self.data, 12)
        return int(high << 32 | low)

    @property
    def dropped(self) -> int:
        """What the statistics of `statistics` say was lost."""
        return int(struct.unpack_from("<Q", self.data, 36)[0])


def blocks(read: Callable[[int], bytes]) -> Iterator[Block]:
    """The whole blocks of what `read` gives; one that is cut short at the end is left out."""
    while len(head := read(8)) == 8:  # noqa: PLR2004 - kind and length
        kind, length = struct.unpack("<II", head)
        rest = read(max(0, length - len(head)))
        if len(head) + len(rest) < length:
            return
        yield Block(kind, head + rest)


def section(application: str) -> bytes:
    """The beginning of a file; `application` has made it."""
    body = struct.pack("<IHHQ", _MAGIC, 1, 0, _UNKNOWN_LENGTH)
    return _block(SECTION, body, [(_USER_APPLICATION, application.encode())])


def interface(name: str, description: str, snaplen: int) -> bytes:
    """A place with Ethernet frames; packets name it by its number, counted from 0."""
    body = struct.pack("<HHI", _ETHERNET, 0, snaplen)
    options = [
        (_NAME, name.encode()),
        (_DESCRIPTION, description.encode()),
        (_RESOLUTION, bytes([_NANOSECONDS])),
    ]
    return _block(INTERFACE, body, options)


def packet(place: int, time_ns: int, data: bytes, length: int, *, outbound: bool) -> bytes:
    """A packet: the `data` that were kept of it, and how long it was."""
    body = struct.pack(
        "<IIIII", place, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), max(length, len(data))
    )
    flags = struct.pack("<I", _OUTBOUND if outbound else _INBOUND)
    return _block(PACKET, body + _padded(data), [(_FLAGS, flags)])


def statistics(place: int, time_ns: int, received: int, dropped: int) -> bytes:
    """How many packets were seen at a place, and how many nobody took in time."""
    body = struct.pack("<III", place, time_ns >> 32, time_ns & 0xFFFFFFFF)
    options = [(_RECEIVED, struct.pack("<Q", received)), (_DROPPED, struct.pack("<Q", dropped))]
    return _block(STATISTICS, body, options)


def _block(kind: int, body: bytes, options: Iterable[Option]) -> bytes:
    told = b"".join(
        struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options
    )
    told += struct.pack("<HH", _END, 0)
    length = 12 + len(body) + len(told)
    return struct.pack("<II", kind, length) + body + told + struct.pack("<I", length)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
