# SPDX-License-Identifier: Apache-2.0
"""bcc's descriptions of C types, read."""

from __future__ import annotations

import ctypes

import pytest

from ebpfmesh.datapath.layout import ctype

PAIR = '["pair", [["a", "unsigned short"], ["b", "unsigned int"]], "struct_packed"]'


def test_basic_types() -> None:
    assert ctype('"unsigned int"') is ctypes.c_uint
    assert ctype('"long long"') is ctypes.c_longlong


def test_struct_in_a_struct_with_arrays() -> None:
    kind = ctype(f'["s", [["p", {PAIR}], ["mac", "unsigned char", [6]]], "struct_packed"]')
    value = kind.from_buffer_copy(bytes(range(12)))
    assert ctypes.sizeof(kind) == 12
    assert value.p.b == 0x05040302
    assert bytes(value.mac) == bytes(range(6, 12))


def test_a_struct_that_is_not_packed_has_holes() -> None:
    assert ctypes.sizeof(ctype(PAIR)) == 6
    assert ctypes.sizeof(ctype(PAIR.replace("struct_packed", "struct"))) == 8


def test_a_union_has_one_place() -> None:
    assert ctypes.sizeof(ctype(PAIR.replace("struct_packed", "union"))) == 4


@pytest.mark.parametrize(
    "description", ['"wide"', '["s", [["bits", "unsigned int", 3]], "struct_packed"]']
)
def test_what_is_not_understood_is_an_error(description: str) -> None:
    with pytest.raises(ValueError, match=r"wide|bits"):
        ctype(description)
