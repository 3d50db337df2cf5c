# SPDX-License-Identifier: Apache-2.0
"""Maglev lookup tables: backend names and weights -> which backend owns each slot. Pure, no I/O.

After Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
section 3.4. Every backend has its own permutation of the slots; in turns, each claims the first
slot of its permutation that is still free. docs/adr/0003-maglev-tables.md tells the choices: hash,
turns and how this module fills a table faster than the paper's loop with the same result.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from math import log
from operator import length_hint

import numpy as np
from numpy.typing import NDArray

from ebpfmesh.primes import check_size, is_prime

__all__ = [
    "DEFAULT_SIZE",
    "Table",
    "build_table",
    "check_size",
    "equal_table",
    "is_prime",
    "permutation",
    "shares",
]

Table = NDArray[np.uint32]
Ints = NDArray[np.int64]

DEFAULT_SIZE = 16381

# Part of the protocol between nodes: another value gives other tables.
_PERSON = b"ebpfmesh-maglev"
# At most so many free slots are compared directly with the backends that still have a turn.
_TAIL = 192
# A stretch takes half of the free slots, or a third where a backend has so many turns in all: fewer
# tries, but more lists.
_SHORT, _LONG = 3, 2
_MANY_TURNS = 32
# While an n-th of the free slots is taken, a turn tries n ln(n / (n - 1)) of them. So a stretch
# looks at ln(n / (n - 1)) * size positions, and a little more: backends differ, those with few
# turns most of all.
_MARGIN = 0.05
_SPREAD = 0.25
_NOBODY = -1


def build_table(weights: Mapping[str, int], size: int = DEFAULT_SIZE) -> Table | None:
    """Give each of `size` slots to a backend: an index into the sorted names of `weights`.

    The result depends on names, weights and size alone. A backend of weight 2 gets twice the slots
    of one of weight 1, and of weight 0 none. None if nobody has a weight above 0.

    Raises ValueError for a size that `check_size` refuses, or a negative weight.
    """
    check_size(size)
    names = sorted(weights)
    heft = np.array([weights[name] for name in names], dtype=np.int64)
    if (heft < 0).any():
        raise ValueError("a weight must not be negative")
    if not heft.any():
        return None
    return _Filling(names, size).fill(_turns(heft, size))


def equal_table(names: Sequence[str], size: int) -> Table | None:
    """Build the table of these, in which all weigh the same."""
    return build_table(dict.fromkeys(names, 1), size)


def shares(table: Table, backends: int) -> NDArray[np.float64]:
    """Return the part of the table (0.0 to 1.0) that each of `backends` indexes holds."""
    return np.bincount(table, minlength=backends) / len(table)


@lru_cache(maxsize=32768)
def permutation(name: str, size: int) -> tuple[int, int]:
    """Return (offset, skip): position j of the permutation is slot (offset + j * skip) % size.

    The two halves of a 128-bit BLAKE2b of the name, little-endian, stand for the paper's h1, h2.
    """
    digest = blake2b(name.encode(), digest_size=16, person=_PERSON).digest()
    offset = int.from_bytes(digest[:8], "little") % size
    skip = int.from_bytes(digest[8:], "little") % (size - 1) + 1
    return offset, skip


def _turns(heft: Ints, size: int) -> Ints:
    """Return whose turn it is, `size` times: proportional to weight, evenly spread.

    Backend i is due for the k-th time at k / weight; who is due together goes in order of name.
    Both are exact enough: equal fractions of small integers are equal floats everywhere.
    """
    able = np.flatnonzero(heft)
    if (heft[able] == heft[able[0]]).all():
        return np.resize(able, size)
    # One turn too many for each backend; the last ones fall away.
    counts = np.minimum(-(-heft[able] * size // heft.sum()) + 1, size)
    who = np.repeat(able, counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    due = (np.arange(len(who)) - first + 1) / heft[who]
    return who[np.argsort(due, kind="stable")][:size]


class _Filling:
    """One table while it is filled.

    The paper's loop tries M ln M slots one by one. Here the turns are taken in stretches, each
    a part of what is free: numpy lists for every backend the next slots of its
    permutation that were free when the stretch began, so a turn seldom meets a taken one. The last
    few slots, which a backend would search nearly its whole permutation for, are found the other
    way round: by the position of each free slot in the permutation.
    """

    def __init__(self, names: list[str], size: int) -> None:
        self.size = size
        self.part = _SHORT if size >= _MANY_TURNS * len(names) else _LONG
        pairs = np.array([permutation(name, size) for name in names], dtype=np.int64)
        self.offset: Ints = pairs[:, 0]
        self.skip: Ints = pairs[:, 1]
        self.position: Ints = np.zeros(len(names), dtype=np.int64)
        # Python takes and sets single items of `owner`; `_owners` is the same memory for numpy.
        self.owner = array("i", [_NOBODY]) * size
        self._owners = np.frombuffer(self.owner, dtype=np.intc)

    def fill(self, turns: Ints) -> Table:
        """Let every turn claim a slot; as many turns as slots."""
        done = 0
        while (free := self.size - done) > _TAIL:
            stretch = turns[done : done + -(-free // self.part)]
            self._claim(stretch)
            done += len(stretch)
        self._claim_tail(turns[done:])
        return self._owners.astype(np.uint32)

    def _claim(self, stretch: Ints) -> None:
        """Take these turns from lists of candidates, slot by slot where a list runs out."""
        owner = self.owner
        slots, steps, ends = self._candidates(stretch)
        flat = slots.tolist()
        lists = [iter(flat[a:b]) for a, b in pairwise([0, *ends.tolist()])]
        for backend in stretch.tolist():
            for slot in lists[backend]:
                if owner[slot] < 0:
                    owner[slot] = backend
                    break
            else:
                self._claim_one(backend)
        left = np.array([length_hint(rest) for rest in lists])
        some = np.flatnonzero(left)
        self.position[some] = steps[(ends - left)[some]]

    def _candidates(self, stretch: Ints) -> tuple[Ints, Ints, Ints]:
        """List the next free slots of each backend's permutation, and advance `position` past them.

        Returns slots and their positions, backend after backend, and where each one's end. How far
        a backend looks ahead is in proportion to its turns in this stretch.
        """
        turns = np.bincount(stretch, minlength=len(self.offset))
        tries = log(self.part / (self.part - 1)) + _MARGIN
        wanted = turns * tries + np.sqrt(turns) * _SPREAD
        reach = np.ceil(wanted * (self.size / len(stretch))).astype(np.int64)
        ahead = np.minimum(reach, self.size - self.position)
        ends = np.cumsum(ahead)
        steps = np.arange(ends[-1]) + np.repeat(self.position - ends + ahead, ahead)
        slots = np.repeat(self.skip, ahead) * steps
        slots += np.repeat(self.offset, ahead)
        slots -= slots // self.size * self.size  # numpy divides faster than it takes remainders
        free = np.flatnonzero(self._owners.take(slots) < 0)
        self.position += ahead
        return slots.take(free), steps.take(free), np.searchsorted(free, ends)

    def _claim_one(self, backend: int) -> None:
        """Take one turn as the paper does."""
        offset, skip = int(self.offset[backend]), int(self.skip[backend])
        position = int(self.position[backend])
        while self.owner[slot := (offset + skip * position) % self.size] >= 0:
            position += 1
        self.owner[slot] = backend
        self.position[backend] = position + 1

    def _claim_tail(self, turns: Ints) -> None:
        """Give the last free slots away, each to the turn's nearest in its permutation.

        The position of slot s is (s - offset) / skip, modulo the prime size.
        """
        free = np.flatnonzero(self._owners < 0)
        backends, row = np.unique(turns, return_inverse=True)
        inverse = [pow(skip, -1, self.size) for skip in self.skip[backends].tolist()]
        distance = (free[None, :] - self.offset[backends][:, None]) % self.size
        position = distance * np.array(inverse)[:, None] % self.size
        for r, backend in zip(row.tolist(), turns.tolist(), strict=True):
            nearest = int(position[r].argmin())
            self.owner[int(free[nearest])] = backend
            position[:, nearest] = self.size
