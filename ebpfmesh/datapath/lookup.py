# SPDX-License-Identifier: Apache-2.0
"""Single entries of the maps, as the programs would find them for one packet.

Looking from outside does not make an entry of an LRU map younger.
"""

from __future__ import annotations

import ctypes
import os
import socket
from ipaddress import IPv4Address
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpfmesh.datapath.errors import MapError
from ebpfmesh.datapath.library import lib
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.maps import STATE_OF, address_to_int, int_to_address
from ebpfmesh.model import BackendState, FrontendKind, Protocol, Scheduler

_SCHEDULER, _AFFINITY, _RESTRICTED = 3, 1 << 2, 1 << 3
_ALLOW_ADDRESS = 32 + 32  # bits of a pool and of an IPv4 address


class FrontendEntry(NamedTuple):
    """Of `frontends`."""

    id: int
    pool: int
    target_port: int
    kind: FrontendKind
    scheduler: Scheduler
    affinity: bool
    restricted: bool


class BackendEntry(NamedTuple):
    """Of `backends`; `gateway` is empty for a task that docker_gwbridge does not lead to."""

    id: int
    task: str
    address: str
    vni: int
    vtep: str
    state: BackendState | None
    gateway: str


class FlowEntry(NamedTuple):
    """Of the flows, or of what an entry node remembers; `address` is the backend's."""

    backend: int
    address: str
    flags: int
    seen_ns: int


class FlowTuple(NamedTuple):
    """A flow as its client sends it; `vni` is 0 for a published port."""

    client: str
    client_port: int
    address: str
    port: int
    protocol: Protocol
    vni: int


class Lookup:
    """Reads the maps of one `Module`. Blocks on system calls."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self.slots = ctypes.sizeof(module.table("maglev_template").Leaf) // 4

    def port_frontend(self, port: int, protocol: Protocol) -> FrontendEntry | None:
        """What a published port leads to."""
        key = self._module.table("frontends").Key(port=socket.htons(port), protocol=int(protocol))
        return self._frontend(key)

    def frontend(self, address: str, vni: int) -> FrontendEntry | None:
        """What an address on an overlay leads to: a VIP, or a backend's own."""
        key = self._module.table("frontends").Key(address=address_to_int(address), vni=vni)
        return self._frontend(key)

    def networks_of(self, address: str) -> list[int]:
        """The overlays (VNI) where an address is a frontend."""
        wanted = address_to_int(address)
        keys = self._module.table("frontends")
        return sorted(key.vni for key in keys if key.vni and key.address == wanted)

    def _frontend(self, key: Any) -> FrontendEntry | None:
        leaf = self._module.table("frontends").get(key)
        if leaf is None:
            return None
        return FrontendEntry(
            id=leaf.id,
            pool=leaf.pool,
            target_port=socket.ntohs(leaf.target_port),
            kind=FrontendKind(leaf.kind),
            scheduler=Scheduler(leaf.flags & _SCHEDULER),
            affinity=bool(leaf.flags & _AFFINITY),
            restricted=bool(leaf.flags & _RESTRICTED),
        )

    def service_of(self, pool: int) -> str:
        """The id of the service that a pool is of."""
        name: bytes = self._module.table("pools")[ctypes.c_uint32(pool)].service
        return name.decode()

    def in_turn(self, pool: int) -> int:
        """How many backends a scheduler that counts takes turns with."""
        ready = int(self._module.table("pools")[ctypes.c_uint32(pool)].ready)
        return min(ready, self.slots)

    def table(self, pool: int) -> NDArray[np.uint32] | None:
        """The pool's table: backend ids; None if it has none. Raises `MapError`."""
        outer, inner = ctypes.c_uint32(pool), ctypes.c_uint32()
        fd = self._module.table("maglev").map_fd
        if lib.bpf_lookup_elem(fd, ctypes.byref(outer), ctypes.byref(inner)):
            return None
        fd = lib.bpf_map_get_fd_by_id(inner)
        if fd < 0:
            return None  # it was swapped for another just now
        value = (ctypes.c_uint32 * self.slots)()
        try:
            if lib.bpf_lookup_elem(fd, ctypes.byref(ctypes.c_uint32(0)), value):
                raise MapError(f"a Maglev table was not read: {os.strerror(ctypes.get_errno())}")
        finally:
            os.close(fd)
        return np.frombuffer(bytes(value), dtype=np.uint32)

    def backend(self, backend_id: int) -> BackendEntry:
        """A backend; its state is None if there is none with that id."""
        leaf = self._module.table("backends")[ctypes.c_uint32(backend_id)]
        return BackendEntry(
            id=backend_id,
            task=leaf.task.decode(),
            address=int_to_address(leaf.address),
            vni=leaf.vni,
            vtep=int_to_address(leaf.vtep) if leaf.vtep else "",
            state=STATE_OF.get(leaf.state),
            gateway=int_to_address(leaf.gateway_address) if leaf.gateway_ifindex else "",
        )

    def entry(self, flow: FlowTuple) -> FlowEntry | None:
        """What this node, as the entry node, remembers of a flow."""
        for name in ("entries", "transient_entries"):
            leaf = self._module.table(name).get(self._flow_key(name, flow))
            if leaf is not None:
                address = int_to_address(leaf.address)
                return FlowEntry(leaf.backend, address, leaf.flags, leaf.seen_ns)
        return None

    def flow(self, flow: FlowTuple) -> FlowEntry | None:
        """What this node translates a flow to."""
        for name in ("flows", "transient_flows"):
            leaf = self._module.table(name).get(self._flow_key(name, flow))
            if leaf is not None:
                address = int_to_address(leaf.to.daddr)
                return FlowEntry(leaf.backend, address, leaf.flags, leaf.seen_ns)
        return None

    def _flow_key(self, name: str, flow: FlowTuple) -> Any:
        key = self._module.table(name).Key(vni=flow.vni, protocol=int(flow.protocol))
        key.t.saddr, key.t.sport = address_to_int(flow.client), socket.htons(flow.client_port)
        key.t.daddr, key.t.dport = address_to_int(flow.address), socket.htons(flow.port)
        return key

    def is_listed(self, pool: int, client: str) -> bool:
        """Whether a client may ask a pool's restricted frontends."""
        key = self._module.table("allowed").Key(prefix=_ALLOW_ADDRESS, pool=pool)
        raw = IPv4Address(client).packed
        ctypes.memmove(key.address, raw, len(raw))
        return self._module.table("allowed").get(key) is not None

    def is_own(self, address: str) -> bool:
        """Whether published ports answer on that address here."""
        return ctypes.c_uint32(address_to_int(address)) in self._module.table("addresses")

    def is_node(self, address: str) -> bool:
        """Whether that is the VTEP of a node, this one included."""
        return ctypes.c_uint32(address_to_int(address)) in self._module.table("nodes")
