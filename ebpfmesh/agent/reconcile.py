# SPDX-License-Identifier: Apache-2.0
"""Applies plans to maps and links, and knows what these hold."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, singledispatchmethod
from itertools import groupby
from threading import Lock

import numpy as np
import structlog

from ebpfmesh.datapath.attach import Attached, Attacher, Role, detach
from ebpfmesh.datapath.errors import AttachError, PlaceGone
from ebpfmesh.datapath.maps import Maps
from ebpfmesh.desired import Touched, mac_of
from ebpfmesh.ids import NO_ID, Ids
from ebpfmesh.maglev import Table, equal_table
from ebpfmesh.model import (
    Attachment,
    Backend,
    BackendKey,
    BackendState,
    Desired,
    EndpointKey,
    FrontendKind,
    Pool,
    PoolKey,
)
from ebpfmesh.plan import (
    Actual,
    Attach,
    DelAddress,
    DelAllowed,
    DelEndpoint,
    DelFrontend,
    DelNamespace,
    DelNode,
    DelPool,
    Detach,
    FreeBackend,
    Operation,
    PutAddress,
    PutAllowed,
    PutBackend,
    PutEndpoint,
    PutFrontend,
    PutNamespace,
    PutNode,
    PutPool,
    PutTable,
    RetireBackend,
    applied,
    plan,
    plan_links,
    plan_touched,
)

log = structlog.get_logger(__name__)

Build = Callable[[tuple[str, ...], int], Table | None]

# So many tables are in memory side by side, and go in as one batch: 16 MB of 16381 slots.
_AT_ONCE = 256

# For how long a backend is avoided that the tables may still name. A plan is there sooner.
_SHUNNED_S = 60


class Reconciler:
    """Brings maps and links to a desired state, one plan after the other.

    All methods block on system calls: call them in a thread, one at a time. `attach` alone may
    run in another one meanwhile, and `tell`, which takes well below a millisecond.
    """

    def __init__(
        self,
        maps: Maps,
        attacher: Attacher,
        ids: Ids,
        now_s: Callable[[], float] = time.monotonic,
        build: Build = equal_table,
    ) -> None:
        """`build` makes the Maglev table of tasks, by their place in order of id."""
        self.maps = maps
        self.ids = ids
        self.actual = Actual()
        self.attached: dict[Attachment, Attached] = {}
        self.shares: dict[PoolKey, dict[BackendKey, float]] = {}
        # A service with a published port has one pool for each network, of the same tasks mostly,
        # and they change together.
        self._indexes = lru_cache(maxsize=4)(build)
        self._attacher = attacher
        self._now_s = now_s
        self._lock = Lock()  # of `actual`, while it becomes another one
        self._reached: Desired | None = None  # what `actual` has been brought to
        self._told: set[BackendKey] = set()
        self._shunned: set[int] = set()

    def adopt(self) -> None:
        """Takes over what an earlier agent has left in the maps, with the ids that it gave.

        Which tables are in place is not read back, nor which programs are attached: both are
        put there again, which no packet notices. Who is behind which veth may have changed since:
        nobody is held to an address until that has been found out again.
        """
        self.maps.clear_endpoints()
        stored = self.maps.pools()
        names = {pool_id: key for pool_id, (key, _) in stored.items()}
        frontends = self.maps.frontends(names)
        backends = self.maps.backends(names)
        for pool_id, pool in names.items():
            self.ids.pools.adopt(pool, pool_id)
        for found in frontends:
            self.maps.open_port(found.frontend)
            if found.id != NO_ID:
                self.ids.frontends.adopt(found.frontend.key, found.id)
        for backend_id, backend in backends.items():
            self.ids.backends.adopt(backend.key, backend_id)
        allowed = {}
        for pool_id, networks in self.maps.allowed().items():
            if pool_id in names:
                allowed[names[pool_id]] = networks
            else:
                self._disallow(pool_id, networks)
        gone = {b.key for b in backends.values() if b.state is BackendState.GONE}
        for key in gone:
            self.ids.backends.release(key, self._now_s())
        self.actual = Actual(
            frontends={f.frontend.key: f.frontend for f in frontends},
            pools={key: Pool(key, _ready(key, backends.values())) for key in names.values()},
            allowed=allowed,
            backends={b.key: b for b in backends.values() if b.key not in gone},
            nodes=self.maps.nodes(),
            addresses=self.maps.addresses(),
            namespaces=self.maps.namespaces(),
            retired=frozenset(gone),
        )
        log.info(
            "maps.adopted",
            frontends=len(frontends),
            pools=len(names),
            backends=len(self.actual.backends),
            retired=len(gone),
        )

    def ready_tasks(self) -> frozenset[str]:
        """The tasks that get new flows, as far as the maps tell."""
        found = self.actual.backends.values()
        return frozenset(b.key.task_id for b in found if b.state is BackendState.READY)

    def sync(self, desired: Desired, *, whole: bool, touched: Touched | None = None) -> int:
        """Brings the maps to `desired`; returns how many operations that took.

        `touched`: what may be different from the desired state before. What could be applied before
        an error stays applied; the next call does the rest.
        """
        reached, self._reached = self._reached, None
        rested = self.ids.backends.rested(self._now_s())
        if whole and touched is not None and touched.since is reached:
            planned = plan_touched(desired, touched, self.actual, rested)
        else:
            planned = plan(desired, self.actual, whole=whole, rested=rested)
        with self._doubtful(desired) as doubtful:
            operations = [*doubtful, *planned]
            for _, group in groupby(operations, key=type):
                self._apply_group(tuple(group))
        self._reached = desired if whole else None
        return len(operations)

    def tell(self, states: Mapping[str, BackendState]) -> None:
        """Says of tasks that they are to end, or have, by id, ahead of the plan that will follow.

        No table is made for that: until there is one, programs look past these backends. The next
        `sync` writes them again, whatever has become of them.
        """
        networks = {key.vni for key in self.actual.pools}
        for task_id, state in states.items():
            for vni in networks:
                backend = self.actual.backends.get(BackendKey(task_id, vni))
                if backend is not None and state > backend.state:
                    self._tell(backend, state)

    def _tell(self, backend: Backend, state: BackendState) -> None:
        number = self.ids.backends.ids.get(backend.key, NO_ID)
        if number == NO_ID:
            return  # a plan under way has just retired it
        self._told.add(backend.key)
        self.maps.set_backend_state(number, state)
        if _gets_new(backend):
            self._shunned.add(number)
            self.maps.avoid(number, int(self._now_s()) + _SHUNNED_S)

    @contextmanager
    def _doubtful(self, desired: Desired) -> Iterator[list[Operation]]:
        """What a plan cannot know: it compares with what was planned before."""
        told, self._told = self._told, set()
        try:
            yield [PutBackend(desired.backends[key]) for key in told if key in desired.backends]
        except BaseException:
            self._told |= told
            raise

    def attach(self, desired: Desired, *, whole: bool) -> int:
        """Brings the programs at links to `desired`; returns how many operations that took.

        A place that programs could not be attached to keeps no other from its turn: those errors
        are raised together at the end, as an `ExceptionGroup`.
        """
        operations = plan_links(desired, self.actual, whole=whole)
        failures: list[AttachError] = []
        for operation in operations:
            try:
                self._apply(operation)
            except PlaceGone as error:
                log.debug("programs.place_gone", error=str(error))
            except AttachError as error:
                failures.append(error)
            else:
                self._note((operation,))
        if failures:
            raise ExceptionGroup("programs were not attached everywhere", failures)
        return len(operations)

    def pause_xdp(self, *, paused: bool) -> None:
        """Takes XDP off the NICs for a while, or puts it back: tc does all that it does.

        Raises `AttachError`.
        """
        self._attacher.xdp_paused = paused
        for attachment in [each for each in self.attached if each.role == Role.NIC]:
            with contextlib.suppress(PlaceGone):
                self._apply(Attach(attachment))

    def _apply_group(self, operations: tuple[Operation, ...]) -> None:
        """Operations of one kind; tables go in as few batches."""
        done: list[Operation] = []
        try:
            if isinstance(operations[0], PutTable):
                self._put_tables([op for op in operations if isinstance(op, PutTable)])
                done.extend(operations)
                return
            apply = self._apply  # made anew each time that it is asked for
            for operation in operations:
                apply(operation)
                done.append(operation)
        finally:
            self._note(done)

    def _note(self, done: Collection[Operation]) -> None:
        """What has been applied is there from now on."""
        with self._lock:
            self.actual = applied(self.actual, done)

    def _put_tables(self, operations: list[PutTable]) -> None:
        for first in range(0, len(operations), _AT_ONCE):
            self._put_some_tables(operations[first : first + _AT_ONCE])

    def _put_some_tables(self, operations: list[PutTable]) -> None:
        tables = {op.key: self._table(op.pool) for op in operations}
        self.maps.put_tables({self._pool_id(key): table for key, table in tables.items()})
        for op in operations:
            self.shares[op.key] = self._shares(op.pool, tables[op.key])

    def _shares(self, pool: Pool, table: bytes) -> dict[BackendKey, float]:
        """The part of the new flows that each backend gets: of the slots, or its turn."""
        if pool.in_turn:
            return dict.fromkeys(pool.chosen, 1 / max(1, len(pool.chosen)))
        slots = np.bincount(np.frombuffer(table, dtype=np.uint32))
        numbers = {key: self.ids.backends.ids[key] for key in pool.chosen}
        return {key: float(slots[n] / self.maps.maglev_size) for key, n in numbers.items()}

    def _table(self, pool: Pool) -> bytes:
        """The pool's table, as ids; empty if nobody gets new flows."""
        if pool.in_turn:
            numbers = [self.ids.backends.ids[key] for key in pool.chosen]
            return _in_turn(numbers, self.maps.maglev_size)
        by_name = {key.task_id: key for key in pool.chosen}
        names = tuple(sorted(by_name))
        table = self._indexes(names, self.maps.maglev_size)
        if table is None:
            return b""
        numbers = [self.ids.backends.ids[by_name[name]] for name in names]
        return np.array(numbers, dtype=np.uint32)[table].tobytes()

    def _pool_id(self, key: PoolKey) -> int:
        return self.ids.pools.allocate(key, self._now_s())

    @singledispatchmethod
    def _apply(self, operation: Operation) -> None:
        raise NotImplementedError(type(operation).__name__)

    @_apply.register
    def _(self, operation: PutNode) -> None:
        self.maps.put_node(operation.vtep)

    @_apply.register
    def _(self, operation: PutBackend) -> None:
        backend = operation.backend
        number = self.ids.backends.allocate(backend.key, self._now_s())
        if backend.key not in self.actual.backends and backend.key not in self.actual.retired:
            self.maps.clear_backend_counters(number)
        self.maps.put_backend(backend, number, self._pool_id(backend.pool))
        if number in self._shunned and _gets_new(backend):
            self._shunned.discard(number)
            self.maps.avoid(number, 0)

    @_apply.register
    def _(self, operation: PutPool) -> None:
        self.maps.put_pool(self._pool_id(operation.key), operation.key, operation.ready)

    @_apply.register
    def _(self, operation: PutAllowed) -> None:
        number = self._pool_id(operation.key)
        before = self.actual.allowed.get(operation.key, frozenset())
        for network in sorted(operation.networks):
            self.maps.allow(number, network)
        self._disallow(number, before - operation.networks)

    def _disallow(self, pool_id: int, networks: Iterable[str]) -> None:
        for network in sorted(networks):
            self.maps.disallow(pool_id, network)

    @_apply.register
    def _(self, operation: PutFrontend) -> None:
        frontend = operation.frontend
        number = self.ids.of_frontend(frontend, self._now_s())
        pool = self._pool_id(frontend.pool) if frontend.pool else NO_ID
        if frontend.key not in self.actual.frontends and number != NO_ID:
            self.maps.clear_frontend_counters(number)
        self.maps.put_frontend(frontend, number, pool)

    @_apply.register
    def _(self, operation: PutAddress) -> None:
        self.maps.put_address(operation.address)

    @_apply.register
    def _(self, operation: PutEndpoint) -> None:
        self.maps.put_endpoint(operation.key, operation.endpoint)

    @_apply.register
    def _(self, operation: DelEndpoint) -> None:
        self.maps.delete_endpoint(operation.key)

    @_apply.register
    def _(self, operation: PutNamespace) -> None:
        self.maps.put_namespace(operation.cookie, operation.networks)

    @_apply.register
    def _(self, operation: DelNamespace) -> None:
        self.maps.delete_namespace(operation.cookie)

    @_apply.register
    def _(self, operation: Attach) -> None:
        vips = self._vips(operation.attachment.vni)
        attached = self._attacher.attach(operation.attachment, vips)
        # Whoever looks through it does so in another thread.
        self.attached = {**self.attached, operation.attachment: attached}
        log.debug("xdp.mode", link=operation.attachment.name, xdp=str(attached.xdp))

    def _vips(self, vni: int) -> dict[str, str]:
        """The VIPs of a network, and the MACs that the programs answer with (bpf/arp.h)."""
        keys = (f.key for f in self.actual.frontends.values() if f.kind is FrontendKind.VIP)
        addresses = sorted(key.address for key in keys if key.vni == vni)
        balancer = self.actual.endpoints.get(EndpointKey(vni, 0))
        return {one: balancer.mac if balancer else mac_of(one) for one in addresses}

    @_apply.register
    def _(self, operation: DelFrontend) -> None:
        self.maps.delete_frontend(operation.key)
        self.ids.frontends.release(operation.key, self._now_s())

    @_apply.register
    def _(self, operation: DelAllowed) -> None:
        self._disallow(self.ids.pools.ids[operation.key], self.actual.allowed[operation.key])

    @_apply.register
    def _(self, operation: DelPool) -> None:
        self.maps.delete_pool(self.ids.pools.ids[operation.key])
        self.shares.pop(operation.key, None)
        self.ids.pools.release(operation.key, self._now_s())

    @_apply.register
    def _(self, operation: RetireBackend) -> None:
        number = self.ids.backends.ids[operation.key]
        self.maps.set_backend_state(number, BackendState.GONE)
        if operation.lost:
            self.maps.lose_backend(number)
        self.ids.backends.release(operation.key, self._now_s())

    @_apply.register
    def _(self, operation: FreeBackend) -> None:
        number = self.ids.backends.forget(operation.key)
        if number != NO_ID:
            self.maps.free_backend(number)

    @_apply.register
    def _(self, operation: DelAddress) -> None:
        self.maps.delete_address(operation.address)

    @_apply.register
    def _(self, operation: DelNode) -> None:
        self.maps.delete_node(operation.vtep)

    @_apply.register
    def _(self, operation: Detach) -> None:
        detach(operation.attachment)
        rest = {place: one for place, one in self.attached.items() if place != operation.attachment}
        self.attached = rest


def _gets_new(backend: Backend) -> bool:
    """Whether a table may name it."""
    return backend.state is BackendState.READY or backend.spare


def _in_turn(numbers: list[int], size: int) -> bytes:
    """The table of these ids, one after the other again and again."""
    return np.resize(np.array(numbers, dtype=np.uint32), size).tobytes() if numbers else b""


def _ready(pool: PoolKey, backends: Iterable[Backend]) -> tuple[BackendKey, ...]:
    """Who gets new flows of a pool, as far as the maps tell."""
    found = (b.key for b in backends if b.pool == pool and b.state is BackendState.READY)
    return tuple(sorted(found))
