# SPDX-License-Identifier: Apache-2.0
"""Maglev tables, filled by the kernel: the same as `ebpfmesh.maglev` builds, several times faster.

To fill a table is a loop over some M ln M tries for M slots, each a few machine instructions: work
for a compiled language, and an agent has no compiler. But the kernel has one, for programs such as
this. It looks at nothing but a map of its own, and is run by BPF_PROG_TEST_RUN: no packet meets it.

The map is one value, which the agent has in its memory, too:

    u32 size, count;         slots of the table, backends
    u32 turn, left;          whose turn it is, how many turns are left
    u32 owner[SLOTS];        0: free; else the backend, counted from 1
    struct { u32 slot, skip; } backends[SLOTS];    where each one's permutation goes on

Every run makes some tries of the paper's loop (docs/adr/0003-maglev-tables.md), for a microsecond;
between two of them the kernel lets others have the CPU, and looks for signals.

Programs that meet packets never see this map: a table is put before them once it is whole.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import struct
from collections.abc import Sequence

import numpy as np
import structlog

from ebpfmesh.datapath import kernel
from ebpfmesh.maglev import Table, check_size, equal_table, permutation

_ARRAY, _MMAPABLE = 2, 1 << 10  # BPF_MAP_TYPE_ARRAY, BPF_F_MMAPABLE
_TC = 3  # BPF_PROG_TYPE_SCHED_CLS
_SLOTS = 1 << 17  # a power of 2, above the largest table
_SIZE, _COUNT, _TURN, _LEFT, _OWNERS = 0, 4, 8, 12, 16  # offsets
_BACKENDS = _OWNERS + 4 * _SLOTS
_VALUE_SIZE = _BACKENDS + 8 * _SLOTS
_TRIES = 256  # of a run: as many as the verifier walks through in a few milliseconds
_CALLS = 100  # more tries than all permutations have, even for 1,000 backends
_PACKET = bytes(64)  # a test run wants one
_SAMPLE = ("a", "b", "c"), 31

log = structlog.get_logger(__name__)


class Builder:
    """Builds the tables of an agent: by the kernel, or by itself once the kernel will not."""

    def __init__(self) -> None:
        self._filler: Filler | None = None
        try:
            self._filler = _tried()
        except OSError as error:
            self._give_up(error)

    def __call__(self, names: Sequence[str], size: int) -> Table | None:
        """The table in which all weigh the same; `names` are sorted. None if there are none."""
        if self._filler is not None and len(names) <= _SLOTS:
            try:
                return self._filler.table(names, size)
            except OSError as error:
                self._give_up(error)
        return equal_table(names, size)

    def _give_up(self, error: OSError) -> None:
        self._filler = None
        log.warning("tables.built_slowly", error=str(error))


def _tried() -> Filler:
    """A filler that makes of a few names what Python makes of them: any kernel may have a fault."""
    filler = Filler()
    found, wanted = filler.table(*_SAMPLE), equal_table(*_SAMPLE)
    if found is None or wanted is None or found.tolist() != wanted.tolist():
        raise OSError(errno.EIO, "the kernel made another table than it should")
    return filler


class Filler:
    """One map and its program, for as long as the process lives. Raises `OSError`."""

    def __init__(self) -> None:
        table = kernel.create_map("maglev_filler", _ARRAY, 4, _VALUE_SIZE, 1, _MMAPABLE)
        try:
            length = -(-_VALUE_SIZE // mmap.PAGESIZE) * mmap.PAGESIZE
            self._memory = mmap.mmap(table, length)
            self._program = kernel.load_program("maglev_fill", _TC, _program(table))
        finally:
            os.close(table)  # memory and program hold it
        self._head = np.frombuffer(self._memory, np.uint32, _OWNERS // 4)
        self._owners = np.frombuffer(self._memory, np.uint32, _SLOTS, _OWNERS)
        self._backends = np.frombuffer(self._memory, np.uint32, 2 * _SLOTS, _BACKENDS)

    def table(self, names: Sequence[str], size: int) -> Table | None:
        """What `build_table` gives where all weigh the same; `names` are sorted."""
        check_size(size)
        if not names:
            return None
        pairs = [permutation(name, size) for name in names]
        self._backends[: 2 * len(names)] = np.array(pairs, dtype=np.uint32).ravel()
        self._owners[:size] = 0
        self._head[:] = size, len(names), 0, size
        # That many runs are enough, mostly; a signal makes them fewer.
        runs = round(size * (math.log(size) + 1) / _TRIES) + 1
        for _ in range(_CALLS):
            kernel.run_program(self._program, _PACKET, runs)
            if not self._head[_LEFT // 4]:
                return self._owners[:size] - np.uint32(1)
        raise OSError(errno.EIO, "the kernel did not come to an end with a table")


def _program(table: int) -> bytes:
    """The loop, in instructions (RFC 9669).

    r0, r6: the value's backends and its start; r1: tries left in this run; r2: slots; r3: backends;
    r4: whose turn it is; r5: turns left. The turn is read from memory at each try: so the verifier
    knows nothing of it, and finds each try to be like the one before.
    """
    begin = _value(6, table, 0) + _value(0, table, _BACKENDS)
    for register, offset in ((2, _SIZE), (3, _COUNT), (5, _LEFT)):
        begin += _load(register, 6, offset)
    # r7: the backend; r8: its next slot; the one after that is kept.
    slot = _load(4, 6, _TURN) + _move(7, 4) + _and(7, _SLOTS - 1) + _shift(7, 3) + _plus(7, 0)
    slot += _load(8, 7, 0) + _load(9, 7, 4) + _plus(9, 8)
    slot += _insn(_IF_LESS, 9, 2, 1) + _insn(_SUBTRACT, 9, 2) + _store(7, 9, 0)
    # r9: the slot's owner. If it has none, the backend takes it, and the next one has its turn.
    take = _plus_number(4, 1) + _store(9, 4, _OWNERS) + _plus_number(5, -1)
    take += _insn(_IF_LESS, 4, 3, 1) + _set(4, 0) + _store(6, 4, _TURN)
    owner = _and(8, _SLOTS - 1) + _shift(8, 2) + _move(9, 6) + _plus(9, 8)
    owner += _load(7, 9, _OWNERS) + _insn(_IF_NOT, 7, off=_length(take) + 1) + take
    # After a slot was taken: out if it was the last.
    again = _plus_number(1, -1)
    body = slot + owner + _insn(_IF, 5, off=2) + again
    body += _insn(_IF_NOT, 1, off=-(_length(body) + 1))
    end = _store(6, 5, _LEFT) + _set(0, 0) + _insn(_EXIT)
    nothing = _insn(_IF_NOT, 5, off=2) + _set(0, 0) + _insn(_EXIT)
    return begin + nothing + _set(1, _TRIES) + body + end


_IF, _IF_NOT, _IF_LESS = 0x15, 0x55, 0xAD  # == number, != number, < register
_SUBTRACT, _EXIT = 0x1F, 0x95
_PSEUDO_MAP_VALUE = 2


def _insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, src << 4 | dst, off, imm)


def _length(code: bytes) -> int:
    return len(code) // 8


def _value(dst: int, table: int, offset: int) -> bytes:
    """The address of a byte of the map's value."""
    return _insn(0x18, dst, _PSEUDO_MAP_VALUE, imm=table) + _insn(0, imm=offset)


def _load(dst: int, src: int, off: int) -> bytes:
    return _insn(0x61, dst, src, off)


def _store(dst: int, src: int, off: int) -> bytes:
    return _insn(0x63, dst, src, off)


def _move(dst: int, src: int) -> bytes:
    return _insn(0xBF, dst, src)


def _set(dst: int, imm: int) -> bytes:
    return _insn(0xB7, dst, imm=imm)


def _plus(dst: int, src: int) -> bytes:
    return _insn(0x0F, dst, src)


def _plus_number(dst: int, imm: int) -> bytes:
    return _insn(0x07, dst, imm=imm)


def _and(dst: int, imm: int) -> bytes:
    return _insn(0x57, dst, imm=imm)


def _shift(dst: int, imm: int) -> bytes:
    return _insn(0x67, dst, imm=imm)
