from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfmesh.maglev import build_table, check_size, is_prime, permutation, shares

PRIMES = [3, 5, 13, 251, 509, 1021, 4093]
NAMES = st.sets(
    st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1), min_size=1, max_size=40
)
sizes = st.sampled_from(PRIMES)


# What every version of ebpfmesh in one Swarm must build.
GOLDEN_PERMUTATIONS = [(5456, 10173), (6049, 16153), (1761, 950)]
GOLDEN_TABLE = [1, 0, 0, 2, 1, 0, 1, 1, 1, 1, 2, 1, 2]


def even(count: int) -> dict[str, int]:
    return {f"task{i:04d}": 1 for i in range(count)}


def reference(weights: dict[str, int], size: int) -> list[int]:
    """The loop of the paper, section 3.4, with turns at k / weight."""
    names = sorted(weights)
    turns = sorted(
        (k / weights[name], index)
        for index, name in enumerate(names)
        if weights[name]
        for k in range(1, size + 1)
    )
    permutations = [permutation(name, size) for name in names]
    position = [0] * len(names)
    table = [-1] * size
    for _, index in turns[:size]:
        offset, skip = permutations[index]
        while table[slot := (offset + position[index] * skip) % size] >= 0:
            position[index] += 1
        table[slot] = index
    return table


def built(weights: dict[str, int], size: int) -> list[int]:
    table = build_table(weights, size)
    assert table is not None
    assert table.dtype == np.uint32
    return [int(index) for index in table]


@given(NAMES, sizes, st.data())
def test_equals_the_papers_loop(names: set[str], size: int, data: st.DataObject) -> None:
    weights = {name: data.draw(st.integers(0, 5)) for name in names}
    weights[min(names)] = 3
    assert built(weights, size) == reference(weights, size)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 200, 1000])
def test_equals_the_papers_loop_at_the_default_size(count: int) -> None:
    assert built(even(count), 16381) == reference_of_equals(count, 16381)


def reference_of_equals(count: int, size: int) -> list[int]:
    """`reference` for equal weights, whose turns need no sorting."""
    permutations = [permutation(name, size) for name in sorted(even(count))]
    position = [0] * count
    table = [-1] * size
    for turn in range(size):
        index = turn % count
        offset, skip = permutations[index]
        while table[slot := (offset + position[index] * skip) % size] >= 0:
            position[index] += 1
        table[slot] = index
    return table


def test_stays_what_other_nodes_build() -> None:
    assert [permutation(name, 16381) for name in ("a", "b", "c")] == GOLDEN_PERMUTATIONS
    assert built({"a": 1, "b": 2, "c": 1}, 13) == GOLDEN_TABLE


@given(NAMES.flatmap(lambda names: st.permutations(sorted(names))), sizes)
def test_order_of_arrival_does_not_matter(names: list[str], size: int) -> None:
    assert built(dict.fromkeys(names, 1), size) == built(dict.fromkeys(sorted(names), 1), size)


@given(NAMES, sizes)
def test_equal_backends_differ_by_one_slot_at_most(names: set[str], size: int) -> None:
    slots = np.bincount(built(dict.fromkeys(names, 1), size), minlength=len(names))
    assert slots.sum() == size
    assert slots.max() - slots.min() <= 1


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20).filter(any))
def test_slots_are_proportional_to_weights(weights: list[int]) -> None:
    table = build_table({f"{i:02d}": w for i, w in enumerate(weights)}, 1021)
    assert table is not None
    wanted = np.array(weights) / sum(weights)
    assert np.abs(shares(table, len(weights)) - wanted).max() <= 2 / 1021
    assert shares(table, len(weights)).sum() == pytest.approx(1)


@pytest.mark.parametrize(("count", "size"), [(2, 16381), (10, 16381), (50, 16381), (100, 65537)])
def test_losing_one_backend_moves_few_other_slots(count: int, size: int) -> None:
    names = sorted(even(count))
    lost = names[count // 3]
    before = [names[index] for index in built(even(count), size)]
    rest = [name for name in names if name != lost]
    after = [rest[index] for index in built(dict.fromkeys(rest, 1), size)]
    others = [(was, now) for was, now in zip(before, after, strict=True) if was != lost]
    moved = sum(was != now for was, now in others) / size
    # The paper's figure 12 shows about 2 % where the table is 100 times the backends.
    assert moved < 0.03
    assert lost not in after


def test_weight_0_has_no_slot_but_keeps_its_index() -> None:
    assert set(built({"a": 1, "b": 0, "c": 1}, 251)) == {0, 2}


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": 0, "b": 0}])
def test_nobody_to_serve_has_no_table(weights: dict[str, int]) -> None:
    assert build_table(weights, 251) is None


def test_more_backends_than_slots_fill_every_slot() -> None:
    assert sorted(built(even(30), 13)) == list(range(13))


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        build_table({"a": -1, "b": 1}, 251)


@given(sizes, st.text())
def test_a_permutation_visits_every_slot(size: int, name: str) -> None:
    offset, skip = permutation(name, size)
    assert {(offset + j * skip) % size for j in range(size)} == set(range(size))


@given(st.integers(-3, 3000))
def test_is_prime(number: int) -> None:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    assert is_prime(number) == (len(divisors) == 2)


@pytest.mark.parametrize("size", [3, 16381, 65537, 131071])
def test_prime_sizes_are_accepted(size: int) -> None:
    check_size(size)


@pytest.mark.parametrize(
    ("size", "near"),
    [
        (16384, "16381 or 16411"),
        (65536, "65521 or 65537"),
        (2, "try 3$"),
        (0, "try 3$"),
        (-7, "try 3$"),
        (131072, "try 131071$"),
        (999983, "try 131071$"),
        (4, "try 3 or 5"),
    ],
)
def test_other_sizes_are_refused_with_primes_nearby(size: int, near: str) -> None:
    with pytest.raises(ValueError, match=near):
        check_size(size)
    with pytest.raises(ValueError, match=near):
        build_table({"a": 1}, size)
