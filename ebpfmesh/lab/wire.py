# SPDX-License-Identifier: Apache-2.0
"""Makes a veth behave like a network card towards XDP.

What XDP sends back or redirects into a veth waits in its ring, unseen, until the *peer*
polls; a peer polls as soon as it has a program. So each port of the bridge gets the
smallest one: pass every frame.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

from pyroute2 import IPRoute

from ebpfmesh.datapath.netns import netlink_socket
from ebpfmesh.lab import namespaces
from ebpfmesh.lab.errors import LabError

_BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}
_BPF_PROG_LOAD = 5
_BPF_PROG_TYPE_XDP = 6
_XDP_FLAGS_DRV_MODE = 1 << 2

_INSTRUCTION = struct.Struct("<BBhi")  # code, registers, offset, immediate
_MOV_R0_IMM = 0xB7
_EXIT = 0x95
_XDP_PASS = 2
_PASS = _INSTRUCTION.pack(_MOV_R0_IMM, 0, 0, _XDP_PASS) + _INSTRUCTION.pack(_EXIT, 0, 0, 0)

_LOAD = struct.Struct("@IIQQ")  # type, number of instructions, instructions, licence
_ATTR_SIZE = 128


def pass_every_frame(namespace: str, links: list[str]) -> None:
    """Attach the program, in driver mode, to the named links of a namespace.

    pyroute2's own way into a namespace is a forked process that it ends by SIGTERM: where that
    signal raises, the copy would unwind as we do, and take the lab down.
    """
    program = load_pass()
    try:
        socket = netlink_socket(str(namespaces.path(namespace)))
        with IPRoute(fileno=socket.detach()) as netlink:
            for link in links:
                (index,) = netlink.link_lookup(ifname=link)
                xdp = [("IFLA_XDP_FD", program), ("IFLA_XDP_FLAGS", _XDP_FLAGS_DRV_MODE)]
                netlink.link("set", index=index, IFLA_XDP={"attrs": xdp})
    finally:
        os.close(program)  # the links keep it


def load_pass() -> int:
    """File descriptor of a program that passes every frame; the caller closes it."""
    code = ctypes.create_string_buffer(_PASS)
    licence = ctypes.create_string_buffer(b"GPL")
    count = len(_PASS) // _INSTRUCTION.size
    where = (ctypes.addressof(code), ctypes.addressof(licence))
    attr = ctypes.create_string_buffer(_LOAD.pack(_BPF_PROG_TYPE_XDP, count, *where), _ATTR_SIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    program: int = libc.syscall(_syscall_number(), _BPF_PROG_LOAD, attr, _ATTR_SIZE)
    if program < 0:
        raise LabError(f"the kernel refuses an XDP program: {os.strerror(ctypes.get_errno())}")
    return program


def _syscall_number() -> int:
    machine = platform.machine()
    if machine not in _BPF_SYSCALL:
        raise LabError(f"the lab does not know the number of bpf(2) on {machine}")
    return _BPF_SYSCALL[machine]
