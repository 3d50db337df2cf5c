# SPDX-License-Identifier: Apache-2.0
"""The object that bcc's compiler makes of the programs, and what the loader makes of it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from ebpfmesh.datapath.errors import LayoutMismatch
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.object import Entries, Object, loads
from ebpfmesh.datapath.pinned import shape_of

MARK = 0xEBF0C0DE


def test_every_constant_was_found_wherever_it_stands(programs: Object) -> None:
    """None is left, and each is asked for somewhere."""
    asked = {name for program in programs.programs for _, name in program.constants}
    assert asked == programs.constants.keys()
    for program in programs.programs:
        marked = [at for at, _, value in loads(program.code) if value >> 32 == MARK]
        assert marked == [at for at, _ in program.constants], program.name


def test_sizes_go_with_the_settings(programs: Object) -> None:
    entries = {spec.name: spec.entries for spec in programs.maps}
    assert entries["frontends"] == Entries(4, "MAX_FRONTENDS")
    assert entries["transient_flows"] == Entries(1, "MAX_FLOWS", per=2)
    assert entries["nodes"] == Entries(4096)


def test_one_object_serves_every_size(programs: Object, bpffs: Path) -> None:
    sizes = {"MAX_FLOWS": 2048, "MAX_SERVICES": 32, "MAGLEV_SIZE": 31}
    module = Module(programs, sizes, bpffs / "sizes")
    shapes = {name: shape_of(module.table(name).map_fd) for name in ("flows", "maglev_template")}
    assert shapes["flows"].max_entries == module.table("flows").max_entries == 2048
    assert shapes["maglev_template"].value_size == 4 * 31
    assert ctypes.sizeof(module.table("maglev_template").Leaf) == 4 * 31
    module.close()
    with pytest.raises(LayoutMismatch, match="entries 2048, not 1024"):
        Module(programs, {**sizes, "MAX_FLOWS": 1024}, bpffs / "sizes")


def test_a_constant_that_nobody_knows_is_refused(programs: Object, bpffs: Path) -> None:
    with pytest.raises(ValueError, match=r"MAX_FLOW$"):
        Module(programs, {"MAX_FLOW": 1024}, bpffs / "unknown")


def test_a_table_is_a_mapping(programs: Object, bpffs: Path) -> None:
    module = Module(programs, {"MAGLEV_SIZE": 31, "MAX_FLOWS": 1024}, bpffs / "mapping")
    table = module.table("addresses")
    table[7], table[8] = table.Leaf(1), table.Leaf(2)
    assert {key.value: leaf.value for key, leaf in table.items()} == {7: 1, 8: 2}
    assert (len(table), 7 in table, 9 in table) == (2, True, False)
    del table[7]
    with pytest.raises(KeyError):
        del table[7]
    table.clear()
    assert len(table) == 0
    reasons = module.table("reasons")
    assert len(list(reasons)) == reasons.max_entries
    assert [sum(values) for values in reasons.values()] == [0] * reasons.max_entries
    module.close()
