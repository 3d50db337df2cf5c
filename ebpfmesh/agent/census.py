# SPDX-License-Identifier: Apache-2.0
"""How full the maps are, and how many flows each backend has.

That takes a look at every entry, up to seconds of them. So it is not done where maps are written,
and not again at once, however many ask.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from ebpfmesh.datapath.flows import COUNTED_MAPS, flows_by_backend, size
from ebpfmesh.datapath.loader import Module

REST = 10
"""A count is good for this many times as long as it took: of a small map, not noticeably long."""


class Count(msgspec.Struct, frozen=True):
    """Entries of hash maps by name; flows by backend id."""

    sizes: dict[str, int]
    flows: NDArray[np.int64]


def count(module: Module) -> Count:
    """Count all entries. Blocks on system calls; raises `MapError`."""
    room = module.table("backends").max_entries
    return Count(
        {name: size(module, name) for name in COUNTED_MAPS}, flows_by_backend(module, room)
    )


class Census:
    """The last count, or a new one if that is too old. For any thread."""

    def __init__(
        self, counted: Callable[[], Count], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`counted` counts; `clock` tells seconds."""
        self._counted = counted
        self._clock = clock
        self._lock = threading.Lock()
        self._last: Count | None = None
        self._good_until_s = 0.0

    def taken(self) -> Count:
        """Blocks while somebody counts. Raises what counting raises."""
        with self._lock:
            began_s = self._clock()
            if self._last is None or began_s >= self._good_until_s:
                self._last = self._counted()
                ended_s = self._clock()
                self._good_until_s = ended_s + REST * (ended_s - began_s)
            return self._last
