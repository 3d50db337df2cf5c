# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from ebpfmesh.datapath.errors import LayoutMismatch
from ebpfmesh.datapath.pinned import Shape, check_shape, parse_fdinfo

FDINFO = """\
pos:\t0
flags:\t02000002
map_type:\t9
key_size:\t20
value_size:\t48
max_entries:\t262144
map_flags:\t0x0
"""
PINS = Path("/sys/fs/bpf/ebpfmesh/1")


def test_shape_is_read_from_the_kernels_text() -> None:
    assert parse_fdinfo(FDINFO) == Shape(20, 48, 262144)


def test_same_shape_is_taken_over() -> None:
    check_shape("flows", Shape(20, 48, 8), Shape(20, 48, 8), PINS)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Shape(16, 48, 8), "key 16, not 20"),
        (Shape(20, 40, 8), "value 40, not 48"),
        (Shape(20, 48, 9), "entries 9, not 8"),
    ],
)
def test_other_shape_is_refused_with_a_way_out(found: Shape, words: str) -> None:
    with pytest.raises(LayoutMismatch, match=words) as raised:
        check_shape("flows", found, Shape(20, 48, 8), PINS)
    assert "ebpfmesh detach" in str(raised.value)
    assert str(PINS) in str(raised.value)
