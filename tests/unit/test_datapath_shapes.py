# SPDX-License-Identifier: Apache-2.0
"""Maps of another shape: fields by name, reasons by name, tables of another size."""

from __future__ import annotations

import msgspec
import numpy as np

from ebpfmesh.datapath.object import Entries, MapSpec
from ebpfmesh.datapath.shapes import (
    by_name,
    converted,
    copied,
    differing,
    dtype,
    resampled,
)

TUPLE = '["tuple", [["saddr","unsigned int"], ["port","unsigned short"]], "struct_packed"]'
OLD = dtype(
    f'["flow", [["seen","unsigned long long"], ["to",{TUPLE}], ["gone","unsigned int"],'
    ' ["mac","unsigned char",[6]]], "struct_packed"]'
)
WIDER = TUPLE.replace("[[", '[["more","unsigned char"], [')
NEW = dtype(
    f'["flow", [["mac","unsigned char",[8]], ["to",{WIDER}], ["fresh","unsigned int"],'
    ' ["seen","unsigned long long"]], "struct_packed"]'
)
SPEC = MapSpec("flows", 9, 4, 8, Entries(10), 0, True, '"unsigned int"', '"unsigned long long"')


def test_fields_are_found_by_name_whatever_their_place() -> None:
    old = np.zeros(2, dtype=OLD)
    old["seen"], old["gone"] = [7, 8], 99
    old["to"]["saddr"], old["to"]["port"] = 0x0A000001, [80, 81]
    old["mac"] = range(6)
    new = converted(old, NEW)
    assert new["seen"].tolist() == [7, 8]
    assert new["to"]["port"].tolist() == [80, 81]
    assert new["to"]["saddr"].tolist() == [0x0A000001] * 2
    assert new["mac"].tolist() == [[0, 1, 2, 3, 4, 5, 0, 0]] * 2
    assert not new["fresh"].any()
    assert not new["to"]["more"].any()


def test_a_shorter_array_is_cut_and_a_number_widened() -> None:
    back = converted(converted(np.ones(1, dtype=OLD), NEW), OLD)
    assert back["mac"].tolist() == [[1] * 6]
    assert back["gone"].tolist() == [0]
    wide = converted(np.array([2**32 - 1], dtype=np.uint32), np.dtype(np.uint64))
    assert wide.tolist() == [2**32 - 1]


def test_a_struct_that_became_a_number_is_zero() -> None:
    assert converted(np.ones(1, dtype=OLD), np.dtype(np.uint64)).tolist() == [0]


def test_reasons_are_found_by_name() -> None:
    counts = np.array([[0, 0], [1, 2], [3, 4], [5, 6]], dtype=np.uint64)
    old = {1: ("drop", "a"), 2: ("drop", "b"), 3: ("handback", "a")}
    new = {1: ("drop", "new"), 2: ("drop", "a"), 3: ("handback", "a"), 4: ("retry", "c")}
    moved = by_name(counts, old, new, room=5)
    assert moved.tolist() == [[0, 0], [0, 0], [1, 2], [5, 6], [0, 0]]


def test_what_differs_and_what_is_copied() -> None:
    old = {"flows": SPEC, "left": SPEC, "maglev": SPEC, "turned": SPEC}
    larger = msgspec.structs.replace(SPEC, entries=Entries(20))
    array = msgspec.structs.replace(SPEC, kind=2)
    new = {"flows": larger, "maglev": SPEC, "turned": array, "come": SPEC}
    assert differing(old, new) == ["come", "flows", "left", "turned"]
    assert differing(old, old) == []
    assert copied(old, new) == ["flows"]


def test_a_hash_finds_its_backend_in_a_table_of_another_size() -> None:
    table = np.repeat(np.array([1, 2, 3, 4], dtype=np.uint32), 256)
    for size in (1021, 4093):
        other = resampled(table, size)
        assert len(other) == size
        same = [table[h * 1024 >> 16] == other[h * size >> 16] for h in range(0, 1 << 16, 97)]
        assert sum(same) >= 0.99 * len(same)
    assert resampled(table, 1024).tolist() == table.tolist()
