# SPDX-License-Identifier: Apache-2.0
"""The name of a loaded program: whose it is."""

from __future__ import annotations

import ctypes
import os

from ebpfmesh.datapath.library import lib


class _ProgInfo(ctypes.Structure):
    """The head of the kernel's struct bpf_prog_info (linux/bpf.h), up to the name."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * 16),
    )


def program_name(program_id: int) -> str:
    """The name (at most 15 characters) of a program; empty if there is none with that id."""
    fd = lib.bpf_prog_get_fd_by_id(program_id)
    if fd < 0:
        return ""
    try:
        info = _ProgInfo()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        failed = lib.bpf_obj_get_info(fd, ctypes.byref(info), ctypes.byref(size))
        return "" if failed else bytes(info.name).decode()
    finally:
        os.close(fd)
