# SPDX-License-Identifier: Apache-2.0
"""Whether pinned maps are those that the programs expect.

A pinned map is taken over as it is: neither bcc nor the kernel compares its sizes with the
ones in the source. A program that reads past a smaller value would be refused, one that finds
a smaller map would just find nothing; so this is looked at first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ebpfmesh.datapath.errors import LayoutMismatch


@dataclass(frozen=True)
class Shape:
    """Sizes in bytes, and how many entries a map has room for."""

    key_size: int
    value_size: int
    max_entries: int


def parse_fdinfo(text: str) -> Shape:
    """The shape of a map from ``/proc/<pid>/fdinfo/<fd>`` (kernel: bpf_map_show_fdinfo)."""
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    return Shape(
        key_size=int(fields["key_size"]),
        value_size=int(fields["value_size"]),
        max_entries=int(fields["max_entries"]),
    )


def shape_of(fd: int) -> Shape:
    """The shape of an open map, as the kernel has it."""
    return parse_fdinfo(Path(f"/proc/self/fdinfo/{fd}").read_text())


def check_shape(name: str, found: Shape, wanted: Shape, pin_dir: Path) -> None:
    """Raises `LayoutMismatch` unless the map `name` has the shape that is wanted."""
    if found == wanted:
        return
    raise LayoutMismatch(
        f"map {name} in {pin_dir} was made with other sizes: {_difference(found, wanted)}; "
        "give the settings their former values (maglev_size, max_*), or run `ebpfmesh detach` "
        "first, which ends the connections that are balanced now"
    )


def _difference(found: Shape, wanted: Shape) -> str:
    pairs = {
        "key": (found.key_size, wanted.key_size),
        "value": (found.value_size, wanted.value_size),
        "entries": (found.max_entries, wanted.max_entries),
    }
    return ", ".join(f"{k} {has}, not {wants}" for k, (has, wants) in pairs.items() if has != wants)
