# SPDX-License-Identifier: Apache-2.0
"""What an agent writes into the maps, and what the programs leave there."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ebpfmesh.datapath.library import lib
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.maps import Maps
from ebpfmesh.datapath.source import reasons as reason_names
from ebpfmesh.datapath.source import source_dir
from ebpfmesh.takeover import Mode

from .net import NODE_A, NODE_B, docker_mac
from .prog_run import array_of_one

TABLE_SIZE = 1021
READY, DRAINING, GONE, STOPPING = 1, 2, 3, 4
MAGLEV, RANDOM, RR, LEAST_CONN, AFFINITY, RESTRICTED = 0, 1, 2, 3, 4, 8  # flags of a frontend
_VIP, _PORT, _DIRECT = 1, 2, 3
_COUNTED = 64  # ids that a test may use
_NEWCOMERS = 64
_HASHES = (
    "frontends",
    "nodes",
    "addresses",
    "addresses6",
    "surrogates",
    "local_backends",
    "endpoints",
    "namespaces",
    "sock_choices",
    "fragments",
    "flows",
    "replies",
    "entries",
    "transient_flows",
    "transient_replies",
    "transient_entries",
)
_COUNTERS = ("frontend_counters", "backend_counters", "entry_counters")

SECOND = 10**9
_SPREAD = 0x9E3779B97F4A7C15


class FlowKey(NamedTuple):
    src: str
    sport: int
    dst: str
    dport: int
    protocol: int
    vni: int


class Counter(NamedTuple):
    """Packets and bytes to the backend and to the client, and new flows."""

    to_backend: tuple[int, int] = (0, 0)
    to_client: tuple[int, int] = (0, 0)
    connections: int = 0


class Task(NamedTuple):
    """A backend to be: where it is, and if that is this node, its docker_gwbridge endpoint."""

    address: str
    vtep: str = NODE_A
    gateway: str = ""
    ifindex: int = 0


def remote(address: str, vtep: str = NODE_B) -> Task:
    return Task(address, vtep)


def be32(address: str) -> int:
    return int(struct.unpack("=I", socket.inet_aton(address))[0])


def ip6(kind: Any, address: str) -> Any:
    """An IPv6 address as a struct ip6, whose ctype is `kind`."""
    return kind.from_buffer_copy(socket.inet_pton(socket.AF_INET6, address))


def dotted(value: int) -> str:
    return socket.inet_ntoa(struct.pack("=I", value))


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


class Service:
    """A frontend and its pool."""

    def __init__(self, world: World, frontend: int, vni: int) -> None:
        self._world = world
        self.frontend = frontend
        self.pool = frontend
        self._vni = vni
        self.ids: dict[str, int] = {}

    def backends(self, *tasks: Task | str) -> Service:
        """Adds these, ready, and makes a table of all."""
        for task in tasks:
            known = task if isinstance(task, Task) else Task(task)
            self.ids[known.address] = self._world.add_backend(known, self.pool, self._vni)
        return self.choose(*self.ids)

    def choose(self, *addresses: str) -> Service:
        """A new table: only these backends get new flows."""
        self._world.swap_table(self.pool, [self.ids[address] for address in addresses])
        return self

    def flagged(self, flags: int) -> Service:
        """Gives the frontend these flags: how it balances, and for whom."""
        self._world.flag_frontend(self.frontend, flags)
        return self

    def allow(self, *networks: str) -> Service:
        """Restricts the frontend to these clients."""
        for network in networks:
            self._world.maps.allow(self.pool, network)
        return self.flagged(RESTRICTED)

    def disallow(self, network: str) -> Service:
        self._world.maps.disallow(self.pool, network)
        return self

    def state(self, address: str, state: int) -> Service:
        self._world.set_backend(self.ids[address], state=state)
        return self


class World:
    """The maps of one node."""

    def __init__(self, module: Module) -> None:
        self.module = self._module = module
        self.maps = Maps(module)
        self._next_frontend = self._next_backend = 1
        self._tables: set[int] = set()
        self._reasons = reason_names(source_dir())

    def table(self, name: str) -> Any:
        return self._module.table(name)

    # --- written by the agent

    def clear(self) -> None:
        """Empties every map."""
        for key in self.table("frontends"):
            self._open(key, 0)
        for name in _HASHES:
            self.table(name).clear()
        for pool in self._tables:
            del self.table("maglev")[self._key("maglev", pool)]
        self._tables.clear()
        for name in ("backends", "pools"):
            for index in range(max(self._next_backend, self._next_frontend)):
                self._put(name, index, self.table(name).Leaf())
        for index in range(self._next_frontend):
            self._put("turns", index, 0)
        for index in range(self._next_backend):
            self._put("live", index, 0)
        self._zero("health", self._next_backend)
        self._zero("next_hops", self._next_backend)
        self._zero("avoided", 1)
        self._zero("newcomers", _NEWCOMERS)
        for pool, networks in self.maps.allowed().items():
            for network in networks:
                self.maps.disallow(pool, network)
        for name in _COUNTERS:
            self._zero(name, _COUNTED)
        self.forget_recent()
        self._zero("reasons", max(self._reasons) + 1)
        self._zero("settings", 1)
        self._next_frontend = self._next_backend = 1

    def node(self, *vteps: str) -> None:
        for vtep in vteps:
            self._put("nodes", be32(vtep), 1)

    def addresses(self, *addresses: str) -> None:
        """IPv4 or IPv6."""
        for address in addresses:
            if ":" in address:
                table = self.table("addresses6")
                table[ip6(table.Key, address)] = table.Leaf(1)
            else:
                self._put("addresses", be32(address), 1)

    def endpoint(self, address: str, vni: int, ifindex: int, mac: str = "") -> None:
        """Says whose veth that is."""
        table = self.table("endpoints")
        leaf = table.Leaf(address=be32(address))
        leaf.mac[:] = _mac_bytes(mac or docker_mac(address))
        table[table.Key(vni, ifindex)] = leaf

    def vip(self, address: str, vni: int) -> Service:
        return Service(self, self._frontend(_VIP, vni=vni, address=be32(address)), vni)

    def port(self, published: int, target: int, protocol: int = socket.IPPROTO_TCP) -> Service:
        where = {"port": socket.htons(published), "protocol": protocol}
        return Service(self, self._frontend(_PORT, target=target, **where), 0)

    def direct(self, address: str, vni: int) -> None:
        """Marks a backend's own address, as the agent does for every backend of a VIP."""
        self._frontend(_DIRECT, vni=vni, address=be32(address))

    def add_backend(self, task: Task, pool: int, vni: int) -> int:
        backend = self._next_backend
        self._next_backend += 1
        self.set_backend(
            backend,
            address=be32(task.address),
            vni=vni,
            vtep=be32(task.vtep),
            pool=pool,
            state=READY,
            mac=docker_mac(task.address),
        )
        if task.gateway:
            self.set_backend(
                backend,
                gateway_address=be32(task.gateway),
                gateway_mac=docker_mac(task.gateway),
                gateway_ifindex=task.ifindex,
            )
            self._put("local_backends", be32(task.address), backend)
        if vni:
            self.direct(task.address, vni)
        return backend

    def set_backend(self, backend: int, **fields: Any) -> None:
        leaf = self.table("backends")[self._key("backends", backend)]
        for name, value in fields.items():
            if name.endswith("mac"):
                getattr(leaf, name)[:] = _mac_bytes(value)
            else:
                setattr(leaf, name, value)
        self._put("backends", backend, leaf)

    def mode(self, mode: Mode, grace_s: float = 0) -> None:
        """Tells the programs whose new flows are, and those that are open already."""
        until = max(0, time.monotonic_ns() + int(grace_s * SECOND))
        self._put("settings", 0, self.table("settings").Leaf(until, 0, int(mode), 0))

    def swap_table(self, pool: int, backends: list[int]) -> None:
        slots = [backends[i % len(backends)] if backends else 0 for i in range(TABLE_SIZE)]
        fd = array_of_one(struct.pack(f"={TABLE_SIZE}I", *slots))
        self._put("maglev", pool, fd)
        os.close(fd)
        self._tables.add(pool)
        self._put("pools", pool, self.table("pools").Leaf(ready=len(backends)))

    def flag_frontend(self, number: int, flags: int) -> None:
        table = self.table("frontends")
        for key, leaf in list(table.items()):
            if leaf.id == number:
                leaf.flags = flags
                table[key] = leaf
                self._open(key, not flags & RESTRICTED)

    def _frontend(self, kind: int, target: int = 0, **where: int) -> int:
        table = self.table("frontends")
        number = 0 if kind == _DIRECT else self._next_frontend
        self._next_frontend += number > 0
        leaf = table.Leaf(id=number, pool=number, kind=kind, target_port=socket.htons(target))
        table[table.Key(**where)] = leaf
        self._open(table.Key(**where), kind == _PORT)
        return number

    def _open(self, frontend: Any, is_open: int) -> None:
        """Says of a published port whether anyone may ask it, as the agent does."""
        if frontend.vni or not frontend.port:
            return
        table, port = self.table("open_ports"), self._key("open_ports", socket.ntohs(frontend.port))
        bit = 1 << (frontend.protocol & 7)
        table[port] = table.Leaf(table[port].value & ~bit | bit * bool(is_open))

    def _key(self, name: str, value: int) -> Any:
        return self.table(name).Key(value)

    def _put(self, name: str, key: int, value: Any) -> None:
        table = self.table(name)
        table[table.Key(key)] = table.Leaf(value) if isinstance(value, int) else value

    def _zero(self, name: str, count: int) -> None:
        table = self.table(name)
        empty = type(table[table.Key(0)])()
        for index in range(count):
            table[table.Key(index)] = empty

    # --- written by the programs

    def live(self, backend: int) -> int:
        """The connections that a backend is said to have."""
        table = self.table("live")
        return int(table[table.Key(backend)].value)

    def reasons(self) -> dict[str, int]:
        """Reason -> how often, without those that never were."""
        table = self.table("reasons")
        counts = {
            f"{kind}_{name}": sum(table[table.Key(index)])
            for index, (kind, name) in self._reasons.items()
        }
        return {name: count for name, count in counts.items() if count}

    def counter(self, name: str, key: int) -> Counter:
        table = self.table(f"{name}_counters")
        cpus = list(table[table.Key(key)])
        packets, volume = (
            [sum(getattr(cpu, field)[way] for cpu in cpus) for way in (0, 1)]
            for field in ("packets", "bytes")
        )
        connections = sum(cpu.connections for cpu in cpus)
        return Counter((packets[0], volume[0]), (packets[1], volume[1]), connections)

    def flows(self, name: str = "flows") -> dict[FlowKey, Any]:
        """The entries of `flows`, `replies` or `entries`, transient ones included."""
        return self.established(name) | self.transient(name)

    def established(self, name: str = "flows") -> dict[FlowKey, Any]:
        return {_flow_key(key): leaf for key, leaf in self.table(name).items()}

    def transient(self, name: str = "flows") -> dict[FlowKey, Any]:
        """The half-open, unanswered and closed ones."""
        return {_flow_key(key): leaf for key, leaf in self.table(f"transient_{name}").items()}

    def backend_of(self, name: str = "entries") -> int:
        """The backend of the one flow that there is."""
        (leaf,) = self.flows(name).values()
        return int(leaf.backend)

    def age(self, name: str, seconds: float) -> None:
        """Makes all entries of a flow map, of `fragments` or of `surrogates`, that much older."""
        for table in map(self.table, {name, f"transient_{name}"}.intersection(_HASHES)):
            for key, leaf in list(table.items()):
                leaf.seen_ns = max(0, leaf.seen_ns - int(seconds * SECOND))
                table[key] = leaf
                self._forget_recent(name, key)

    def _forget_recent(self, name: str, key: Any) -> None:
        """What CPUs have noted of one entry: it seems to have changed since (bpf/recent.h)."""
        if name not in {"flows", "replies"}:
            return
        t, epochs = key.t, self.table("flow_epochs")
        ports = (t.sport + t.dport) * _SPREAD
        slot = epochs.Key(((t.saddr * t.daddr ^ ports) * _SPREAD) % 2**64 >> 48)
        epochs[slot] = epochs.Leaf(epochs[slot].value + 1)

    def forget_recent(self) -> None:
        """The same of every flow."""
        table = self.table("flow_epochs")
        epochs = np.full(table.max_entries, time.monotonic_ns(), dtype=np.uint64)
        count = ctypes.c_uint32(table.max_entries)
        slots = np.arange(table.max_entries, dtype=np.uint32)
        failed = lib.bpf_update_batch(
            table.map_fd, slots.ctypes.data, epochs.ctypes.data, ctypes.byref(count)
        )
        assert not failed

    def avoid(self, *backends: int, seconds: int = 100) -> None:
        """Makes backends suspect, as if they had left connections unanswered."""
        table = self.table("avoided")
        leaf = table[table.Key(0)]
        for backend in backends:
            leaf.until_s[backend] = int(time.monotonic()) + seconds
        table[table.Key(0)] = leaf

    def age_health(self, seconds: float) -> None:
        """Makes every backend's first refusal that much older."""
        table = self.table("health")
        for index in range(self._next_backend):
            leaf = table[table.Key(index)]
            leaf.refused_ns = max(0, leaf.refused_ns - int(seconds * SECOND))
            table[table.Key(index)] = leaf

    def age_newcomers(self, seconds: float) -> None:
        """Makes it that much longer ago that they came."""
        table = self.table("newcomers")
        for key, leaf in list(table.items()):
            leaf.seen_ns = max(0, leaf.seen_ns - int(seconds * SECOND))
            table[key] = leaf

    def forget(self, name: str) -> None:
        """Empties a flow map, or `surrogates`, as the LRU may do."""
        for table in map(self.table, {name, f"transient_{name}"}.intersection(_HASHES)):
            for key in list(table):
                self._forget_recent(name, key)
            table.clear()

    def stands_for(self, surrogate: str, client: str, asks: str, idle_s: float = 0.0) -> None:
        """Gives an IPv6 client, who asks the node at `asks`, its IPv4 address."""
        table = self.table("surrogates")
        leaf = table.Leaf(seen_ns=time.monotonic_ns() - int(idle_s * SECOND))
        leaf.client, leaf.node = ip6(type(leaf.client), client), ip6(type(leaf.node), asks)
        table[table.Key(be32(surrogate))] = leaf

    def translations(self, name: str = "flows") -> Iterator[tuple[str, str]]:
        """From what to what each entry rewrites, as text."""
        for key, leaf in self.flows(name).items():
            yield _text(key), _text(_tuple_of(leaf.to))


def _tuple_of(t: Any) -> FlowKey:
    ports = socket.ntohs(t.sport), socket.ntohs(t.dport)
    return FlowKey(dotted(t.saddr), ports[0], dotted(t.daddr), ports[1], 0, 0)


def _flow_key(key: Any) -> FlowKey:
    return _tuple_of(key.t)._replace(protocol=key.protocol, vni=key.vni)


def _text(key: FlowKey) -> str:
    return f"{key.src}:{key.sport} > {key.dst}:{key.dport}"
