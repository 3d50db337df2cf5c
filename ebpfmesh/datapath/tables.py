# SPDX-License-Identifier: Apache-2.0
"""The tables that new flows choose their backends by, in the kernel.

A pool's table is written anew in place: its memory is the agent's, too. To put another one in its
stead would hold up all that is done after it, for the kernel then waits until no program can still
read the old one. Programs read a slot for a flow, and find there who had it or who has it now.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Mapping

import numpy as np

from ebpfmesh.datapath.errors import MapError
from ebpfmesh.datapath.library import lib
from ebpfmesh.datapath.loader import Module

_ARRAY = 2  # BPF_MAP_TYPE_ARRAY
_MMAPABLE = 1 << 10  # BPF_F_MMAPABLE; as that of the template in bpf/maps.h
_ABSENT = -1


class Tables:
    """Those of one `Module`, by pool id. `slots` is how many backend ids each has."""

    def __init__(self, module: Module) -> None:
        self._fd = module.table("maglev").map_fd
        self.slots = ctypes.sizeof(module.table("maglev_template").Leaf) // 4
        self._size = 4 * self.slots

    def put(self, tables: Mapping[int, bytes]) -> None:
        """Brings in these tables: `slots` backend ids each, of 4 bytes in host byte order.

        Those of pools that had none are filled aside and put in place at once. An empty one takes
        the pool's table out.
        """
        wrong = {len(table) for table in tables.values()} - {0, self._size}
        if wrong:
            raise ValueError(f"a table of {wrong} bytes, where {self._size} are wanted")
        filled: dict[int, int] = {}
        try:
            for pool, table in tables.items():
                if table and not self._rewrite(pool, table):
                    filled[pool] = self._new(table)
            self._place(filled)
        finally:
            for fd in filled.values():
                os.close(fd)
        for pool, table in tables.items():
            if not table:
                self._take_out(pool)

    def _rewrite(self, pool: int, table: bytes) -> bool:
        """Write the slots that differ, each in one step; False if the pool has no table."""
        fd = self._open(pool)
        if fd == _ABSENT:
            return False
        try:
            memory = mmap.mmap(fd, -(-self._size // mmap.PAGESIZE) * mmap.PAGESIZE)
        except OSError as error:
            raise MapError(f"the table of pool {pool} was not opened: {error}") from error
        finally:
            os.close(fd)
        there = np.frombuffer(memory, dtype=np.uint32, count=self.slots)
        wanted = np.frombuffer(table, dtype=np.uint32)
        different = np.flatnonzero(there != wanted)
        there[different] = wanted[different]
        del there  # it keeps the memory open
        memory.close()
        return True

    def _open(self, pool: int) -> int:
        key, number = ctypes.c_uint32(pool), ctypes.c_uint32()
        if lib.bpf_lookup_elem(self._fd, ctypes.byref(key), ctypes.byref(number)):
            return _ABSENT
        fd: int = lib.bpf_map_get_fd_by_id(number)
        if fd < 0:
            raise MapError(f"the table of pool {pool} was not opened: {_last_error()}")
        return fd

    def _new(self, table: bytes) -> int:
        fd: int = lib.bcc_create_map(_ARRAY, b"maglev_table", 4, self._size, 1, _MMAPABLE)
        if fd < 0:
            raise MapError(f"no memory for a Maglev table: {_last_error()}")
        value = ctypes.create_string_buffer(table, self._size)
        if lib.bpf_update_elem(fd, ctypes.byref(ctypes.c_uint32(0)), value, 0):
            cause = _last_error()
            os.close(fd)
            raise MapError(f"a Maglev table was not written: {cause}")
        return fd

    def _place(self, filled: Mapping[int, int]) -> None:
        """In one batch: the kernel waits for programs at each change of the map, once a batch."""
        if not filled:
            return
        count = ctypes.c_uint32(len(filled))
        keys = (ctypes.c_uint32 * len(filled))(*filled.keys())
        values = (ctypes.c_uint32 * len(filled))(*filled.values())
        if lib.bpf_update_batch(self._fd, keys, values, ctypes.byref(count)):
            raise MapError(f"Maglev tables were not put in place: {_last_error()}")

    def _take_out(self, pool: int) -> None:
        """One that is not there is a success."""
        failed = lib.bpf_delete_elem(self._fd, ctypes.byref(ctypes.c_uint32(pool)))
        if failed and ctypes.get_errno() != errno.ENOENT:
            raise MapError(f"the table of pool {pool} was not taken out: {_last_error()}")


def _last_error() -> str:
    return os.strerror(ctypes.get_errno())
