# SPDX-License-Identifier: Apache-2.0
"""Loads the programs of an object, with the maps that they share."""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ebpfmesh.datapath import crc32c, kernel
from ebpfmesh.datapath.errors import LoadError
from ebpfmesh.datapath.object import Entries, MapSpec, Object, instructions
from ebpfmesh.datapath.pinned import Shape, check_shape, shape_of
from ebpfmesh.datapath.table import Table

# Kinds of programs: enum bpf_prog_type in the kernel's linux/bpf.h.
TC = 3
XDP = 6
CGROUP_SOCK_ADDR = 18

_VNI, _PROGRAM = "ATTACHED_VNI", "THIS_PROGRAM"

# By their place in `programs`: enum program in bpf/types.h.
_HANDED_OVER_TO = ("nic_refuse_ip6", "nic_to_ip6", "nic_outer_error", "nic_ingress")

# The template of the Maglev tables: the one map whose value's length is a setting.
_TEMPLATE, _TABLE_SIZE = "maglev_template", "MAGLEV_SIZE"


def sized(made: Object, values: Mapping[str, int]) -> dict[str, MapSpec]:
    """The maps, by name, with the sizes that they have on a node with these values."""
    known = {**made.constants, **made.sizes, **values}
    return {
        spec.name: msgspec.structs.replace(
            spec,
            value_size=4 * known[_TABLE_SIZE] if spec.name == _TEMPLATE else spec.value_size,
            entries=Entries(spec.entries.of(known)),
        )
        for spec in made.maps
    }


class Module:
    """The maps and programs of one node.

    Maps are pinned below `pin_dir`; those that are pinned there already are taken over with
    all that they hold.
    """

    def __init__(self, made: Object, values: Mapping[str, int], pin_dir: Path) -> None:
        """Takes `values` for the constants and sizes of bpf/config.h that they name.

        Raises `LoadError`, or `LayoutMismatch` for maps that were pinned with other sizes.
        """
        unknown = values.keys() - made.constants.keys() - made.sizes.keys()
        if unknown:
            raise ValueError(f"bpf/config.h has no {', '.join(sorted(unknown))}")
        self._object = made
        self._values = {**made.constants, **made.sizes, **values}
        self._shapes = sized(made, values)
        self._tables: dict[str, Table] = {}
        self._loaded: dict[tuple[str, int], int] = {}
        pin_dir.mkdir(parents=True, exist_ok=True)
        try:
            for spec in self._shapes.values():
                self._tables[spec.name] = self._open(spec, pin_dir)
        except OSError as error:
            raise LoadError(f"the maps in {pin_dir} were not opened: {error}") from error
        self._write_constants()

    def _open(self, spec: MapSpec, pin_dir: Path) -> Table:
        """Takes a map over, or makes it. Raises `LayoutMismatch`, `OSError`."""
        wanted = Shape(spec.key_size, spec.value_size, spec.entries.times)
        pin = pin_dir / spec.name
        if spec.pinned and pin.exists():
            fd = kernel.open_pinned(pin)
            check_shape(spec.name, shape_of(fd), wanted, pin_dir)
        else:
            fd = kernel.create_map(
                spec.name,
                spec.kind,
                wanted.key_size,
                wanted.value_size,
                wanted.max_entries,
                spec.flags,
                self._tables[spec.inner].map_fd if spec.inner else 0,
            )
            if spec.pinned:
                kernel.pin(fd, pin)
        return Table(spec, fd, wanted.value_size, wanted.max_entries)

    def _write_constants(self) -> None:
        """Before any program is loaded: they take them for granted."""
        table = self.table("crc32c")
        table[0] = table.Leaf.from_buffer_copy(array("I", crc32c.constants()))

    @property
    def names(self) -> list[str]:
        """Those of the programs, in the order of their numbers."""
        return self._object.names

    @property
    def reasons(self) -> Mapping[int, tuple[str, str]]:
        """Number -> kind (``drop``, ``handback``, ``retry``) and name."""
        return self._object.reasons

    def value(self, name: str) -> int:
        """What a constant or size of bpf/config.h is here."""
        return self._values[name]

    def table(self, name: str) -> Table:
        """A map: its key and value as ctypes, its file descriptor."""
        return self._tables[name]

    def program(self, name: str, kind: int, attach_type: int = 0) -> int:
        """File descriptor of a program. The module keeps it open."""
        return self._load(name, kind, 0, attach_type)

    def program_for_network(self, name: str, vni: int) -> int:
        """File descriptor of a tc program made for one overlay network."""
        return self._load(name, TC, vni, 0)

    def fill_programs(self) -> None:
        """Puts the programs that others hand packets over to into their map."""
        table = self.table("programs")
        for index, name in enumerate(_HANDED_OVER_TO):
            table[index] = ctypes.c_uint32(self.program(name, TC))

    def _load(self, name: str, kind: int, vni: int, attach_type: int) -> int:
        key = (name, vni)
        if key not in self._loaded:
            values = {**self._values, _VNI: vni, _PROGRAM: self._object.names.index(name)}
            maps = {name: table.map_fd for name, table in self._tables.items()}
            code = instructions(self._object.program(name), maps, values)
            self._loaded[key] = self._load_code(name, kind, code, attach_type)
        return self._loaded[key]

    def _load_code(self, name: str, kind: int, code: bytes, attach_type: int) -> int:
        try:
            return kernel.load_program(name, kind, code, attach_type)
        except OSError as error:
            raise LoadError(str(error)) from error

    def close(self) -> None:
        """Closes programs and maps; what is attached stays attached, what is pinned pinned."""
        for fd in self._loaded.values():
            os.close(fd)
        for table in self._tables.values():
            os.close(table.map_fd)
        self._loaded.clear()
        self._tables.clear()
