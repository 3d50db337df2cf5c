# SPDX-License-Identifier: Apache-2.0
"""How often the entries of the maps are counted."""

from __future__ import annotations

import numpy as np
import pytest

from ebpfmesh.agent.census import REST, Census, Count

COST_S = 0.5


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Entries:
    """Counting takes half a second, by the clock that is given."""

    def __init__(self, clock: Clock) -> None:
        self.counts = 0
        self._clock = clock

    def count(self) -> Count:
        self.counts += 1
        self._clock.now_s += COST_S
        return Count({"flows": self.counts}, np.zeros(1, dtype=np.int64))


@pytest.mark.parametrize(("rested_s", "counts"), [(REST * COST_S - 0.1, 1), (REST * COST_S, 2)])
def test_a_count_is_good_for_as_long_as_it_was_dear(rested_s: float, counts: int) -> None:
    clock = Clock()
    entries = Entries(clock)
    census = Census(entries.count, clock)
    assert census.taken().sizes == {"flows": 1}
    clock.now_s += rested_s
    assert census.taken().sizes == {"flows": counts}
    assert entries.counts == counts


def test_what_costs_nothing_is_always_new() -> None:
    counted = iter(range(3))
    census = Census(lambda: Count({"flows": next(counted)}, np.zeros(1, dtype=np.int64)), Clock())
    assert [census.taken().sizes["flows"] for _ in range(3)] == [0, 1, 2]


def test_a_count_that_failed_is_tried_again() -> None:
    failures = [OSError("no")]

    def counted() -> Count:
        if failures:
            raise failures.pop()
        return Count({}, np.zeros(1, dtype=np.int64))

    census = Census(counted, Clock())
    with pytest.raises(OSError, match="no"):
        census.taken()
    assert census.taken().sizes == {}
