# SPDX-License-Identifier: Apache-2.0
"""Small programs, instruction by instruction (RFC 9669). Pure.

An empty program is the floor: what it costs to be run at all. A *restorer* writes a packet as it
came, and then jumps to the program under test, which so finds it fresh at each of many runs in one
call. What the restorer itself costs is measured with an empty program behind it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

TC, XDP = 3, 6  # enum bpf_prog_type
XDP_PASS, TC_UNSPEC = 2, -1
_GET_RANDOM, _TAIL_CALL, _ADJUST_HEAD, _ADJUST_META = 7, 12, 44, 54  # enum bpf_func_id
_XDP_FIELDS, _SKB_FIELDS = (0, 4), (76, 80)  # offsets of data, data_end
_XDP_META = 8


@dataclass(frozen=True)
class Vary:
    """A 16-bit field of the packet that gets a random number, `low` and up, below `low + count`."""

    offset: int
    low: int = 1024
    count: int = 60_000


def _insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    imm = imm - (1 << 32) if imm >= 1 << 31 else imm
    return struct.pack("<BBhi", code, src << 4 | dst, off, imm)


def _move(dst: int, src: int) -> bytes:
    return _insn(0xBF, dst, src)


def _set(dst: int, imm: int) -> bytes:
    return _insn(0xB7, dst, imm=imm)


def _add(dst: int, imm: int) -> bytes:
    return _insn(0x07, dst, imm=imm)


def _subtract(dst: int, src: int) -> bytes:
    return _insn(0x1F, dst, src)


def _load_word(dst: int, src: int, off: int) -> bytes:
    return _insn(0x61, dst, src, off)


def _call(helper: int) -> bytes:
    return _insn(0x85, imm=helper)


_EXIT = _insn(0x95)


def empty(kind: int) -> bytes:
    """A program that lets every packet pass."""
    return _set(0, XDP_PASS if kind == XDP else TC_UNSPEC) + _EXIT


def restorer(kind: int, packet: bytes, table: int, vary: tuple[Vary, ...] = ()) -> bytes:
    """A program that makes the packet this one, and jumps to the one in `table`.

    XDP: whatever was put in front of the packet or taken off. tc: its length must be the same.
    """
    code = _move(6, 1)
    if kind == XDP:
        code += _as_long(len(packet))
    code += _bounds(_XDP_FIELDS if kind == XDP else _SKB_FIELDS, len(packet))
    code += _written(packet)
    for field in vary:
        code += _varied(field)
    return code + _jump(table) + _set(0, 0) + _EXIT


def _as_long(length: int) -> bytes:
    """Metadata goes, then head room is taken or given until the length is right."""
    meta = _load_word(2, 6, 0) + _load_word(3, 6, _XDP_META) + _subtract(2, 3)
    meta += _move(1, 6) + _call(_ADJUST_META)
    head = _load_word(2, 6, 4) + _load_word(3, 6, 0) + _subtract(2, 3) + _add(2, -length)
    return meta + head + _move(1, 6) + _call(_ADJUST_HEAD)


def _bounds(fields: tuple[int, int], length: int) -> bytes:
    """The packet's start in r8; out with verdict 0 if it is shorter than that."""
    data, end = fields
    code = _load_word(8, 6, data) + _load_word(3, 6, end)
    code += _move(2, 8) + _add(2, length)
    return code + _insn(0xBD, 2, 3, 2) + _set(0, 0) + _EXIT  # if r2 <= r3 skip two


def _written(packet: bytes) -> bytes:
    """The packet's bytes, four at a time; r8 is its start."""
    code = b""
    for offset in range(0, len(packet) - 3, 4):
        (word,) = struct.unpack_from("<I", packet, offset)
        code += _insn(0x62, 8, off=offset, imm=word)
    for offset in range(len(packet) & ~3, len(packet)):
        code += _insn(0x72, 8, off=offset, imm=packet[offset])
    return code


def _varied(field: Vary) -> bytes:
    code = _call(_GET_RANDOM)
    code += _insn(0x97, 0, imm=field.count) + _add(0, field.low)
    code += _insn(0xDC, 0, imm=16)  # to network byte order
    return code + _insn(0x6B, 8, 0, field.offset)


def _jump(table: int) -> bytes:
    code = _move(1, 6)
    code += _insn(0x18, 2, 1, imm=table) + _insn(0)
    return code + _set(3, 0) + _call(_TAIL_CALL)
