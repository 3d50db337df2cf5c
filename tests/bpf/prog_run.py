# SPDX-License-Identifier: Apache-2.0
"""bpf(2), as far as the tests need it: one run of a program, and one array to put into a map.

A run ends where the program ends: a redirect is a verdict, no packet leaves.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from dataclasses import dataclass

_SYSCALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_MAP_CREATE, _MAP_UPDATE_ELEM, _PROG_TEST_RUN = 0, 2, 10
_MAP_TYPE_ARRAY = 2
_ROOM = 4096  # more than any program adds to a packet
_SOURCE_OFFSET = 26  # of an IPv4 packet behind an Ethernet header

_libc = ctypes.CDLL(None, use_errno=True)
_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64


class _TestRun(ctypes.Structure):
    _fields_ = [
        ("prog_fd", _U32),
        ("retval", _U32),
        ("data_size_in", _U32),
        ("data_size_out", _U32),
        ("data_in", _U64),
        ("data_out", _U64),
        ("repeat", _U32),
        ("duration", _U32),
        ("ctx_size_in", _U32),
        ("ctx_size_out", _U32),
        ("ctx_in", _U64),
        ("ctx_out", _U64),
        ("flags", _U32),
        ("cpu", _U32),
        ("batch_size", _U32),
        ("pad", _U32),
    ]


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


class _MapCreate(ctypes.Structure):
    _fields_ = [(n, _U32) for n in ("map_type", "key_size", "value_size", "max_entries", "flags")]


class _MapElement(ctypes.Structure):
    _fields_ = [("map_fd", _U32), ("pad", _U32), ("key", _U64), ("value", _U64), ("flags", _U64)]


@dataclass(frozen=True)
class Result:
    """What a program made of a packet. `metadata` lies in front of it (XDP only)."""

    verdict: int
    data: bytes
    metadata: bytes = b""


def _bpf(command: int, attr: ctypes.Structure) -> int:
    result: int = _libc.syscall(_SYSCALL, command, ctypes.byref(attr), ctypes.sizeof(attr))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result


def _run(fd: int, data: bytes, context: ctypes.Structure) -> tuple[int, bytes]:
    out = ctypes.create_string_buffer(len(data) + _ROOM)
    source = ctypes.create_string_buffer(data, len(data))
    attr = _TestRun(prog_fd=fd, data_size_in=len(data), data_size_out=len(out), repeat=1)
    attr.data_in, attr.data_out = ctypes.addressof(source), ctypes.addressof(out)
    attr.ctx_in = attr.ctx_out = ctypes.addressof(context)
    attr.ctx_size_in = attr.ctx_size_out = ctypes.sizeof(context)
    _bpf(_PROG_TEST_RUN, attr)
    return ctypes.c_int32(attr.retval).value, out.raw[: attr.data_size_out]


def run_xdp(fd: int, data: bytes, ifindex: int) -> Result:
    """One run of an XDP program; `data` are at least the 14 bytes of an Ethernet header."""
    context = XdpContext(data_end=len(data), ingress_ifindex=ifindex)
    verdict, out = _run(fd, data, context)
    return Result(verdict, out[context.data :], out[: context.data])


def run_skb(fd: int, data: bytes, ifindex: int, gso_segs: int = 0, gso_size: int = 0) -> Result:
    """One run of a tc program."""
    context = SkbContext(ifindex=ifindex, gso_segs=gso_segs, gso_size=gso_size)
    return Result(*_run(fd, data, context))


class Flood:
    """Many runs of one program on one packet, of which only the source address changes."""

    def __init__(self, fd: int, data: bytes, context: XdpContext | SkbContext) -> None:
        self._packet = ctypes.create_string_buffer(data, len(data))
        self._context = context  # kept alive: the kernel reads it
        self._run = _TestRun(prog_fd=fd, data_size_in=len(data), repeat=1)
        self._run.data_in = ctypes.addressof(self._packet)
        self._run.ctx_in = ctypes.addressof(context)
        self._run.ctx_size_in = ctypes.sizeof(context)

    def __call__(self, source: int) -> int:
        """The verdict on a packet from this address (host order)."""
        struct.pack_into(">I", self._packet, _SOURCE_OFFSET, source)
        _bpf(_PROG_TEST_RUN, self._run)
        return ctypes.c_int32(self._run.retval).value


def array_of_one(value: bytes) -> int:
    """File descriptor of an array map that holds `value` alone."""
    fd = _bpf(
        _MAP_CREATE,
        _MapCreate(map_type=_MAP_TYPE_ARRAY, key_size=4, value_size=len(value), max_entries=1),
    )
    key, held = _U32(0), ctypes.create_string_buffer(value, len(value))
    attr = _MapElement(map_fd=fd, key=ctypes.addressof(key), value=ctypes.addressof(held))
    _bpf(_MAP_UPDATE_ELEM, attr)
    return fd
