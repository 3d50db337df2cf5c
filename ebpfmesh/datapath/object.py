# SPDX-License-Identifier: Apache-2.0
"""The compiled programs as one value, an *object*: it is the same for every node and every size.

Instructions hold neither file descriptors of maps nor constants of a node. They hold their places,
and `instructions` fills them in. An instruction is 8 bytes; one that loads 64 bits is two of
them, with the lower half of its value 4 bytes from its start and the upper half 12 (kernel:
Documentation/bpf/instruction-set.rst).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping

import msgspec

from ebpfmesh.datapath.errors import ObjectDamaged
from ebpfmesh.datapath.shipped import FORMAT
from ebpfmesh.typed import prepare

_MAGIC = b"ebpfmesh object\n"
_DIGEST_SIZE = hashlib.sha256().digest_size

_INSTRUCTION = 8
_LOAD_64 = 0x18  # BPF_LD | BPF_DW | BPF_IMM
_LOW, _HIGH = 4, 12
MAP_FD = 1  # BPF_PSEUDO_MAP_FD, in the place of a source register


class Entries(msgspec.Struct, frozen=True):
    """How many entries a map has: `times`, or that many for each `per` of the setting `size`."""

    times: int
    size: str = ""
    per: int = 1

    def of(self, sizes: Mapping[str, int]) -> int:
        """The number where the settings are `sizes`."""
        return self.times * sizes[self.size] // self.per if self.size else self.times


class MapSpec(msgspec.Struct, frozen=True):
    """One map. `key` and `value` are bcc's descriptions of their C types, as JSON.

    `value_size` is in bytes, of one CPU. `inner` names the template of a map in a map.
    """

    name: str
    kind: int
    key_size: int
    value_size: int
    entries: Entries
    flags: int
    pinned: bool
    key: str
    value: str
    inner: str = ""


class ProgramSpec(msgspec.Struct, frozen=True):
    """One program. Offsets, in bytes, are of instructions that load 64 bits."""

    name: str
    code: bytes
    maps: tuple[tuple[int, str], ...]
    constants: tuple[tuple[int, str], ...]


class Object(msgspec.Struct, frozen=True):
    """All programs and maps; `constants` and `sizes` have what holds where nothing is said.

    `reasons` is index in the map of that name -> kind and name.
    """

    layout: int
    constants: dict[str, int]
    sizes: dict[str, int]
    maps: tuple[MapSpec, ...]
    programs: tuple[ProgramSpec, ...]
    reasons: dict[int, tuple[str, str]]

    @property
    def names(self) -> list[str]:
        """Those of the programs; each knows its own place here."""
        return [program.name for program in self.programs]

    def program(self, name: str) -> ProgramSpec:
        """The program of that name. Raises `KeyError`."""
        for program in self.programs:
            if program.name == name:
                return program
        raise KeyError(name)


def loads(code: bytes) -> Iterator[tuple[int, int, int]]:
    """Offset, source register and value of every instruction that loads 64 bits."""
    offset = 0
    while offset < len(code):
        if code[offset] != _LOAD_64:
            offset += _INSTRUCTION
            continue
        low, high = (struct.unpack_from("<I", code, offset + at)[0] for at in (_LOW, _HIGH))
        yield offset, code[offset + 1] >> 4, high << 32 | low
        offset += 2 * _INSTRUCTION


def instructions(
    program: ProgramSpec, maps: Mapping[str, int], constants: Mapping[str, int]
) -> bytes:
    """The program with the file descriptors of its maps, and with a node's constants."""
    code = bytearray(program.code)
    for offset, name in program.maps:
        struct.pack_into("<I", code, offset + _LOW, maps[name])
    for offset, name in program.constants:
        value = constants[name]
        struct.pack_into("<I", code, offset + _LOW, value & 0xFFFFFFFF)
        struct.pack_into("<I", code, offset + _HIGH, value >> 32)
    return bytes(code)


def seal(made: Object) -> bytes:
    """The content of an object's file: a mark, the digest of the rest, MessagePack."""
    body = msgspec.msgpack.encode((FORMAT, made))
    return _MAGIC + hashlib.sha256(body).digest() + body


def unseal(data: bytes) -> Object:
    """The reverse of `seal`. Raises `ObjectDamaged`."""
    start = len(_MAGIC) + _DIGEST_SIZE
    digest, body = data[len(_MAGIC) : start], data[start:]
    if not data.startswith(_MAGIC) or digest != hashlib.sha256(body).digest():
        raise ObjectDamaged("it is cut short, or was changed")
    try:
        version, made = msgspec.msgpack.decode(body, type=tuple[int, msgspec.Raw])
        if version != FORMAT:
            raise ObjectDamaged(f"its format is {version}, not {FORMAT}")
        return msgspec.msgpack.decode(made, type=Object)
    except msgspec.MsgspecError as error:
        raise ObjectDamaged(str(error)) from error


prepare(Object)
