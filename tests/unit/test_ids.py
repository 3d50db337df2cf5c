from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfmesh.ids import NO_ID, Allocator, IdConflict, Ids, OutOfIds
from ebpfmesh.model import BackendKey, Frontend, FrontendKey, FrontendKind, PoolKey


def allocator(limit: int = 5, quarantine_s: float = 60) -> Allocator[str]:
    return Allocator(limit, "max_things", quarantine_s)


def test_ids_count_up_from_1_and_stay() -> None:
    ids = allocator()
    assert [ids.allocate(key, 0) for key in "abab"] == [1, 2, 1, 2]
    assert ids.ids == {"a": 1, "b": 2}


def test_a_released_id_rests() -> None:
    ids = allocator()
    ids.allocate("a", 0)
    ids.release("a", 10)
    assert "a" not in ids.ids
    assert ids.allocate("b", 69.9) == 2
    assert ids.allocate("c", 70) == 1


def test_the_longest_rested_goes_first() -> None:
    ids = allocator()
    for key in "abc":
        ids.allocate(key, 0)
    for now_s, key in enumerate("bca"):
        ids.release(key, now_s)
    assert [ids.allocate(key, 100) for key in "xyz"] == [2, 3, 1]


def test_a_key_that_comes_back_gets_the_id_it_had() -> None:
    ids = allocator()
    for key in "ab":
        ids.allocate(key, 0)
        ids.release(key, 0)
    assert ids.allocate("b", 1) == 2
    ids.release("b", 50)
    assert ids.rested(60) == {"a"}
    assert ids.allocate("b", 200) == 2
    assert ids.rested(200) == {"a"}


def test_releasing_twice_does_not_prolong_the_rest() -> None:
    ids = allocator()
    ids.allocate("a", 0)
    ids.release("a", 0)
    ids.release("a", 50)
    ids.release("never", 50)
    assert ids.rested(60) == {"a"}
    assert ids.rested(59) == frozenset()


def test_a_forgotten_id_is_spare() -> None:
    ids = allocator()
    ids.allocate("a", 0)
    ids.release("a", 0)
    assert ids.forget("a") == 1
    assert ids.forget("a") == NO_ID
    assert ids.rested(100) == frozenset()
    assert ids.allocate("b", 0) == 1


def test_an_id_that_another_key_has_by_now_is_not_forgotten() -> None:
    ids = allocator()
    ids.allocate("a", 0)
    ids.release("a", 0)
    assert ids.allocate("b", 60) == 1
    assert ids.forget("a") == NO_ID
    assert ids.allocate("c", 60) == 2


def test_when_all_are_taken_the_setting_is_named() -> None:
    ids = allocator(limit=2)
    ids.allocate("a", 0)
    ids.allocate("b", 0)
    ids.release("a", 1)
    with pytest.raises(OutOfIds, match="1 in use and 1 resting of 2; raise max_things"):
        ids.allocate("c", 2)
    assert ids.allocate("b", 2) == 2
    assert ids.allocate("c", 61) == 1


def test_adopted_ids_are_kept_and_gaps_are_filled() -> None:
    ids = allocator()
    ids.adopt("x", 2)
    ids.adopt("y", 4)
    ids.adopt("y", 4)
    assert [ids.allocate(key, 0) for key in "xyabc"] == [2, 4, 1, 3, 5]


def test_an_adopted_id_can_be_released() -> None:
    ids = allocator()
    ids.adopt("x", 1)
    ids.release("x", 0)
    assert ids.allocate("a", 1) == 2
    assert ids.allocate("b", 60) == 1


@pytest.mark.parametrize(("key", "number"), [("x", 3), ("z", 2), ("z", 0), ("z", 6), ("z", -1)])
def test_what_cannot_be_adopted(key: str, number: int) -> None:
    ids = allocator()
    ids.adopt("x", 2)
    with pytest.raises(IdConflict, match=f"{number}"):
        ids.adopt(key, number)
    assert ids.ids == {"x": 2}


def test_an_id_in_use_cannot_be_adopted() -> None:
    ids = allocator()
    ids.allocate("a", 0)
    with pytest.raises(IdConflict, match="already in use"):
        ids.adopt("b", 1)


calls = st.tuples(
    st.sampled_from(["allocate", "release", "forget rested"]),
    st.sampled_from("abcdefgh"),
    st.integers(0, 40),
)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5)), st.lists(calls))
def test_no_id_has_two_keys_or_is_given_before_it_has_rested(
    found: dict[str, int], history: list[tuple[str, str, int]]
) -> None:
    ids = allocator()
    for key, number in found.items():
        if number not in ids.ids.values():
            ids.adopt(key, number)
    now_s = 0
    released: dict[int, tuple[str, int]] = {}
    for call, key, later_s in history:
        now_s += later_s
        held = ids.ids.get(key)
        if call == "release":
            ids.release(key, now_s)
            if held is not None:
                released[held] = (key, now_s)
        elif call == "forget rested":
            for each in ids.rested(now_s):
                ids.forget(each)
        else:
            try:
                number = ids.allocate(key, now_s)
            except OutOfIds:
                continue
            owner, since_s = released.pop(number, (key, now_s))
            assert owner == key or now_s - since_s >= 60
        assert len(set(ids.ids.values())) == len(ids.ids)
        assert set(ids.ids.values()) <= set(range(1, 6))


def test_each_map_has_its_own_ids_below_its_size() -> None:
    ids = Ids(max_frontends=3, max_services=2, max_backends=2)
    pool = PoolKey("web", 4096)
    vip = Frontend(FrontendKey(4096, "10.0.0.2"), FrontendKind.VIP, pool)
    direct = Frontend(FrontendKey(4096, "10.0.0.3"), FrontendKind.DIRECT)
    assert ids.pools.allocate(pool, 0) == 1
    assert ids.backends.allocate(BackendKey("a", 4096), 0) == 1
    assert ids.of_frontend(direct, 0) == NO_ID
    assert ids.of_frontend(vip, 0) == 1
    assert direct.key not in ids.frontends.ids
    with pytest.raises(OutOfIds, match="max_services"):
        ids.pools.allocate(PoolKey("api", 4096), 0)
    with pytest.raises(OutOfIds, match="max_backends"):
        ids.backends.allocate(BackendKey("b", 4096), 0)
    ids.frontends.allocate(FrontendKey(0, port=80), 0)
    with pytest.raises(OutOfIds, match="max_frontends"):
        ids.frontends.allocate(FrontendKey(0, port=81), 0)
