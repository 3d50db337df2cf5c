# SPDX-License-Identifier: Apache-2.0
"""bpf(2) itself, for who has to work where bcc's library is missing: `ebpfmesh check`, and the lab.

All others go by `ebpfmesh.datapath.kernel`. Both functions raise `OSError`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

PROG_QUERY = 16  # enum bpf_cmd
_PROG_LOAD = 5

# A machine that is not known has no such call: ENOSYS.
_NUMBER = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), -1)
_ATTR_SIZE = 128

# Type, number of instructions, instructions, licence; a log and the like; how it is attached.
_LOAD = struct.Struct("@IIQQ44xI")
# Code, registers, offset, immediate: r0 = ...; exit.
_INSTRUCTION = struct.Struct("<BBhi")
_MOV_R0_IMM, _EXIT = 0xB7, 0x95

_libc = ctypes.CDLL(None, use_errno=True)


def load_constant(kind: int, verdict: int, attach: int = 0) -> int:
    """Load the smallest program of a type (enum bpf_prog_type): it answers always the same.

    Returns its file descriptor, which the caller closes.
    """
    code = _INSTRUCTION.pack(_MOV_R0_IMM, 0, 0, verdict) + _INSTRUCTION.pack(_EXIT, 0, 0, 0)
    held = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    where = map(ctypes.addressof, held)
    loaded, _ = bpf(_PROG_LOAD, _LOAD.pack(kind, len(code) // _INSTRUCTION.size, *where, attach))
    return loaded


def bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """Return what the call returns, and what it has made of its attributes (union bpf_attr)."""
    attr = ctypes.create_string_buffer(attributes, _ATTR_SIZE)
    result = int(_libc.syscall(_NUMBER, command, attr, _ATTR_SIZE))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result, attr.raw
