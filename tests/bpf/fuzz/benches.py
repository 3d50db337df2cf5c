# SPDX-License-Identifier: Apache-2.0
"""The nodes that packets are thrown at: of both return modes, and one that has little
room and knows whose veth is whose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.object import Object

from ..net import NODE_A
from ..sandbox import ifindex
from ..world import TABLE_SIZE, be32
from .campaign import Bench

KINDS: dict[str, dict[str, int]] = {
    "tunnel": {"MAX_FLOWS": 8192},
    "dsr": {"MAX_FLOWS": 8192, "RETURN_DSR": 1},
    "guarded": {"MAX_FLOWS": 256},
}


@contextmanager
def benches(pins: Path, programs: Object) -> Iterator[list[Bench]]:
    """In a sandbox whose bpffs is at `pins`."""
    modules = {}
    try:
        for name, defines in KINDS.items():
            constants = {
                "NODE_VTEP": be32(NODE_A),
                "NIC_IFINDEX": ifindex("nic0"),
                "MAGLEV_SIZE": TABLE_SIZE,
                **defines,
            }
            modules[name] = Module(programs, constants, pins / f"fuzz-{name}")
        yield [Bench(name, module, guarded=name == "guarded") for name, module in modules.items()]
    finally:
        for module in modules.values():
            module.close()
