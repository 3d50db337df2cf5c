# SPDX-License-Identifier: Apache-2.0
"""The ring into which the programs write what they decide, while someone listens (bpf/trace.h)."""

from __future__ import annotations

import ctypes
import socket
import time
from typing import Any, NamedTuple

from ebpfmesh.datapath.errors import MapError
from ebpfmesh.datapath.library import lib
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.maps import int_to_address, ip6_text

_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_GO_ON, _STOP = 0, -1
_ALL = 1 << 31
# The first byte of an address that stands for an IPv6 client: SURROGATE_NET in bpf/config.h.
_SURROGATES = range(240, 248)


class Event(NamedTuple):
    """As a program wrote it. `what` is the number of a reason, 0 for a flow that begins.

    `head` has the first bytes of the frame where the packet had not been read; else addresses and
    ports are there. `path` is that of enum event_path. Numbers of things that do not apply are 0.
    """

    time_ns: int
    what: int
    path: int
    program: str
    protocol: int
    tcp_flags: int
    source: str
    source_port: int
    destination: str
    destination_port: int
    length: int
    vni: int
    backend: int
    entry: str
    head: bytes


class Ring:
    """Reads the events of one `Module`. There is to be one of them at a time."""

    def __init__(self, module: Module) -> None:
        """Raises `MapError`."""
        self._module = module
        self._programs = module.names
        self._kind = module.table("event_template").Leaf
        self._found: list[bytes] = []
        self._most = 0
        self._callback = _CALLBACK(self._take)  # kept alive: the library calls it
        self._ring = lib.bpf_new_ringbuf(module.table("events").map_fd, self._callback, None)
        if not self._ring:
            raise MapError("the ring of events was not opened")
        self.want(0, 0)
        self.read(_ALL)  # what an earlier reader has left
        self._lost = self._count_lost()

    def want(self, wanted: int, seconds: float) -> None:
        """Says what to hear of (a bit per reason), for so long."""
        table = self._module.table("tracing")
        until_ns = time.monotonic_ns() + int(seconds * 10**9) if wanted else 0
        table[0] = table.Leaf(wanted, until_ns)

    def read(self, most: int) -> list[Event]:
        """What is there, but not more than `most`."""
        self._found, self._most = [], most
        lib.bpf_consume_ringbuf(self._ring)
        return [self._event(self._kind.from_buffer_copy(raw)) for raw in self._found]

    def lost(self) -> int:
        """How many events found no room since the last call."""
        before, self._lost = self._lost, self._count_lost()
        return self._lost - before

    def close(self) -> None:
        """Wants nothing any more."""
        self.want(0, 0)
        lib.bpf_free_ringbuf(self._ring)

    def _take(self, _context: Any, data: Any, size: int) -> int:
        self._found.append(ctypes.string_at(data, size))
        return _GO_ON if len(self._found) < self._most else _STOP

    def _count_lost(self) -> int:
        return sum(self._module.table("lost_events")[0])

    def _event(self, raw: Any) -> Event:
        return Event(
            time_ns=raw.time_ns,
            what=raw.what,
            path=raw.path,
            program=self._programs[raw.program],
            protocol=raw.protocol,
            tcp_flags=raw.tcp_flags,
            source=self._who(raw.t.saddr),
            source_port=socket.ntohs(raw.t.sport),
            destination=self._who(raw.t.daddr),
            destination_port=socket.ntohs(raw.t.dport),
            length=raw.length,
            vni=raw.vni,
            backend=raw.backend,
            entry=int_to_address(raw.entry) if raw.entry else "",
            head=bytes(raw.head[: raw.head_length]),
        )

    def _who(self, address: int) -> str:
        """An IPv6 client by its own address; empty for none."""
        if not address:
            return ""
        if address & 0xFF in _SURROGATES:
            found = self._module.table("surrogates").get(ctypes.c_uint32(address))
            if found is not None:
                return ip6_text(found.client)
        return int_to_address(address)
