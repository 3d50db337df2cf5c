# SPDX-License-Identifier: Apache-2.0
"""Compiles and loads the programs: the only user of bcc."""

from __future__ import annotations

import ctypes
import os
import tempfile
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bcc import BPF, lib

from ebpfmesh.datapath import crc32c
from ebpfmesh.datapath.errors import LoadError
from ebpfmesh.datapath.pinned import Shape, check_shape, shape_of
from ebpfmesh.datapath.shim import make_shim
from ebpfmesh.datapath.source import amalgamate, pinned_maps, source_dir

# The immediate that stands for the network in bpf/vip.h, as it lies in an instruction.
_VNI_PLACEHOLDER = (0x6E657476).to_bytes(4, "little")

TC = BPF.SCHED_CLS
XDP = BPF.XDP
CGROUP_SOCK_ADDR = BPF.CGROUP_SOCK_ADDR

# By their place in `programs`: enum program in bpf/types.h.
_HANDED_OVER_TO = ("nic_from_ip6", "nic_to_ip6", "nic_outer_error")

_LICENSE = b"Dual BSD/GPL"


class Module:
    """The compiled programs and their maps.

    Maps are pinned below `pin_dir`; those that are pinned there already are taken over with
    all that they hold.
    """

    def __init__(self, defines: Mapping[str, int], pin_dir: Path) -> None:
        """Compiles with `defines` as the constants of bpf/config.h.

        Raises `LoadError`, or `LayoutMismatch` for maps that were pinned with other sizes.
        """
        pin_dir.mkdir(parents=True, exist_ok=True)
        flags = [f"-D{name}={value}" for name, value in defines.items()]
        flags.append(f'-DPIN_DIR="{pin_dir}"')
        with tempfile.TemporaryDirectory(prefix="ebpfmesh-") as shim:
            os.environ["BCC_KERNEL_SOURCE"] = str(make_shim(Path(shim)))
            try:
                self._bpf = BPF(text=amalgamate(source_dir()), cflags=flags)
            except Exception as error:
                raise LoadError(f"the programs did not compile: {error}") from error
        self._loaded: dict[tuple[str, int], int] = {}
        self._check_pinned(pin_dir)
        self._write_constants()

    def _write_constants(self) -> None:
        """Before any program is loaded: they take them for granted."""
        table = self.table("crc32c")
        table[table.Key(0)] = table.Leaf.from_buffer_copy(array("I", crc32c.constants()))

    def _check_pinned(self, pin_dir: Path) -> None:
        """Raises `LayoutMismatch` if a map that was taken over is not what is wanted."""
        for name in pinned_maps(source_dir()):
            table = self.table(name)
            # bcc's Leaf of a per-CPU map is one value for each CPU, sLeaf is one of them.
            leaf = ctypes.c_uint32 if name == "maglev" else getattr(table, "sLeaf", table.Leaf)
            wanted = Shape(ctypes.sizeof(table.Key), ctypes.sizeof(leaf), table.max_entries)
            check_shape(name, shape_of(table.map_fd), wanted, pin_dir)

    def table(self, name: str) -> Any:
        """bcc's view of a map: its key and value as ctypes, its file descriptor."""
        return self._bpf[name.encode()]

    def program(self, name: str, kind: int, attach_type: int = -1) -> int:
        """File descriptor of a program. The module keeps it open."""
        return self._load(name, kind, 0, attach_type)

    def program_for_network(self, name: str, vni: int) -> int:
        """File descriptor of a tc program made for one overlay network."""
        return self._load(name, TC, vni, -1)

    def fill_programs(self) -> None:
        """Puts the programs that others hand packets over to into their map."""
        fd = self.table("programs").map_fd
        for index, name in enumerate(_HANDED_OVER_TO):
            program = ctypes.c_uint32(self.program(name, TC))
            if lib.bpf_update_elem(
                fd, ctypes.byref(ctypes.c_uint32(index)), ctypes.byref(program), 0
            ):
                cause = os.strerror(ctypes.get_errno())
                raise LoadError(f"program {name} was not put into its map: {cause}")

    def _load(self, name: str, kind: int, vni: int, attach_type: int) -> int:
        key = (name, vni)
        if key not in self._loaded:
            code = self._bpf.dump_func(name.encode())
            if vni:
                code = _with_vni(code, vni)
            self._loaded[key] = self._load_code(name, kind, code, attach_type)
        return self._loaded[key]

    def _load_code(self, name: str, kind: int, code: bytes, attach_type: int) -> int:
        fd: int = lib.bcc_func_load(
            self._bpf.module,
            kind,
            name.encode(),
            ctypes.cast(ctypes.create_string_buffer(code, len(code)), ctypes.c_void_p),
            len(code),
            _LICENSE,
            lib.bpf_module_kern_version(self._bpf.module),
            0,
            None,
            0,
            None,
            attach_type,
        )
        if fd < 0:
            cause = os.strerror(ctypes.get_errno())
            raise LoadError(f"the kernel refused program {name}: {cause}")
        return fd

    def close(self) -> None:
        """Closes the programs' descriptors; what is attached stays attached."""
        for fd in self._loaded.values():
            os.close(fd)
        self._loaded.clear()
        self._bpf.cleanup()


def _with_vni(code: bytes, vni: int) -> bytes:
    """The program with its placeholder replaced. It must stand there exactly once."""
    if code.count(_VNI_PLACEHOLDER) != 1:
        raise LoadError("the network's placeholder is not in the program exactly once")
    return code.replace(_VNI_PLACEHOLDER, vni.to_bytes(4, "little"))
