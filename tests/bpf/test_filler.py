# SPDX-License-Identifier: Apache-2.0
"""Tables that the kernel fills are those that Python builds, slot by slot."""

from __future__ import annotations

import numpy as np
import pytest

from ebpfmesh.datapath import kernel
from ebpfmesh.datapath.filler import Builder, Filler
from ebpfmesh.maglev import equal_table

pytestmark = pytest.mark.bpf


@pytest.fixture(scope="module")
def filler() -> Filler:
    return Filler()


def names(count: int) -> list[str]:
    return sorted(f"task{number * 7919 % 1_000_003:021d}" for number in range(count))


@pytest.mark.parametrize("size", [3, 13, 4093, 16381, 131071])
@pytest.mark.parametrize("count", [1, 2, 10, 500])
def test_a_filled_table_is_the_built_one(filler: Filler, count: int, size: int) -> None:
    compare(filler, count, size)


@pytest.mark.parametrize("size", [4093, 131071])
def test_as_many_backends_as_a_swarm_has_tasks(filler: Filler, size: int) -> None:
    compare(filler, 10_000, size)


def compare(filler: Filler, count: int, size: int) -> None:
    found, wanted = filler.table(names(count), size), equal_table(names(count), size)
    assert found is not None
    assert wanted is not None
    assert found.dtype == wanted.dtype
    assert np.array_equal(found, wanted)


def test_nothing_of_a_table_is_in_the_next_one(filler: Filler) -> None:
    first = filler.table(names(7), 4093)
    assert first is not None
    kept = first.copy()
    second = filler.table(names(3), 251)
    assert second is not None
    assert set(second.tolist()) == {0, 1, 2}
    assert np.array_equal(first, kept)


def test_a_run_that_a_signal_cut_short_goes_on(
    filler: Filler, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = kernel.run_program
    asked: list[int] = []

    def part(program: int, packet: bytes, times: int) -> None:
        asked.append(times)
        run(program, packet, times // 5)

    monkeypatch.setattr(kernel, "run_program", part)
    compare(filler, 10, 16381)
    assert len(asked) > 1


def test_nobody_has_no_table(filler: Filler) -> None:
    assert filler.table([], 13) is None


def test_a_size_that_is_no_prime_is_refused(filler: Filler) -> None:
    with pytest.raises(ValueError, match="prime"):
        filler.table(names(2), 16)


def test_a_kernel_that_makes_no_way_is_not_waited_for(
    filler: Filler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "run_program", lambda *_: None)
    with pytest.raises(OSError, match="did not come to an end"):
        filler.table(names(3), 13)


def test_an_agent_has_its_tables_filled_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Builder()
    monkeypatch.delattr("ebpfmesh.datapath.filler.equal_table")
    assert build(names(3), 13) is not None
