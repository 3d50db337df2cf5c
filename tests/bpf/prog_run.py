# SPDX-License-Identifier: Apache-2.0
"""bpf(2), as far as the tests need it: runs of a program, and maps as plain bytes.

A run ends where the program ends: a redirect is a verdict, no packet leaves.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from .bpf_call import Call, Command, MapBatch, MapCreate, MapElement, TestRun, call

_MAP_TYPE_ARRAY = 2
_MMAPABLE = 1 << 10
_ROOM = 4096  # more than any program adds to a packet
_SOURCE_OFFSET = 26  # of an IPv4 packet behind an Ethernet header

_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64


class XdpContext(ctypes.Structure):
    """struct xdp_md. `data` counts from the metadata's first byte here."""

    _fields_ = [
        ("data", _U32),
        ("data_end", _U32),
        ("data_meta", _U32),
        ("ingress_ifindex", _U32),
        ("rx_queue_index", _U32),
        ("egress_ifindex", _U32),
    ]


class SkbContext(ctypes.Structure):
    """struct __sk_buff; what is not named must be zero on the way in."""

    _fields_ = [
        ("len", _U32),
        ("pkt_type", _U32),
        ("mark", _U32),
        ("unused_1", _U32 * 6),
        ("ingress_ifindex", _U32),
        ("ifindex", _U32),
        ("unused_2", _U32 * 8),
        ("data_end", _U32),
        ("unused_3", _U32 * 18),
        ("tstamp", _U64),
        ("wire_len", _U32),
        ("gso_segs", _U32),
        ("unused_4", _U64),
        ("gso_size", _U32),
        ("unused_5", _U32),
        ("hwtstamp", _U64),
    ]


@dataclass(frozen=True)
class Result:
    """What a program made of a packet.

    `metadata` lies in front of it (XDP only); `mark` is what tc has left.
    """

    verdict: int
    data: bytes
    metadata: bytes = b""
    mark: int = field(default=0, compare=False)


def _run(fd: int, data: bytes, context: ctypes.Structure) -> tuple[int, bytes]:
    out = ctypes.create_string_buffer(len(data) + _ROOM)
    source = ctypes.create_string_buffer(data, len(data))
    attr = TestRun(prog_fd=fd, data_size_in=len(data), data_size_out=len(out), repeat=1)
    attr.data_in, attr.data_out = ctypes.addressof(source), ctypes.addressof(out)
    attr.ctx_in = attr.ctx_out = ctypes.addressof(context)
    attr.ctx_size_in = attr.ctx_size_out = ctypes.sizeof(context)
    call(Command.PROG_TEST_RUN, attr)
    return ctypes.c_int32(attr.retval).value, out.raw[: attr.data_size_out]


def run_xdp(fd: int, data: bytes, ifindex: int) -> Result:
    """One run of an XDP program; `data` are at least the 14 bytes of an Ethernet header."""
    context = XdpContext(data_end=len(data), ingress_ifindex=ifindex)
    verdict, out = _run(fd, data, context)
    return Result(verdict, out[context.data :], out[: context.data])


def run_skb(
    fd: int, data: bytes, ifindex: int, gso_segs: int = 0, gso_size: int = 0, mark: int = 0
) -> Result:
    """One run of a tc program."""
    context = SkbContext(ifindex=ifindex, gso_segs=gso_segs, gso_size=gso_size, mark=mark)
    return Result(*_run(fd, data, context), mark=context.mark)


def run_filters(fds: Sequence[int], data: bytes, ifindex: int) -> Result:
    """Runs of tc programs at one place, until one of them decides; with one control block."""
    context = SkbContext(ifindex=ifindex)
    verdict = -1
    for fd in fds:
        verdict, data = _run(fd, data, context)
        if verdict != -1:
            break
    return Result(verdict, data, mark=context.mark)


class Flood:
    """Many runs of one program on one packet, of which only the source address changes."""

    def __init__(self, fd: int, data: bytes, context: XdpContext | SkbContext) -> None:
        self._packet = ctypes.create_string_buffer(data, len(data))
        self._context = context  # kept alive: the kernel reads it
        run = TestRun(prog_fd=fd, data_size_in=len(data), repeat=1)
        run.data_in = ctypes.addressof(self._packet)
        run.ctx_in = ctypes.addressof(context)
        run.ctx_size_in = ctypes.sizeof(context)
        self._attr, self._run = run, Call(Command.PROG_TEST_RUN, run)

    def __call__(self, source: int) -> int:
        """The verdict on a packet from this address (host order)."""
        struct.pack_into(">I", self._packet, _SOURCE_OFFSET, source)
        self._run()
        return ctypes.c_int32(self._attr.retval).value


def array_of_one(value: bytes) -> int:
    """File descriptor of an array map that holds `value` alone, like the template of tables."""
    fd = call(
        Command.MAP_CREATE,
        MapCreate(
            map_type=_MAP_TYPE_ARRAY,
            key_size=4,
            value_size=len(value),
            max_entries=1,
            flags=_MMAPABLE,
        ),
    )
    key, held = _U32(0), ctypes.create_string_buffer(value, len(value))
    attr = MapElement(map_fd=fd, key=ctypes.addressof(key), value=ctypes.addressof(held))
    call(Command.MAP_UPDATE_ELEM, attr)
    return fd


class Runner:
    """One program run again and again: buffers and attributes are made once.

    `xdp` tells the kind; `ifindex` is where the packets come in.
    """

    def __init__(self, fd: int, ifindex: int, *, xdp: bool, longest: int = 2 * _ROOM) -> None:
        self._data = ctypes.create_string_buffer(longest)
        self._view = memoryview(self._data).cast("B")
        self._out = ctypes.create_string_buffer(longest + _ROOM)
        self._xdp = XdpContext(ingress_ifindex=ifindex) if xdp else None
        self._ifindex = ifindex
        context = self._xdp or SkbContext(ifindex=ifindex)
        self._context = context
        self._attr = TestRun(prog_fd=fd, repeat=1)
        self._attr.data_in = ctypes.addressof(self._data)
        self._attr.data_out = ctypes.addressof(self._out)
        self._attr.ctx_in = ctypes.addressof(context)
        self._attr.ctx_size_in = ctypes.sizeof(context)
        if xdp:
            self._attr.ctx_out = self._attr.ctx_in
            self._attr.ctx_size_out = self._attr.ctx_size_in
        self._run = Call(Command.PROG_TEST_RUN, self._attr)

    def run(self, packet: bytes) -> tuple[int, bytes, bytes]:
        """Verdict, packet and metadata. Raises `OSError` for what the kernel does not run."""
        attr, length = self._attr, len(packet)
        self._view[:length] = packet
        attr.data_size_in, attr.data_size_out = length, len(self._out)
        if self._xdp is not None:
            xdp = self._xdp
            xdp.data = xdp.data_meta = 0
            xdp.data_end, xdp.ingress_ifindex = length, self._ifindex
            attr.ctx_size_out = attr.ctx_size_in
        self._run()
        out = ctypes.string_at(self._out, attr.data_size_out)
        verdict = attr.retval if attr.retval < 1 << 31 else attr.retval - (1 << 32)
        if self._xdp is None:
            return verdict, out, b""
        return verdict, out[self._xdp.data :], out[: self._xdp.data]


class Reader:
    """All of a map in one system call, as bytes. `leaf_size` counts every CPU's value."""

    def __init__(self, fd: int, key_size: int, leaf_size: int, entries: int) -> None:
        self._key_size, self._leaf_size, self._entries = key_size, leaf_size, entries
        self._cursor = ctypes.create_string_buffer(max(4, key_size))
        self._keys = ctypes.create_string_buffer(key_size * entries)
        self._leaves = ctypes.create_string_buffer(leaf_size * entries)
        self._attr = MapBatch(map_fd=fd, out_batch=ctypes.addressof(self._cursor))
        self._attr.keys = ctypes.addressof(self._keys)
        self._attr.values = ctypes.addressof(self._leaves)

    def values(self) -> bytes:
        """The values of an array map, in order of index."""
        self._call(Command.MAP_LOOKUP_BATCH)
        return self._leaves.raw

    def items(self, *, take: bool = False) -> list[tuple[bytes, bytes]]:
        """Keys and values of a hash map; with `take` it is empty afterwards."""
        look = Command.MAP_LOOKUP_AND_DELETE_BATCH if take else Command.MAP_LOOKUP_BATCH
        count = self._call(look)
        k, v = self._key_size, self._leaf_size
        keys = ctypes.string_at(self._keys, count * k)
        leaves = ctypes.string_at(self._leaves, count * v)
        return [(keys[i * k : i * k + k], leaves[i * v : i * v + v]) for i in range(count)]

    def _call(self, command: Command) -> int:
        self._attr.count = self._entries
        Call(command, self._attr)(but=errno.ENOENT)  # which says that the end was reached
        return int(self._attr.count)
