# SPDX-License-Identifier: Apache-2.0
"""Reading whole maps in batches: live flows, and how full the maps are."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpfmesh.datapath.errors import MapError
from ebpfmesh.datapath.library import lib
from ebpfmesh.datapath.loader import Module

_BATCH = 8192

# Established flows, and those that are half-open, unanswered or closed: bpf/flow_table.h.
FLOW_MAPS = ("flows", "transient_flows")
# Maps whose filling an operator wants to know.
COUNTED_MAPS = (
    *("frontends", "nodes", "addresses", "addresses6", "local_backends", "surrogates"),
    *("flows", "replies", "entries"),
    *("transient_flows", "transient_replies", "transient_entries"),
)
# The flags of a flow that bpf/types.h names.
FLOW_FIN_CLIENT, FLOW_FIN_SERVER, FLOW_RST, FLOW_ANSWERED, FLOW_DIRECT = 1, 2, 4, 8, 16
FLOW_VIA_KERNEL, FLOW_ESTABLISHED = 1 << 6, 1 << 7
_FLOW_ENDS = FLOW_FIN_CLIENT | FLOW_FIN_SERVER | FLOW_RST
_ENTRY_MAPS = ("entries", "transient_entries")
_TCP = 6


def entries(module: Module, name: str) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Keys and values of a hash map, in batches, as arrays with the C structs' fields.

    What is added or removed meanwhile may be missing or double. Raises `MapError`.
    """
    table = module.table(name)
    keys, values = (table.Key * _BATCH)(), (table.Leaf * _BATCH)()
    cursor = ctypes.c_uint32()  # the kernel's bucket index
    count, first = ctypes.c_uint32(_BATCH), True
    while True:
        count.value = _BATCH
        start = None if first else ctypes.byref(cursor)
        failed = lib.bpf_lookup_batch(
            table.map_fd, start, ctypes.byref(cursor), keys, values, ctypes.byref(count)
        )
        cause = ctypes.get_errno() if failed else 0
        if cause and cause != errno.ENOENT:
            raise MapError(f"map {name} was not read: {errno.errorcode.get(cause, cause)}")
        if count.value:
            yield (
                np.frombuffer(keys, dtype=table.Key)[: count.value],
                np.frombuffer(values, dtype=table.Leaf)[: count.value],
            )
        if cause or not count.value:
            return
        first = False


def flows(module: Module) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Keys and values of every flow, as `entries` gives them."""
    for name in FLOW_MAPS:
        yield from entries(module, name)


def size(module: Module, name: str) -> int:
    """How many entries a hash map holds."""
    return sum(len(keys) for keys, _ in entries(module, name))


def flows_by_backend(module: Module, max_backends: int) -> NDArray[np.int64]:
    """How many balanced flows each backend id has."""
    counts = np.zeros(max_backends, dtype=np.int64)
    for _, values in flows(module):
        balanced = values[(values["flags"] & FLOW_DIRECT) == 0]
        counts += np.bincount(balanced["backend"], minlength=max_backends)[:max_backends]
    return counts


@dataclass(frozen=True)
class Patience:
    """After how many seconds without a packet a flow is no load any more.

    `established` is of TCP connections in which both sides have spoken, `opening` of the others.
    """

    established: float
    opening: float
    datagrams: float


def live_by_backend(
    module: Module, max_backends: int, patience: Patience, now_ns: int
) -> NDArray[np.int64]:
    """How many live connections each backend id has through this node, as bpf/live.h counts them.

    Flows to VIPs, and what came in here for published ports; what another node has sent here for a
    task is that one's. `now_ns` is of the clock of `time.monotonic_ns`.
    """
    counts = np.zeros(max_backends, dtype=np.int64)
    for name in (*FLOW_MAPS, *_ENTRY_MAPS):
        for keys, values in entries(module, name):
            flags = values["flags"]
            live = (flags & (_FLOW_ENDS | FLOW_DIRECT)) == 0
            if name in FLOW_MAPS:
                live &= keys["vni"] != 0
            held = np.where(flags & FLOW_ESTABLISHED, patience.established, patience.opening)
            held = np.where(keys["protocol"] == _TCP, held, patience.datagrams)
            live &= now_ns - values["seen_ns"].astype(np.int64) <= held * 1e9
            counts += np.bincount(values["backend"][live], minlength=max_backends)[:max_backends]
    return counts
