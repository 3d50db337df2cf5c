# SPDX-License-Identifier: Apache-2.0
"""A map as a mapping, its keys and values as the ctypes of its C structs."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

from ebpfmesh.datapath.errors import MapError
from ebpfmesh.datapath.layout import ctype
from ebpfmesh.datapath.library import lib
from ebpfmesh.datapath.object import MapSpec

# enum bpf_map_type (kernel: linux/bpf.h)
_ARRAY, _PROGRAMS, _PER_CPU_ARRAY, _ARRAY_OF_MAPS = 2, 3, 6, 12
_ARRAYS = (_ARRAY, _PER_CPU_ARRAY)


@cache
def possible_cpus() -> int:
    """For how many CPUs the kernel keeps values."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().split("-")[-1]
    return int(last.split(",")[-1]) + 1


class Table(MutableMapping[Any, Any]):
    """One open map.

    `Key` and `Leaf` are the ctypes of its key and value; a per-CPU map's value is an array of
    `sLeaf`, one for each CPU. A number may stand for a key that is one. What a program adds or
    removes while the map is looked through may be missing or double.
    """

    def __init__(self, spec: MapSpec, fd: int, value_size: int, max_entries: int) -> None:
        self.name, self.map_fd, self.max_entries = spec.name, fd, max_entries
        self.Key = ctype(spec.key)
        self.sLeaf = ctype(spec.value)
        if value_size != ctypes.sizeof(self.sLeaf):
            self.sLeaf = ctypes.c_uint32 * (value_size // 4)
        per_cpu = spec.kind == _PER_CPU_ARRAY
        self.Leaf = self.sLeaf * possible_cpus() if per_cpu else self.sLeaf
        self.is_array = spec.kind in _ARRAYS

    def __getitem__(self, key: Any) -> Any:
        leaf = self.Leaf()
        if lib.bpf_lookup_elem(self.map_fd, self._reference(key), ctypes.byref(leaf)):
            raise KeyError(key)
        return leaf

    def __setitem__(self, key: Any, leaf: Any) -> None:
        if lib.bpf_update_elem(self.map_fd, self._reference(key), ctypes.byref(leaf), 0):
            cause = os.strerror(ctypes.get_errno())
            raise MapError(f"map {self.name} was not written: {cause}")

    def __delitem__(self, key: Any) -> None:
        if lib.bpf_delete_elem(self.map_fd, self._reference(key)):
            raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        if self.is_array:
            yield from map(self.Key, range(self.max_entries))
            return
        key = self.Key()
        found = lib.bpf_get_first_key(self.map_fd, ctypes.byref(key), ctypes.sizeof(key))
        while found == 0:
            yield key
            following = self.Key()
            found = lib.bpf_get_next_key(self.map_fd, ctypes.byref(key), ctypes.byref(following))
            key = following

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def items(self) -> list[tuple[Any, Any]]:  # type: ignore[override]
        """Keys and values, but for those that go away meanwhile."""
        found = []
        for key in self:
            try:
                found.append((key, self[key]))
            except KeyError:
                continue
        return found

    def values(self) -> list[Any]:  # type: ignore[override]
        """The values alone."""
        return [leaf for _, leaf in self.items()]

    def clear(self) -> None:
        """Removes every entry; one that goes away meanwhile is a success."""
        for key in list(self):
            self.pop(key, None)

    def _reference(self, key: Any) -> Any:
        return ctypes.byref(self.Key(key) if isinstance(key, int) else key)
