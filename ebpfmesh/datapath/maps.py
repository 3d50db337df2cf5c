# SPDX-License-Identifier: Apache-2.0
"""The maps, with the model's values on one side and C structs on the other.

Keys and values are the ctypes that bcc made of bpf/types.h: no layout is written here. Byte
order is: addresses and ports in the network's, everything else in the host's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from threading import Lock
from typing import Any

import numpy as np

from ebpfmesh.datapath.errors import MapError
from ebpfmesh.datapath.library import lib
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.tables import Tables
from ebpfmesh.model import (
    Backend,
    BackendKey,
    BackendState,
    Endpoint,
    EndpointKey,
    Frontend,
    FrontendKey,
    FrontendKind,
    Gateway,
    Membership,
    PoolKey,
    Protocol,
    Scheduler,
)
from ebpfmesh.takeover import Mode, RunSettings

# As bpf/types.h has them, of struct allow_key.
_ALLOW_PREFIX, _ALLOW_IPV6 = 32, 1 << 31

# Of a frontend, as bpf/types.h has them: enum frontend_flags.
_SCHEDULER, _AFFINITY, _RESTRICTED = 3, 1 << 2, 1 << 3
_PORT_BITS = 7  # of a protocol: PORT_BIT() there


def address_to_int(address: str) -> int:
    """A dotted address as the integer whose memory is in network byte order."""
    return int.from_bytes(socket.inet_aton(address), "little")


def int_to_address(value: int) -> str:
    """The reverse of `address_to_int`."""
    return socket.inet_ntoa(value.to_bytes(4, "little"))


def ip6_text(raw: Any) -> str:
    """A struct ip6 as text."""
    return socket.inet_ntop(socket.AF_INET6, bytes(raw))


def is_ip6(address: str) -> bool:
    """Whether an address, as text, is one of IPv6."""
    return ":" in address


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _mac_text(raw: Iterable[int]) -> str:
    return ":".join(f"{byte:02x}" for byte in raw)


@dataclass(frozen=True)
class StoredFrontend:
    """A frontend as it lies in the map: with the ids that it was given."""

    frontend: Frontend
    id: int
    pool: int


class Maps:
    """Typed access to every map of one `Module`."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._tables = Tables(module)
        self.maglev_size = self._tables.slots
        self._avoiding = Lock()  # of a value that is read, changed and written

    # -- frontends ------------------------------------------------------------------------

    def put_frontend(self, frontend: Frontend, frontend_id: int, pool_id: int) -> None:
        """Adds or replaces a frontend."""
        table = self._module.table("frontends")
        leaf = table.Leaf()
        leaf.id, leaf.pool, leaf.kind = frontend_id, pool_id, int(frontend.kind)
        leaf.target_port = socket.htons(frontend.target_port)
        leaf.flags = _flags(frontend)
        if frontend.restricted:
            self._set_open(frontend.key, is_open=False)
        self._update("frontends", self._frontend_key(frontend.key), leaf)
        self.open_port(frontend)

    def open_port(self, frontend: Frontend) -> None:
        """Says that anyone may ask a frontend, if that is a published port without a list.

        It is said of what is in the map, and taken back before that changes: in between, programs
        look for the frontend itself.
        """
        if frontend.kind is FrontendKind.PORT and not frontend.restricted:
            self._set_open(frontend.key, is_open=True)

    def clear_frontend_counters(self, frontend_id: int) -> None:
        """Lets an id that is given anew start from zero."""
        for name in ("frontend_counters", "entry_counters"):
            self._clear_counter(name, frontend_id)

    def delete_frontend(self, key: FrontendKey) -> None:
        """Removes a frontend; an absent one is a success."""
        self._set_open(key, is_open=False)
        self._delete("frontends", self._frontend_key(key))

    def frontends(self, pools: Mapping[int, PoolKey]) -> list[StoredFrontend]:
        """All frontends; `pools` names the pools by id, as `pools()` returns them."""
        return [
            StoredFrontend(
                frontend=Frontend(
                    key=FrontendKey(
                        vni=key.vni,
                        address=int_to_address(key.address),
                        port=socket.ntohs(key.port),
                        protocol=Protocol(key.protocol),
                    ),
                    kind=FrontendKind(leaf.kind),
                    pool=pools.get(leaf.pool),
                    target_port=socket.ntohs(leaf.target_port),
                    scheduler=Scheduler(leaf.flags & _SCHEDULER),
                    affinity=bool(leaf.flags & _AFFINITY),
                    restricted=bool(leaf.flags & _RESTRICTED),
                ),
                id=leaf.id,
                pool=leaf.pool,
            )
            for key, leaf in self._module.table("frontends").items()
        ]

    def _frontend_key(self, key: FrontendKey) -> Any:
        raw = self._module.table("frontends").Key()
        raw.address, raw.vni = address_to_int(key.address), key.vni
        raw.port, raw.protocol = socket.htons(key.port), int(key.protocol)
        return raw

    def _set_open(self, key: FrontendKey, *, is_open: bool) -> None:
        if key.vni or not key.port:
            return
        port, bit = ctypes.c_uint32(key.port), 1 << (int(key.protocol) & _PORT_BITS)
        others = self._module.table("open_ports")[port].value & ~bit
        self._update("open_ports", port, ctypes.c_uint8(others | bit * is_open))

    # -- allowed clients ------------------------------------------------------------------

    def allow(self, pool_id: int, network: str) -> None:
        """Lets the clients of a network (``192.0.2.0/24``) ask the pool's restricted frontends."""
        self._update("allowed", self._allow_key(pool_id, network), ctypes.c_uint32(1))

    def disallow(self, pool_id: int, network: str) -> None:
        """The reverse of `allow`; an absent network is a success."""
        self._delete("allowed", self._allow_key(pool_id, network))

    def allowed(self) -> dict[int, frozenset[str]]:
        """Pool id -> the networks that are allowed; without those of whom nobody is."""
        found: dict[int, set[str]] = defaultdict(set)
        for key in self._module.table("allowed"):
            raw, length = bytes(key.address), key.prefix - _ALLOW_PREFIX
            if key.pool & _ALLOW_IPV6:
                network = str(IPv6Network((raw, length)))
            else:
                network = str(IPv4Network((raw[:4], length)))
            found[key.pool & ~_ALLOW_IPV6].add(network)
        return {pool: frozenset(networks) for pool, networks in found.items()}

    def _allow_key(self, pool_id: int, network: str) -> Any:
        parsed = ip_network(network)
        key = self._module.table("allowed").Key()
        key.prefix = _ALLOW_PREFIX + parsed.prefixlen
        key.pool = pool_id | (_ALLOW_IPV6 if parsed.version == 6 else 0)  # noqa: PLR2004
        raw = parsed.network_address.packed
        ctypes.memmove(key.address, raw, len(raw))
        return key

    # -- pools and their tables -----------------------------------------------------------

    def put_pool(self, pool_id: int, key: PoolKey, ready: int) -> None:
        """Names a pool and says how many of its backends are ready."""
        leaf = self._module.table("pools").Leaf()
        leaf.vni, leaf.ready, leaf.service = key.vni, ready, key.service_id.encode()
        self._update("pools", ctypes.c_uint32(pool_id), leaf)

    def delete_pool(self, pool_id: int) -> None:
        """Forgets a pool and its table."""
        self._update("pools", ctypes.c_uint32(pool_id), self._module.table("pools").Leaf())
        self._tables.put({pool_id: b""})

    def pools(self) -> dict[int, tuple[PoolKey, int]]:
        """Pool id -> its key, and how many backends are ready."""
        return {
            key.value: (PoolKey(leaf.service.decode(), leaf.vni), leaf.ready)
            for key, leaf in self._read_array("pools")
            if leaf.service
        }

    def put_tables(self, tables: Mapping[int, bytes]) -> None:
        """Brings in new tables, by pool id: see `Tables.put`."""
        self._tables.put(tables)

    # -- backends -------------------------------------------------------------------------

    def put_backend(self, backend: Backend, backend_id: int, pool_id: int) -> None:
        """Adds or replaces a backend; one of this node also by its address."""
        leaf = self._module.table("backends").Leaf()
        leaf.address, leaf.vni = address_to_int(backend.address), backend.key.vni
        leaf.vtep = address_to_int(backend.vtep or "0.0.0.0")  # noqa: S104
        leaf.pool, leaf.state = pool_id, _state(backend)
        leaf.mac[:] = _mac_bytes(backend.mac)
        leaf.task = backend.key.task_id.encode()
        if backend.gateway:
            leaf.gateway_address = address_to_int(backend.gateway.address)
            leaf.gateway_ifindex = backend.gateway.ifindex
            leaf.gateway_mac[:] = _mac_bytes(backend.gateway.mac)
        self._update("backends", ctypes.c_uint32(backend_id), leaf)
        if backend.gateway:
            self._update(
                "local_backends", ctypes.c_uint32(leaf.address), ctypes.c_uint32(backend_id)
            )

    def clear_backend_counters(self, backend_id: int) -> None:
        """Lets an id that is given anew start from zero."""
        self._clear_counter("backend_counters", backend_id)
        self.put_live(backend_id, 0)
        self._update("health", ctypes.c_uint32(backend_id), self._module.table("health").Leaf())
        self.avoid(backend_id, 0)  # what the one before has done is not the new one's

    def avoid(self, backend_id: int, until_s: int) -> None:
        """Gives a backend no new flows until then, in seconds of CLOCK_MONOTONIC.

        The value is that of all backends: what programs write meanwhile may be lost, and is
        written again when another connection goes unanswered. Threads take turns.
        """
        table = self._module.table("avoided")
        with self._avoiding:
            leaf = table[ctypes.c_uint32(0)]
            slot = backend_id % len(leaf.until_s)
            if leaf.until_s[slot] != until_s:
                leaf.until_s[slot] = until_s
                self._update("avoided", ctypes.c_uint32(0), leaf)

    def avoided(self, now_s: float) -> frozenset[int]:
        """Ids of the backends that get no new flows on this node for a while.

        `now_s` is seconds of CLOCK_MONOTONIC.
        """
        until = np.frombuffer(self._module.table("avoided")[ctypes.c_uint32(0)], dtype=np.uint32)
        return frozenset(np.flatnonzero(until > now_s).tolist())

    def put_live(self, backend_id: int, connections: int) -> None:
        """Says how many connections a backend has through this node; the programs count on."""
        self._update("live", ctypes.c_uint32(backend_id), ctypes.c_int64(connections))

    def set_backend_state(self, backend_id: int, state: BackendState) -> None:
        """Changes nothing but the state."""
        leaf = self._module.table("backends")[ctypes.c_uint32(backend_id)]
        leaf.state = _STATES[state]
        self._update("backends", ctypes.c_uint32(backend_id), leaf)

    def lose_backend(self, backend_id: int) -> None:
        """Says that the backend's node is not there any more to be asked."""
        leaf = self._module.table("backends")[ctypes.c_uint32(backend_id)]
        leaf.vtep = 0
        self._update("backends", ctypes.c_uint32(backend_id), leaf)

    def free_backend(self, backend_id: int) -> None:
        """Empties a backend's slot."""
        key = ctypes.c_uint32(backend_id)
        leaf = self._module.table("backends")[key]
        local = self._module.table("local_backends")
        address = ctypes.c_uint32(leaf.address)
        if address in local and local[address].value == backend_id:
            self._delete("local_backends", address)
        self._update("backends", key, self._module.table("backends").Leaf())

    def backends(self, pools: Mapping[int, PoolKey]) -> dict[int, Backend]:
        """Backend id -> backend, for every slot in use."""
        return {
            key.value: _backend(leaf, pools.get(leaf.pool))
            for key, leaf in self._read_array("backends")
            if leaf.state
        }

    # -- sets -----------------------------------------------------------------------------

    def put_node(self, vtep: str) -> None:
        """Makes a node known."""
        self._update("nodes", ctypes.c_uint32(address_to_int(vtep)), ctypes.c_uint32(1))

    def delete_node(self, vtep: str) -> None:
        """Forgets a node: what it wraps is dropped from now on."""
        self._delete("nodes", ctypes.c_uint32(address_to_int(vtep)))

    def nodes(self) -> frozenset[str]:
        """VTEPs of the known nodes."""
        return frozenset(int_to_address(key.value) for key in self._module.table("nodes"))

    def put_address(self, address: str) -> None:
        """Makes published ports answer on an address of this node, IPv4 or IPv6."""
        self._update(*self._address_key(address), ctypes.c_uint32(1))

    def delete_address(self, address: str) -> None:
        """The reverse of `put_address`."""
        self._delete(*self._address_key(address))

    def addresses(self) -> frozenset[str]:
        """The addresses on which published ports answer."""
        ip4 = {int_to_address(key.value) for key in self._module.table("addresses")}
        ip6 = {ip6_text(key) for key in self._module.table("addresses6")}
        return frozenset(ip4 | ip6)

    def _address_key(self, address: str) -> tuple[str, Any]:
        """The map that an address of this node is in, and its key there."""
        if not is_ip6(address):
            return "addresses", ctypes.c_uint32(address_to_int(address))
        raw = socket.inet_pton(socket.AF_INET6, address)
        return "addresses6", self._module.table("addresses6").Key.from_buffer_copy(raw)

    # -- who is behind a veth -------------------------------------------------------------

    def put_endpoint(self, key: EndpointKey, endpoint: Endpoint) -> None:
        """Holds the container behind a veth to its address and MAC."""
        leaf = self._module.table("endpoints").Leaf(address=address_to_int(endpoint.address))
        leaf.mac[:] = _mac_bytes(endpoint.mac)
        self._update("endpoints", self._endpoint_key(key), leaf)

    def delete_endpoint(self, key: EndpointKey) -> None:
        """The reverse of `put_endpoint`."""
        self._delete("endpoints", self._endpoint_key(key))

    def endpoints(self) -> dict[EndpointKey, Endpoint]:
        """Who is held to what."""
        return {
            EndpointKey(key.vni, key.ifindex): Endpoint(
                int_to_address(leaf.address), _mac_text(leaf.mac)
            )
            for key, leaf in self._module.table("endpoints").items()
        }

    def clear_endpoints(self) -> None:
        """Holds nobody to anything."""
        for key in self.endpoints():
            self.delete_endpoint(key)

    def _endpoint_key(self, key: EndpointKey) -> Any:
        return self._module.table("endpoints").Key(key.vni, key.ifindex)

    # -- whose sockets are led to backends ------------------------------------------------

    def put_namespace(self, cookie: int, networks: Sequence[Membership]) -> None:
        """Leads sockets of a network namespace to the backends of these networks' VIPs.

        Of more networks than the map has room for, the rest is left to the programs at links.
        """
        leaf = self._module.table("namespaces").Leaf()
        for i, one in enumerate(networks[: len(leaf.vni)]):
            leaf.vni[i], leaf.address[i] = one.vni, address_to_int(one.address)
        self._update("namespaces", ctypes.c_uint64(cookie), leaf)

    def delete_namespace(self, cookie: int) -> None:
        """The reverse of `put_namespace`."""
        self._delete("namespaces", ctypes.c_uint64(cookie))

    def namespaces(self) -> dict[int, tuple[Membership, ...]]:
        """The networks of each namespace whose sockets are led, by its cookie."""
        return {
            key.value: tuple(
                Membership(vni, int_to_address(address))
                for vni, address in zip(leaf.vni, leaf.address, strict=True)
                if vni
            )
            for key, leaf in self._module.table("namespaces").items()
        }

    # -- settings of running programs -----------------------------------------------------

    def run_settings(self) -> RunSettings:
        """What the programs are told."""
        leaf = self._module.table("settings")[ctypes.c_uint32(0)]
        return RunSettings(Mode(leaf.mode), leaf.since_ns, leaf.takeover_until_ns)

    def put_run_settings(self, settings: RunSettings) -> None:
        """Tells the programs something else, from their next packet on."""
        leaf = self._module.table("settings").Leaf()
        leaf.mode, leaf.since_ns = int(settings.mode), settings.since_ns
        leaf.takeover_until_ns = settings.takeover_until_ns
        self._update("settings", ctypes.c_uint32(0), leaf)

    # -- the system calls -----------------------------------------------------------------

    def _read_array(self, name: str) -> Iterable[tuple[Any, Any]]:
        """Index and value of every slot but 0, which is never given."""
        table = self._module.table(name)
        for index, leaf in table.items():
            if index.value:
                yield index, leaf

    def _update(self, name: str, key: Any, leaf: Any) -> None:
        fd = self._module.table(name).map_fd
        if lib.bpf_update_elem(fd, ctypes.byref(key), ctypes.byref(leaf), 0):
            raise MapError(f"map {name} was not written: {_last_error()}")

    def _delete(self, name: str, key: Any) -> None:
        fd = self._module.table(name).map_fd
        failed = lib.bpf_delete_elem(fd, ctypes.byref(key))
        if failed and ctypes.get_errno() != errno.ENOENT:
            raise MapError(f"an entry of map {name} was not removed: {_last_error()}")

    def _clear_counter(self, name: str, index: int) -> None:
        self._update(name, ctypes.c_uint32(index), self._module.table(name).Leaf())


def _flags(frontend: Frontend) -> int:
    affinity = _AFFINITY if frontend.affinity else 0
    restricted = _RESTRICTED if frontend.restricted else 0
    return int(frontend.scheduler) | affinity | restricted


# enum backend_state. The programs need to know who gets new flows and who is gone, no more: a task
# that is starting has no flows, and gets none, like one that drains.
_STATES = {
    BackendState.READY: 1,
    BackendState.STARTING: 2,
    BackendState.DRAINING: 2,
    BackendState.GONE: 3,
    BackendState.STOPPING: 4,
}
STATE_OF = {
    1: BackendState.READY,
    2: BackendState.DRAINING,
    3: BackendState.GONE,
    4: BackendState.STOPPING,
}


def _state(backend: Backend) -> int:
    return _STATES[BackendState.READY if backend.spare else backend.state]


def _backend(leaf: Any, pool: PoolKey | None) -> Backend:
    gateway = None
    if leaf.gateway_ifindex:
        gateway = Gateway(
            address=int_to_address(leaf.gateway_address),
            mac=_mac_text(leaf.gateway_mac),
            ifindex=leaf.gateway_ifindex,
        )
    return Backend(
        key=BackendKey(leaf.task.decode(), leaf.vni),
        pool=pool or PoolKey("", leaf.vni),
        address=int_to_address(leaf.address),
        mac=_mac_text(leaf.mac),
        vtep=int_to_address(leaf.vtep) if leaf.vtep else "",
        state=STATE_OF[leaf.state],
        gateway=gateway,
    )


def _last_error() -> str:
    return os.strerror(ctypes.get_errno())
