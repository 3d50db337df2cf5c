# SPDX-License-Identifier: Apache-2.0
"""Maps of another shape: what differs, and an entry of one as an entry of the other. Pure, no I/O.

A shape is written down when maps are made, as pinned maps outlive the program text that says what
their bytes mean. Fields are matched by name: what the new shape lacks is dropped, what the old one
lacked is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ebpfmesh.datapath.layout import ctype
from ebpfmesh.datapath.object import MapSpec

# enum bpf_map_type (kernel: linux/bpf.h)
HASH, ARRAY, PER_CPU_ARRAY, LRU_HASH, LPM_TRIE = 1, 2, 6, 9, 11
_HASHES, _ARRAYS = (HASH, LRU_HASH, LPM_TRIE), (ARRAY, PER_CPU_ARRAY)

# What is not copied entry by entry: made by the loader, put in place by its own rules, or, like who
# is avoided, soon found out again.
_OWN_WAY = frozenset({"maglev", "maglev_template", "programs", "settings", "reasons", "avoided"})

Reasons = Mapping[int, tuple[str, str]]


class Shapes(msgspec.Struct, frozen=True):
    """The maps that are pinned in one place, with the numbers that the kernel gave them."""

    pin_dir: str
    maps: dict[str, MapSpec]
    numbers: dict[str, int]
    reasons: dict[int, tuple[str, str]]


def differing(old: Mapping[str, MapSpec], new: Mapping[str, MapSpec]) -> list[str]:
    """The names of maps that are not the same in both, or only in one, in order."""
    return sorted(n for n in old.keys() | new.keys() if old.get(n) != new.get(n))


def copied(old: Mapping[str, MapSpec], new: Mapping[str, MapSpec]) -> list[str]:
    """The maps whose entries are copied: those of both that are of the same sort."""
    return [
        name
        for name, spec in new.items()
        if name in old and name not in _OWN_WAY and _sort(old[name]) == _sort(spec)
    ]


def is_array(spec: MapSpec) -> bool:
    """Whether its keys are all the numbers up to its size."""
    return spec.kind in _ARRAYS


def _sort(spec: MapSpec) -> int:
    kinds = (_HASHES, _ARRAYS)
    return next((i for i, kind in enumerate(kinds) if spec.kind in kind), -spec.kind - 1)


def dtype(description: str) -> np.dtype[Any]:
    """The numpy type of a C type, from bcc's description of it."""
    made: np.dtype[Any] = np.dtype(ctype(description))
    return made


def converted(values: NDArray[Any], to: np.dtype[Any]) -> NDArray[Any]:
    """The same values as another type: struct by struct, field by field, by name.

    A longer array is cut, a shorter one filled up with zeros.
    """
    new = np.zeros(values.shape, dtype=to)
    if to.names is None or values.dtype.names is None:
        _assign(new, values)
        return new
    for name in to.names:
        if name not in values.dtype.names:
            continue
        old, field = values[name], new[name]
        if field.dtype.names is not None and old.dtype.names is not None:
            new[name] = converted(old, field.dtype)
        else:
            _assign(field, old)
    return new


def _assign(new: NDArray[Any], old: NDArray[Any]) -> None:
    """What both have room for; a struct that became a number, or the reverse, stays zero."""
    if new.dtype.names or old.dtype.names or new.ndim != old.ndim:
        return
    common = tuple(slice(0, min(a, b)) for a, b in zip(new.shape, old.shape, strict=True))
    new[common] = old[common]


def by_name(counts: NDArray[Any], old: Reasons, new: Reasons, room: int) -> NDArray[Any]:
    """Counters of reasons, a row for each, at the places that the reasons have now."""
    places = {name: index for index, name in new.items()}
    moved = np.zeros((room, *counts.shape[1:]), dtype=counts.dtype)
    for index, name in old.items():
        if name in places and index < len(counts):
            moved[places[name]] = counts[index]
    return moved


def resampled(table: NDArray[np.uint32], size: int) -> NDArray[np.uint32]:
    """A Maglev table of another size, in which a hash finds the backend that it found before."""
    slots = np.arange(size, dtype=np.uint64) * len(table) // size
    return table[slots]
