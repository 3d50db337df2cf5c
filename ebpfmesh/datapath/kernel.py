# SPDX-License-Identifier: Apache-2.0
"""Making maps and programs: the system calls of bcc's library, without its compiler.

What makes or opens something returns a file descriptor, which is the caller's to close. Every
function raises `OSError`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from ebpfmesh.datapath.library import lib

_LICENSE = b"Dual BSD/GPL"


class _MapAttributes(ctypes.Structure):
    """struct bcc_create_map_attr (bcc: src/cc/libbpf.h)."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("map_type", ctypes.c_int),
        ("map_flags", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("numa_node", ctypes.c_uint32),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("room", ctypes.c_uint32 * 8),  # for what later versions add
    ]


class _LoadOptions(ctypes.Structure):
    """struct bpf_prog_load_opts (libbpf: bpf.h), as far as version 1.0 has it."""

    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
        ("attach_btf_obj_fd", ctypes.c_uint32),
        ("fd_array", ctypes.c_void_p),
        ("func_info", ctypes.c_void_p),
        ("func_info_cnt", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_void_p),
        ("line_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_void_p),
        ("room", ctypes.c_uint64 * 8),  # for what later versions add
    ]


class _RunOptions(ctypes.Structure):
    """struct bpf_test_run_opts (libbpf: bpf.h), as version 1.0 has it."""

    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_char_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    ]


def _fd(result: int, what: str) -> int:
    if result < 0:
        cause = ctypes.get_errno()
        raise OSError(cause, f"{what}: {os.strerror(cause)}")
    return result


def create_map(
    name: str,
    kind: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    inner_fd: int = 0,
) -> int:
    """Makes a map.

    It has no type information (BTF): up to Linux 6.1 a table has to be like the template of its
    map in that, too, and so neither has any.
    """
    attributes = _MapAttributes(
        name=name.encode(),
        map_type=kind,
        map_flags=flags,
        key_size=key_size,
        value_size=value_size,
        max_entries=max_entries,
        inner_map_fd=inner_fd,
    )
    made = lib.bcc_create_map_xattr(ctypes.byref(attributes), ctypes.c_bool(True))
    return _fd(made, f"map {name} was not made")


def load_program(
    name: str,
    kind: int,
    code: bytes,
    attach_type: int = 0,
    log: ctypes.Array[ctypes.c_char] | None = None,
    log_level: int = 0,
) -> int:
    """Loads a program.

    With a `log_level` the verifier writes to `log`; without one it says on standard error why it
    refuses a program.
    """
    options = _LoadOptions(expected_attach_type=attach_type, log_level=log_level)
    options.sz = _LoadOptions.room.offset
    loaded = lib.bcc_prog_load_xattr(
        kind,
        name.encode(),
        _LICENSE,
        ctypes.create_string_buffer(code, len(code)),
        ctypes.byref(options),
        len(code),
        log,
        ctypes.c_uint(len(log) if log else 0),
        ctypes.c_bool(True),
    )
    return _fd(loaded, f"the kernel refused program {name}")


def run_program(fd: int, packet: bytes, times: int) -> None:
    """Runs a program so many times on a packet that nobody sends; less often, if a signal comes."""
    options = _RunOptions(data_in=packet, data_size_in=len(packet), repeat=times)
    options.sz = ctypes.sizeof(_RunOptions)
    failed = lib.bpf_prog_test_run_opts(fd, ctypes.byref(options))
    if failed and (cause := ctypes.get_errno()) != errno.EINTR:
        raise OSError(cause, f"the kernel did not run a program: {os.strerror(cause)}")


def pin(fd: int, path: Path) -> None:
    """Gives a map or program a name in a BPF file system; it lives as long as that."""
    _fd(lib.bpf_obj_pin(fd, str(path).encode()), f"{path} was not made")


def open_pinned(path: Path) -> int:
    """Opens what is pinned."""
    return _fd(lib.bpf_obj_get(str(path).encode()), f"{path} was not opened")
