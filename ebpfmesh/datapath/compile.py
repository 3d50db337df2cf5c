# SPDX-License-Identifier: Apache-2.0
"""Compiles bpf/ into an object: ``python -m ebpfmesh.datapath.compile [FILE [DIRECTORY]]``.

A process of its own, as clang leaves a process with hundreds of megabytes. bcc compiles nothing
without making the maps, so this wants the rights to (root, or CAP_BPF and CAP_NET_ADMIN); they go
with the process. Without a FILE the object goes where every agent of this installation looks
first: it then needs no clang, and no headers.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from bcc import BPF, lib

from ebpfmesh.datapath.object import (
    MAP_FD,
    Entries,
    MapSpec,
    Object,
    ProgramSpec,
    loads,
    seal,
)
from ebpfmesh.datapath.objects import write
from ebpfmesh.datapath.shim import make_shim
from ebpfmesh.datapath.shipped import shipped
from ebpfmesh.datapath.source import (
    amalgamate,
    entry_points,
    layout_version,
    map_names,
    node_constants,
    pinned_maps,
    reasons,
    sizes,
    source_dir,
)

# The number of entries of every map that goes with a setting is a multiple of one of these, of no
# other number: so it is seen what it was made of. Each is twice a prime.
_MARKS = (2018, 2026, 2038, 2042, 2062, 2066)


def compiled(directory: Path) -> Object:
    """Compiles the programs in `directory`. Raises what bcc raises; clang writes to stderr."""
    defaults = sizes(directory)
    marks = dict(zip(defaults, _MARKS, strict=False))
    assert len(marks) == len(defaults), "every size needs a mark"
    with tempfile.TemporaryDirectory(prefix="ebpfmesh-") as shim:
        os.environ["BCC_KERNEL_SOURCE"] = str(make_shim(Path(shim)))
        flags = [f"-D{name}={mark}" for name, mark in marks.items()]
        bpf = BPF(text=amalgamate(directory), cflags=flags)
    constants = node_constants(directory)
    places = {placeholder: name for name, (placeholder, _) in constants.items()}
    maps = tuple(_map(bpf, name, marks, directory) for name in map_names(directory))
    fds = {lib.bpf_table_fd(bpf.module, each.name.encode()): each.name for each in maps}
    return Object(
        layout=layout_version(directory),
        constants={name: otherwise for name, (_, otherwise) in constants.items()},
        sizes=defaults,
        maps=maps,
        programs=tuple(
            _program(name, bpf.dump_func(name.encode()), fds, places)
            for name in entry_points(directory)
        ),
        reasons=reasons(directory),
    )


def _map(bpf: BPF, name: str, marks: dict[str, int], directory: Path) -> MapSpec:
    module, raw = bpf.module, name.encode()
    number = lib.bpf_table_id(module, raw)
    return MapSpec(
        name=name,
        kind=lib.bpf_table_type_id(module, number),
        key_size=lib.bpf_table_key_size(module, raw),
        value_size=lib.bpf_table_leaf_size(module, raw),
        entries=_entries(lib.bpf_table_max_entries_id(module, number), marks),
        flags=lib.bpf_table_flags_id(module, number),
        pinned=name in pinned_maps(directory),
        key=lib.bpf_table_key_desc(module, raw).decode(),
        value=lib.bpf_table_leaf_desc(module, raw).decode(),
        inner=pinned_maps(directory).get(name, ""),
    )


def _entries(number: int, marks: dict[str, int]) -> Entries:
    for size, mark in marks.items():
        if number % mark == 0:
            return Entries(number // mark, size)
        if number % (mark // 2) == 0:
            return Entries(number // (mark // 2), size, per=2)
    return Entries(number)


def _program(name: str, code: bytes, fds: dict[int, str], places: dict[int, str]) -> ProgramSpec:
    found = list(loads(code))
    return ProgramSpec(
        name=name,
        code=code,
        maps=tuple((at, fds[value]) for at, source, value in found if source == MAP_FD),
        constants=tuple(
            (at, places[value]) for at, source, value in found if not source and value in places
        ),
    )


def main() -> None:
    """Writes the object to the file that is named, of the programs in the directory that is.

    An agent's preference among processes is not its compiler's.
    """
    os.setpriority(os.PRIO_PROCESS, 0, max(0, os.getpriority(os.PRIO_PROCESS, 0)))
    file, directory = (*map(Path, sys.argv[1:]), None, None)[:2]
    directory = directory or source_dir()
    write(file or shipped(directory), seal(compiled(directory)))


if __name__ == "__main__":
    main()
