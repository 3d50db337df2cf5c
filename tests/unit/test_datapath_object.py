# SPDX-License-Identifier: Apache-2.0
"""The compiled programs as a value: what is filled in, and what a file is refused for."""

from __future__ import annotations

import struct

import msgspec
import pytest

from ebpfmesh.datapath.errors import ObjectDamaged
from ebpfmesh.datapath.object import (
    MAP_FD,
    Entries,
    MapSpec,
    Object,
    ProgramSpec,
    instructions,
    loads,
    seal,
    unseal,
)

EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)


def load_64(register: int, source: int, value: int) -> bytes:
    first = struct.pack("<BBhI", 0x18, source << 4 | register, 0, value & 0xFFFFFFFF)
    return first + struct.pack("<BBhI", 0, 0, 0, value >> 32)


CODE = load_64(1, MAP_FD, 7) + load_64(2, 0, 0x123456789ABCDEF0) + load_64(3, 0, 5) + EXIT
PROGRAM = ProgramSpec("p", CODE, maps=((0, "flows"),), constants=((16, "COOKIE"), (32, "MTU")))
MAP = MapSpec(
    name="flows",
    kind=9,
    key_size=4,
    value_size=8,
    entries=Entries(1, "MAX_FLOWS", 2),
    flags=0,
    pinned=True,
    key='"unsigned int"',
    value='"unsigned long long"',
)
CONSTANTS, REASONS = {"COOKIE": 0, "MTU": 1500}, {1: ("drop", "no_port")}
OBJECT = Object(2, CONSTANTS, {"MAX_FLOWS": 10}, (MAP,), (PROGRAM,), REASONS)


def test_what_loads_64_bits_is_found() -> None:
    assert list(loads(CODE)) == [(0, MAP_FD, 7), (16, 0, 0x123456789ABCDEF0), (32, 0, 5)]


def test_a_value_that_looks_like_an_instruction_is_none() -> None:
    assert list(loads(load_64(1, 0, 0x18 << 32))) == [(0, 0, 0x18 << 32)]


def test_maps_and_constants_are_filled_in() -> None:
    code = instructions(PROGRAM, {"flows": 99}, {"COOKIE": 2**64 - 2, "MTU": 9000})
    assert list(loads(code)) == [(0, MAP_FD, 99), (16, 0, 2**64 - 2), (32, 0, 9000)]
    assert code[1] == CODE[1]
    assert code[48:] == EXIT


@pytest.mark.parametrize(
    ("entries", "number"),
    [(Entries(5), 5), (Entries(4, "MAX_FLOWS"), 4000), (Entries(1, "MAX_FLOWS", 2), 500)],
)
def test_entries_go_with_the_setting(entries: Entries, number: int) -> None:
    assert entries.of({"MAX_FLOWS": 1000}) == number


def test_unsealed_is_what_was_sealed() -> None:
    assert unseal(seal(OBJECT)) == OBJECT


def test_program_by_name() -> None:
    assert OBJECT.program("p") is PROGRAM
    with pytest.raises(KeyError):
        OBJECT.program("q")


@pytest.mark.parametrize("at", [0, 20, 60, -1])
def test_a_changed_byte_is_noticed(at: int) -> None:
    data = bytearray(seal(OBJECT))
    data[at] ^= 1
    with pytest.raises(ObjectDamaged, match="changed"):
        unseal(bytes(data))


@pytest.mark.parametrize("length", [0, 10, 40, 100])
def test_a_file_that_was_cut_is_noticed(length: int) -> None:
    with pytest.raises(ObjectDamaged, match="cut short"):
        unseal(seal(OBJECT)[:length])


def test_another_format_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = seal(OBJECT)
    monkeypatch.setattr("ebpfmesh.datapath.object.FORMAT", 99)
    with pytest.raises(ObjectDamaged, match="format"):
        unseal(data)


def test_what_is_not_understood_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    data = seal(msgspec.structs.replace(OBJECT, maps=(1,)))
    with pytest.raises(ObjectDamaged):
        unseal(data)
