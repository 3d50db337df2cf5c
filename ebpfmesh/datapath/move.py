# SPDX-License-Identifier: Apache-2.0
"""Moves what pinned maps hold to new maps of another shape, while packets flow.

Most is copied while the old programs work on. Then nothing may begin for a moment (MODE_MOVING in
bpf/takeover.h): what has changed meanwhile is copied, and the new programs take every place of the
old ones. Known flows go on all the time, for both have them; who would begin one asks again.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from ebpfmesh.datapath import kernel
from ebpfmesh.datapath.errors import MapError
from ebpfmesh.datapath.library import lib
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.maps import Maps
from ebpfmesh.datapath.pinned import shape_of
from ebpfmesh.datapath.shapes import (
    Shapes,
    by_name,
    converted,
    copied,
    differing,
    is_array,
    resampled,
)
from ebpfmesh.datapath.table import Table
from ebpfmesh.takeover import Mode, RunSettings, moved, served

log = structlog.get_logger(__name__)

_BATCH = 8192
# How far the time stamp of an entry may be behind its last change: FLOW_TOUCH_NS, and a tick.
_STALE_NS = 2 * 10**9
_NOEXIST = 1
_COUNTERS = ("frontend_counters", "backend_counters", "entry_counters")
_ORIGINS = ("sock_origins", "sock_origins6", "sock_choices")
# What the programs change all the time, and say when they did.
_TRACKED = (
    *("flows", "replies", "entries"),
    *("transient_flows", "transient_replies", "transient_entries"),
    *("fragments", "surrogates"),
)
# What else they write. The rest is the agent's, and there is none meanwhile.
_CHANGING = (*_TRACKED, *_COUNTERS, *_ORIGINS, "live", "turns", "health")


class Move:
    """One move: from the maps that `old` describes to those of `module`, which are empty."""

    def __init__(self, old: Shapes, module: Module, new: Shapes) -> None:
        """Opens the old maps. Raises `OSError`."""
        self._old_shapes, self.new, self._module = old, new, module
        self.old_dir = Path(old.pin_dir)
        self._old = {
            name: Table(
                spec, kernel.open_pinned(self.old_dir / name), spec.value_size, spec.entries.times
            )
            for name, spec in old.maps.items()
        }
        self._settings = _settings_of(self._old["settings"])
        self._counted: dict[str, NDArray[Any]] = {}

    def run(self, load: Callable[[], None], attach: Callable[[], None]) -> None:
        """Copies all, and lets `attach` put the new programs in place of the old ones.

        `load` loads what `attach` will attach, so that this takes no time. If anything fails
        before that, the old programs go on as before. Raises what it meets.
        """
        began = time.monotonic_ns()
        names = copied(self._old_shapes.maps, self.new.maps)
        counts = {name: self._copy(name) for name in names}
        self._copy_tables()
        load()
        halted = time.monotonic_ns()
        maps = Maps(self._module)
        maps.put_run_settings(moved(self._settings, halted))
        _put_settings(self._old["settings"], moved(self._settings, halted))
        try:
            for name in names:
                if name in _CHANGING:
                    self._copy(name, began - _STALE_NS if name in _TRACKED else 0)
            self._copy_reasons()
        except BaseException:
            _put_settings(self._old["settings"], self._settings)
            raise
        attach()
        maps.put_run_settings(self._settings)
        log.info(
            "maps.moved",
            source=str(self.old_dir),
            differing=differing(self._old_shapes.maps, self.new.maps),
            entries={name: count for name, count in counts.items() if count},
            seconds=round((time.monotonic_ns() - began) / 1e9, 2),
            halted_ms=round((time.monotonic_ns() - halted) / 1e6),
        )

    def finish(self) -> None:
        """Adds what the old programs have done since: once none of them is attached."""
        for name in _ORIGINS:
            if name in self._old:
                self._add_missing(name)
        for name in self._counted:
            self._add_counted(name)

    def close(self) -> None:
        """Gives the old maps back."""
        for table in self._old.values():
            os.close(table.map_fd)
        self._old.clear()

    def _copy(self, name: str, since_ns: int = 0) -> int:
        """Returns how many entries were copied: those in use, and that were seen since then."""
        old, new = self._old[name], self._module.table(name)
        if name in _COUNTERS:
            return self._copy_counters(name)
        total = 0
        for keys, values in _batches(old):
            wanted = _in_use(values) if is_array(self._old_shapes.maps[name]) else _all(values)
            if since_ns and "seen_ns" in (values.dtype.names or ()):
                wanted &= values["seen_ns"] >= since_ns
            if not wanted.any():
                continue
            _write(new, converted(keys[wanted], _key_type(new)), _shaped(values[wanted], new))
            total += int(wanted.sum())
        return total

    def _copy_counters(self, name: str) -> int:
        """As they are now: what is counted later is added at the end."""
        counts = self._counted[name] = _all_values(self._old[name])
        rows = np.flatnonzero(_in_use(counts)).astype(np.uint32)
        if len(rows):
            table = self._module.table(name)
            _write(table, rows, _shaped(counts[rows], table))
        return len(rows)

    def _copy_reasons(self) -> None:
        self._counted["reasons"] = _all_values(self._old["reasons"])
        self._put_reasons(self._counted["reasons"], add=False)

    def _put_reasons(self, counts: NDArray[Any], *, add: bool) -> None:
        table = self._module.table("reasons")
        rows = by_name(counts, self._old_shapes.reasons, self.new.reasons, table.max_entries)
        _write(table, _indices(len(rows)), rows + _all_values(table) if add else rows)

    def _add_counted(self, name: str) -> None:
        """What was counted in the old maps since they were copied."""
        more = _difference(_all_values(self._old[name]), self._counted[name])
        changed = _in_use(more)
        if not changed.any():
            return
        if name == "reasons":
            self._put_reasons(more, add=True)
            return
        table = self._module.table(name)
        rows = np.flatnonzero(changed).astype(np.uint32)
        now = _all_values(table)[rows]
        _write(table, rows, _sum(now, _shaped(more[rows], table)))

    def _add_missing(self, name: str) -> None:
        """Entries that the old programs have made, and the new ones have not."""
        old, new = self._old[name], self._module.table(name)
        for keys, values in _batches(old):
            new_keys, new_values = converted(keys, _key_type(new)), _shaped(values, new)
            for key, value in zip(new_keys, new_values, strict=True):
                raw_key, raw_value = key.tobytes(), value.tobytes()
                failed = lib.bpf_update_elem(new.map_fd, raw_key, raw_value, _NOEXIST)
                if failed and ctypes.get_errno() != errno.EEXIST:
                    raise MapError(f"map {name} was not written: {_last_error()}")

    def _copy_tables(self) -> None:
        maps = Maps(self._module)
        maps.put_tables(
            {
                pool: resampled(table, maps.maglev_size).tobytes()
                for pool, table in _tables(self._old["maglev"])
                if pool < self._module.table("maglev").max_entries
            }
        )


def _settings_of(table: Table) -> RunSettings:
    """As they hold without the move; an earlier one may not have come to its end."""
    leaf = table[0]
    found = RunSettings(Mode(leaf.mode), leaf.since_ns, leaf.takeover_until_ns)
    if found.mode is not Mode.MOVING:
        return found
    return served(found, time.monotonic_ns(), 0, relieved=True)


def _put_settings(table: Table, settings: RunSettings) -> None:
    leaf = table.Leaf()
    leaf.mode, leaf.since_ns = int(settings.mode), settings.since_ns
    leaf.takeover_until_ns = settings.takeover_until_ns
    table[0] = leaf


def _tables(outer: Table) -> Iterator[tuple[int, NDArray[np.uint32]]]:
    """Pool id and table of backend ids, of every pool that has one."""
    for pool in range(outer.max_entries):
        try:
            number = outer[pool].value
        except KeyError:
            continue
        fd = lib.bpf_map_get_fd_by_id(number)
        if fd < 0:
            continue
        try:
            yield pool, _table(fd)
        finally:
            os.close(fd)


def _table(fd: int) -> NDArray[np.uint32]:
    value = np.zeros(shape_of(fd).value_size // 4, dtype=np.uint32)
    if lib.bpf_lookup_elem(fd, ctypes.byref(ctypes.c_uint32(0)), value.ctypes.data):
        raise MapError(f"a Maglev table was not read: {_last_error()}")
    return value


def _batches(table: Table) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Keys and values; the cursor is a key, or the kernel's bucket index."""
    keys, values = (table.Key * _BATCH)(), (table.Leaf * _BATCH)()
    cursor = ctypes.create_string_buffer(max(4, ctypes.sizeof(table.Key)))
    where = ctypes.cast(cursor, ctypes.POINTER(ctypes.c_uint32))
    start, cause = None, 0
    while not cause:
        count = ctypes.c_uint32(_BATCH)
        failed = lib.bpf_lookup_batch(table.map_fd, start, where, keys, values, ctypes.byref(count))
        cause = ctypes.get_errno() if failed else 0
        if cause not in {0, errno.ENOENT}:
            raise MapError(f"map {table.name} was not read: {os.strerror(cause)}")
        if not count.value:
            return
        yield (
            np.frombuffer(keys, dtype=_key_type(table))[: count.value].copy(),
            np.frombuffer(values, dtype=np.dtype(table.Leaf))[: count.value].copy(),
        )
        start = where


def _all_values(table: Table) -> NDArray[Any]:
    return np.concatenate([values for _, values in _batches(table)])


def _write(table: Table, keys: NDArray[Any], values: NDArray[Any]) -> None:
    """Adds or replaces entries. An array takes those that it has room for, a hash all or none."""
    if table.is_array:
        held = keys < table.max_entries
        if _in_use(values[~held]).any():
            raise MapError(f"map {table.name} has no room for all that is in the old one")
        keys, values = keys[held], values[held]
    keys, values = np.ascontiguousarray(keys), np.ascontiguousarray(values)
    count = ctypes.c_uint32(len(keys))
    if lib.bpf_update_batch(
        table.map_fd, keys.ctypes.data, values.ctypes.data, ctypes.byref(count)
    ):
        raise MapError(f"map {table.name} was not written: {_last_error()}")


def _key_type(table: Table) -> np.dtype[Any]:
    made: np.dtype[Any] = np.dtype(table.Key)
    return made


def _shaped(values: NDArray[Any], table: Table) -> NDArray[Any]:
    return converted(values, np.dtype(table.sLeaf))


def _indices(count: int) -> NDArray[np.uint32]:
    return np.arange(count, dtype=np.uint32)


def _all(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.ones(len(values), dtype=np.bool_)


def _in_use(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows are not all zero."""
    raw = np.frombuffer(values.tobytes(), dtype=np.uint8)
    rows = raw.reshape(len(values), values.nbytes // max(1, len(values)))
    return np.asarray(rows.any(axis=1))


def _difference(now: NDArray[Any], then: NDArray[Any]) -> NDArray[Any]:
    return _words(_words_of(now) - _words_of(then), now)


def _sum(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    return _words(_words_of(one) + _words_of(other), one)


def _words_of(counters: NDArray[Any]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(counters).view(np.uint64)


def _words(words: NDArray[np.uint64], like: NDArray[Any]) -> NDArray[Any]:
    return words.view(like.dtype).reshape(like.shape)


def _last_error() -> str:
    return os.strerror(ctypes.get_errno())


def remove(pins: Path) -> None:
    """Takes pins away; what is attached keeps what it needs."""
    if pins.exists():
        shutil.rmtree(pins)
