# SPDX-License-Identifier: Apache-2.0
"""bpf(2), as far as the benches need it: timed runs, whole maps at a time, small programs."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SYSCALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_MAP_CREATE, _MAP_UPDATE_ELEM, _PROG_LOAD, _PROG_TEST_RUN = 0, 2, 5, 10
_LOOKUP_AND_DELETE_BATCH, _UPDATE_BATCH = 25, 26
_MAP_TYPE_PROG_ARRAY = 3
_LOG_SIZE = 1 << 16
_BATCH = 1 << 16

_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long]


class TestRun(ctypes.Structure):
    """The attributes of BPF_PROG_TEST_RUN."""

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


class _Load(ctypes.Structure):
    _fields_ = [
        ("prog_type", _U32),
        ("insn_cnt", _U32),
        ("insns", _U64),
        ("license", _U64),
        ("log_level", _U32),
        ("log_size", _U32),
        ("log_buf", _U64),
        ("kern_version", _U32),
        ("prog_flags", _U32),
        ("prog_name", ctypes.c_char * 16),
    ]


class _Create(ctypes.Structure):
    _fields_ = [(n, _U32) for n in ("map_type", "key_size", "value_size", "max_entries", "flags")]


class _Element(ctypes.Structure):
    _fields_ = [("map_fd", _U32), ("pad", _U32), ("key", _U64), ("value", _U64), ("flags", _U64)]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("in_batch", _U64),
        ("out_batch", _U64),
        ("keys", _U64),
        ("values", _U64),
        ("count", _U32),
        ("map_fd", _U32),
        ("elem_flags", _U64),
        ("flags", _U64),
    ]


def _call(command: int, attr: ctypes.Structure) -> int:
    return int(_libc.syscall(_SYSCALL, command, ctypes.byref(attr), ctypes.sizeof(attr)))


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def load(kind: int, code: bytes, name: str) -> int:
    """File descriptor of a program of this type (enum bpf_prog_type); its log, if it is refused."""
    insns = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Dual BSD/GPL")
    log = ctypes.create_string_buffer(_LOG_SIZE)
    attr = _Load(prog_type=kind, insn_cnt=len(code) // 8, insns=ctypes.addressof(insns))
    attr.license, attr.prog_name = ctypes.addressof(licence), name.encode()
    attr.log_level, attr.log_size, attr.log_buf = 1, _LOG_SIZE, ctypes.addressof(log)
    fd = _call(_PROG_LOAD, attr)
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"{name} was refused:\n{log.value.decode()}")
    return fd


def jump_table(program: int) -> int:
    """File descriptor of a map for tail calls, with this program alone."""
    attr = _Create(map_type=_MAP_TYPE_PROG_ARRAY, key_size=4, value_size=4, max_entries=1)
    table = _call(_MAP_CREATE, attr)
    key, value = _U32(0), _U32(program)
    element = _Element(map_fd=table, key=ctypes.addressof(key), value=ctypes.addressof(value))
    if table < 0 or _call(_MAP_UPDATE_ELEM, element) < 0:
        raise _error("the program was not put into a map")
    return table


def timed(attr: TestRun) -> int:
    """Run; nanoseconds per run, as the kernel has measured them."""
    if _libc.syscall(_SYSCALL, _PROG_TEST_RUN, ctypes.byref(attr), ctypes.sizeof(attr)) < 0:
        raise _error("a program did not run")
    return int(attr.duration)


class Shots:
    """Runs of one program on packets that come again and again in turn, each from the start."""

    def __init__(self, fd: int, packets: Sequence[bytes], context: ctypes.Structure) -> None:
        """All packets are of one length; the kernel reads `context` at every run."""
        size = len(packets[0])
        self._context = context
        self._data = ctypes.create_string_buffer(b"".join(packets))
        self._attr = TestRun(prog_fd=fd, data_size_in=size, repeat=1)
        self._attr.ctx_in = ctypes.addressof(context)
        self._attr.ctx_size_in = ctypes.sizeof(context)
        start = ctypes.addressof(self._data)
        self._places = [start + n * size for n in range(len(packets))]

    def run(self, count: int) -> NDArray[np.uint32]:
        """Nanoseconds of each of `count` runs, one packet after the other."""
        attr, places, syscall = self._attr, self._places, _libc.syscall
        where, size = ctypes.addressof(attr), ctypes.sizeof(attr)
        took = np.empty(count, dtype=np.uint32)
        for number in range(count):
            attr.data_in = places[number % len(places)]
            if syscall(_SYSCALL, _PROG_TEST_RUN, where, size) < 0:
                raise _error("a program did not run")
            took[number] = attr.duration
        return took

    def repeat(self, count: int) -> float:
        """Nanoseconds per run, of `count` in one call: the packet is as the last run left it."""
        self._attr.data_in, self._attr.repeat = self._places[0], count
        try:
            return timed(self._attr)
        finally:
            self._attr.repeat = 1

    def verdicts(self) -> set[int]:
        """What the program says to each of the packets."""
        found = set()
        for place in self._places:
            self._attr.data_in = place
            timed(self._attr)
            found.add(ctypes.c_int32(self._attr.retval).value)
        return found


def fill(fd: int, keys: NDArray[Any], values: NDArray[Any]) -> None:
    """Writes all entries, some ten thousand in a call."""
    for first in range(0, len(keys), _BATCH):
        k, v = keys[first : first + _BATCH], values[first : first + _BATCH]
        attr = _Batch(map_fd=fd, keys=k.ctypes.data, values=v.ctypes.data, count=len(k))
        if _call(_UPDATE_BATCH, attr) < 0:
            raise _error("a map was not filled")


def drain(fd: int, key_size: int, value_size: int) -> int:
    """Empties a hash map; returns how many entries it had."""
    keys, values = (ctypes.create_string_buffer(_BATCH * n) for n in (key_size, value_size))
    cursor = ctypes.create_string_buffer(max(4, key_size))
    attr = _Batch(map_fd=fd, keys=ctypes.addressof(keys), values=ctypes.addressof(values))
    attr.out_batch, taken = ctypes.addressof(cursor), 0
    while True:
        attr.count = _BATCH
        done = _call(_LOOKUP_AND_DELETE_BATCH, attr) < 0
        taken += int(attr.count)
        if done:
            if ctypes.get_errno() != errno.ENOENT:
                raise _error("a map was not emptied")
            return taken
        attr.in_batch = ctypes.addressof(cursor)
