# SPDX-License-Identifier: Apache-2.0
"""The system call bpf(2): its number, commands and attributes, as far as tests and benches go."""

from __future__ import annotations

import ctypes
import os
import platform
from enum import IntEnum

_NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long]


class Command(IntEnum):
    """enum bpf_cmd."""

    MAP_CREATE = 0
    MAP_UPDATE_ELEM = 2
    PROG_LOAD = 5
    PROG_TEST_RUN = 10
    MAP_LOOKUP_BATCH = 24
    MAP_LOOKUP_AND_DELETE_BATCH = 25
    MAP_UPDATE_BATCH = 26


class TestRun(ctypes.Structure):
    __test__ = False  # no class of tests

    _fields_ = [
        ("prog_fd", _U32),
        ("retval", _U32),
        ("data_size_in", _U32),
        ("data_size_out", _U32),
        ("data_in", _U64),
        ("data_out", _U64),
        ("repeat", _U32),
        ("duration", _U32),
        ("ctx_size_in", _U32),
        ("ctx_size_out", _U32),
        ("ctx_in", _U64),
        ("ctx_out", _U64),
        ("flags", _U32),
        ("cpu", _U32),
        ("batch_size", _U32),
        ("pad", _U32),
    ]


class ProgLoad(ctypes.Structure):
    _fields_ = [
        ("prog_type", _U32),
        ("insn_cnt", _U32),
        ("insns", _U64),
        ("license", _U64),
        ("log_level", _U32),
        ("log_size", _U32),
        ("log_buf", _U64),
        ("kern_version", _U32),
        ("prog_flags", _U32),
        ("prog_name", ctypes.c_char * 16),
    ]


class MapCreate(ctypes.Structure):
    _fields_ = [(n, _U32) for n in ("map_type", "key_size", "value_size", "max_entries", "flags")]


class MapElement(ctypes.Structure):
    _fields_ = [("map_fd", _U32), ("pad", _U32), ("key", _U64), ("value", _U64), ("flags", _U64)]


class MapBatch(ctypes.Structure):
    _fields_ = [
        ("in_batch", _U64),
        ("out_batch", _U64),
        ("keys", _U64),
        ("values", _U64),
        ("count", _U32),
        ("map_fd", _U32),
        ("elem_flags", _U64),
        ("flags", _U64),
    ]


class Call:
    """One call, made again and again: what it costs in Python is paid once."""

    def __init__(self, command: Command, attr: ctypes.Structure) -> None:
        self._command, self._attr = int(command), attr
        self._where, self._size = ctypes.addressof(attr), ctypes.sizeof(attr)

    def __call__(self, *, but: int = 0) -> int:
        """What it returns. Raises `OSError`, unless the error is the one that is named."""
        result: int = _libc.syscall(_NUMBER, self._command, self._where, self._size)
        if result < 0 and ctypes.get_errno() != but:
            number = ctypes.get_errno()
            raise OSError(number, f"{Command(self._command).name}: {os.strerror(number)}")
        return result


def call(command: Command, attr: ctypes.Structure) -> int:
    """What it returns. Raises `OSError`."""
    return Call(command, attr)()
