# SPDX-License-Identifier: Apache-2.0
"""bpf(2), as far as the benches need it: timed runs, whole maps at a time, small programs."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bpf.bpf_call import (
    Call,
    Command,
    MapBatch,
    MapCreate,
    MapElement,
    ProgLoad,
    TestRun,
    call,
)

_MAP_TYPE_PROG_ARRAY = 3
_LOG_SIZE = 1 << 16
_BATCH = 1 << 16


def load(kind: int, code: bytes, name: str) -> int:
    """File descriptor of a program of this type (enum bpf_prog_type); its log, if it is refused."""
    insns = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Dual BSD/GPL")
    log = ctypes.create_string_buffer(_LOG_SIZE)
    attr = ProgLoad(prog_type=kind, insn_cnt=len(code) // 8, insns=ctypes.addressof(insns))
    attr.license, attr.prog_name = ctypes.addressof(licence), name.encode()
    attr.log_level, attr.log_size, attr.log_buf = 1, _LOG_SIZE, ctypes.addressof(log)
    try:
        return call(Command.PROG_LOAD, attr)
    except OSError as error:
        raise OSError(error.errno, f"{name} was refused:\n{log.value.decode()}") from None


def jump_table(program: int) -> int:
    """File descriptor of a map for tail calls, with this program alone."""
    attr = MapCreate(map_type=_MAP_TYPE_PROG_ARRAY, key_size=4, value_size=4, max_entries=1)
    table = call(Command.MAP_CREATE, attr)
    key, value = ctypes.c_uint32(0), ctypes.c_uint32(program)
    element = MapElement(map_fd=table, key=ctypes.addressof(key), value=ctypes.addressof(value))
    call(Command.MAP_UPDATE_ELEM, element)
    return table


def timed(attr: TestRun) -> int:
    """Run; nanoseconds per run, as the kernel has measured them."""
    call(Command.PROG_TEST_RUN, attr)
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
        attr, places, run = self._attr, self._places, Call(Command.PROG_TEST_RUN, self._attr)
        took = np.empty(count, dtype=np.uint32)
        for number in range(count):
            attr.data_in = places[number % len(places)]
            run()
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
        attr = MapBatch(map_fd=fd, keys=k.ctypes.data, values=v.ctypes.data, count=len(k))
        call(Command.MAP_UPDATE_BATCH, attr)


def drain(fd: int, key_size: int, value_size: int) -> int:
    """Empties a hash map; returns how many entries it had."""
    keys, values = (ctypes.create_string_buffer(_BATCH * n) for n in (key_size, value_size))
    cursor = ctypes.create_string_buffer(max(4, key_size))
    attr = MapBatch(map_fd=fd, keys=ctypes.addressof(keys), values=ctypes.addressof(values))
    attr.out_batch, taken = ctypes.addressof(cursor), 0
    take, done = Call(Command.MAP_LOOKUP_AND_DELETE_BATCH, attr), 0
    while done == 0:
        attr.count = _BATCH
        done = take(but=errno.ENOENT)
        taken += int(attr.count)
        attr.in_batch = ctypes.addressof(cursor)
    return taken
