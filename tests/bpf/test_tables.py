# SPDX-License-Identifier: Apache-2.0
"""Tables in the kernel: written in place, and read there by programs."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest

from ebpfmesh.datapath.library import lib
from ebpfmesh.datapath.lookup import Lookup
from ebpfmesh.datapath.tables import Tables

from .node import Node

POOL, OTHER = 7, 8


@pytest.fixture
def tables(node: Node) -> Iterator[Tables]:
    found = Tables(node.module)
    yield found
    found.put({POOL: b"", OTHER: b""})


def full_of(tables: Tables, *ids: int) -> bytes:
    return np.resize(np.array(ids, dtype=np.uint32), tables.slots).tobytes()


def number(node: Node, pool: int) -> int:
    """The kernel's number of the pool's table."""
    key, found = ctypes.c_uint32(pool), ctypes.c_uint32()
    fd = node.table("maglev").map_fd
    assert lib.bpf_lookup_elem(fd, ctypes.byref(key), ctypes.byref(found)) == 0
    return found.value


def held(node: Node, pool: int) -> bytes | None:
    table = Lookup(node.module).table(pool)
    return None if table is None else table.tobytes()


def test_a_table_is_written_in_place(node: Node, tables: Tables) -> None:
    tables.put({POOL: full_of(tables, 1, 2, 3)})
    before = number(node, POOL)
    for ids in ((1, 2), (4,), (5, 6, 7)):
        tables.put({POOL: full_of(tables, *ids)})
        assert held(node, POOL) == full_of(tables, *ids)
    assert number(node, POOL) == before


def test_some_pools_have_tables_and_some_have_none(node: Node, tables: Tables) -> None:
    tables.put({POOL: full_of(tables, 1)})
    before = number(node, POOL)
    both = {POOL: full_of(tables, 2), OTHER: full_of(tables, 3)}
    tables.put(both)
    assert {pool: held(node, pool) for pool in both} == both
    assert number(node, POOL) == before


def test_an_empty_table_is_none(node: Node, tables: Tables) -> None:
    tables.put({POOL: full_of(tables, 1)})
    for _ in range(2):
        tables.put({POOL: b""})
        assert held(node, POOL) is None
    tables.put({POOL: full_of(tables, 2)})
    assert held(node, POOL) == full_of(tables, 2)


def test_a_table_of_another_size_changes_nothing(node: Node, tables: Tables) -> None:
    tables.put({POOL: full_of(tables, 1)})
    with pytest.raises(ValueError, match="a table of"):
        tables.put({POOL: full_of(tables, 2), OTHER: b"1234"})
    assert held(node, POOL) == full_of(tables, 1)
    assert held(node, OTHER) is None
