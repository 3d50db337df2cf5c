# SPDX-License-Identifier: Apache-2.0
"""The programs at the node's sockets: attached to the root of the cgroup hierarchy.

A program that was attached to a cgroup without a link stays when its loader ends. To find it
again it is pinned beside the maps.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ebpfmesh.datapath.errors import LoadError
from ebpfmesh.datapath.library import lib
from ebpfmesh.datapath.loader import CGROUP_SOCK_ADDR, Module
from ebpfmesh.datapath.netns import cookie_of

_BPF_F_ALLOW_MULTI = 2

# Program name -> attach type (enum bpf_attach_type in the kernel's linux/bpf.h). For published
# ports, and the node's own processes:
HOST_PROGRAMS = {
    "sock_connect4": 10,
    "sock_sendmsg4": 14,
    "sock_recvmsg4": 19,
    "sock_getpeername4": 29,
    "sock_connect6": 11,
    "sock_sendmsg6": 15,
    "sock_recvmsg6": 20,
    "sock_getpeername6": 30,
}
# For VIPs, and containers:
VIP_PROGRAMS = {
    "vip_connect4": 10,
    "vip_sendmsg4": 14,
    "vip_recvmsg4": 19,
    "vip_getpeername4": 29,
}
SOCKET_PROGRAMS = HOST_PROGRAMS | VIP_PROGRAMS


def netns_cookie() -> int:
    """The kernel's name for the caller's network namespace; it is never given twice."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return cookie_of(probe)


def cgroup_root(mounts: str) -> str:
    """The mount point of cgroup2 in the text of ``/proc/self/mounts``; empty if there is none."""
    for line in mounts.splitlines():
        _, target, kind, *_ = line.split()
        if kind == "cgroup2":
            return target
    return ""


@contextmanager
def _cgroup(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def attach_socket_programs(
    module: Module, cgroup: str, pin_dir: Path, programs: Mapping[str, int] = HOST_PROGRAMS
) -> None:
    """Attaches this module's `programs`, then takes those of an earlier one off, and all others.

    For a moment both are there: the second finds nothing more to do. Raises `LoadError`.
    """
    with _cgroup(cgroup) as directory:
        for name, attach_type in programs.items():
            fd = module.program(name, CGROUP_SOCK_ADDR, attach_type)
            if lib.bpf_prog_attach(fd, directory, attach_type, _BPF_F_ALLOW_MULTI):
                cause = os.strerror(ctypes.get_errno())
                raise LoadError(f"{name} was not attached to {cgroup}: {cause}")
            _detach_pinned(directory, pin_dir / name, attach_type)
            if lib.bpf_obj_pin(fd, str(pin_dir / name).encode()):
                cause = os.strerror(ctypes.get_errno())
                raise LoadError(f"{name} was not pinned in {pin_dir}: {cause}")
        for name in SOCKET_PROGRAMS.keys() - programs.keys():
            _detach_pinned(directory, pin_dir / name, SOCKET_PROGRAMS[name])


def detach_socket_programs(cgroup: str, pin_dir: Path) -> None:
    """Takes off what `attach_socket_programs` has pinned; nothing there is a success."""
    with _cgroup(cgroup) as directory:
        for name, attach_type in SOCKET_PROGRAMS.items():
            _detach_pinned(directory, pin_dir / name, attach_type)


def _detach_pinned(directory: int, pin: Path, attach_type: int) -> None:
    if not pin.exists():
        return
    fd = lib.bpf_obj_get(str(pin).encode())
    if fd >= 0:
        lib.bpf_prog_detach2(fd, directory, attach_type)
        os.close(fd)
    pin.unlink()
