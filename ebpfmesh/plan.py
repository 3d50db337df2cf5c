# SPDX-License-Identifier: Apache-2.0
"""The difference between desired and actual state, as ordered operations. Pure, no I/O.

The order lets a packet find everything that it is pointed to: nodes, backends, tables (side by
side, so that one batch can swap them all), pools, lists of allowed clients, frontends, local
addresses, endpoints, namespaces; then the removals: frontends, lists, pools, backends, addresses,
nodes, endpoints, namespaces. Programs at links have a plan of their own: the kernel may keep
whoever attaches one waiting for as long as it takes a container down, and no map waits for that.

A backend that is no longer wanted is first *retired*: it stays in the map as `GONE`, so that its
flows are refused or balanced again. When its id has rested (`ebpfmesh.ids`) it is freed.

**Partial snapshots.** Where the Swarm's state or the local view is not known to be complete, the
caller says ``whole=False``. Then what is desired is laid over what there is: absence means
nothing, and only what the snapshot says outright (a backend that drains, a port that moved) takes
effect. Nothing is removed, no table shrinks because a task is missing, and a ready backend whose
gateway or VTEP is merely unknown keeps the one it had. An agent that has no state of the Swarm yet
is such a case; the last state, kept on disk, together with a complete local view is not.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Set
from typing import Any, TypeAlias, TypeVar

import msgspec

from ebpfmesh.desired import Touched
from ebpfmesh.model import (
    Attachment,
    Backend,
    BackendKey,
    BackendState,
    Desired,
    Endpoint,
    EndpointKey,
    Frontend,
    FrontendKey,
    Frozen,
    Membership,
    Pool,
    PoolKey,
)


class Actual(Desired, frozen=True):
    """What maps and links hold: as `Desired`, but `pools` tells the tables.

    `counts` tells how many ready backends each pool is said to have (`PutPool`); of a pool that is
    not in it, nothing is believed, and its table is put again. `retired` names the backends that
    are kept only so that their flows meet the state `GONE`.
    """

    retired: frozenset[BackendKey] = frozenset()
    counts: dict[PoolKey, int] = msgspec.field(default_factory=dict)


class PutNode(Frozen, frozen=True, tag=True):
    """Let the tunnel reach the node, and accept its packets."""

    vtep: str


class PutBackend(Frozen, frozen=True, tag=True):
    """Add the backend or change it, its state included; one that was retired comes back."""

    backend: Backend


class PutTable(Frozen, frozen=True, tag=True):
    """Swap the pool's table; its input is `Pool.chosen`.

    With nobody chosen there must be no table: the programs then refuse new flows. `in_turn`: the
    backends in order, again and again; otherwise a Maglev table, in the order of its indexes.
    """

    key: PoolKey
    ready: tuple[BackendKey, ...]
    preferred: tuple[BackendKey, ...] = ()
    in_turn: bool = False
    spare: tuple[BackendKey, ...] = ()

    @property
    def pool(self) -> Pool:
        """The pool as it is afterwards."""
        return Pool(self.key, self.ready, self.preferred, self.in_turn, self.spare)


class PutPool(Frozen, frozen=True, tag=True):
    """Name the pool, and say how many backends its table has."""

    key: PoolKey
    ready: int


class PutAllowed(Frozen, frozen=True, tag=True):
    """Let these clients, and no others, ask the pool's restricted frontends."""

    key: PoolKey
    networks: frozenset[str]


class PutFrontend(Frozen, frozen=True, tag=True):
    """Begin to serve what a client addresses, or serve it differently."""

    frontend: Frontend


class PutAddress(Frozen, frozen=True, tag=True):
    """Serve published ports at this address of the node."""

    address: str


class PutEndpoint(Frozen, frozen=True, tag=True):
    """Hold the container behind a veth to its own address and MAC."""

    key: EndpointKey
    endpoint: Endpoint


class PutNamespace(Frozen, frozen=True, tag=True):
    """Balance what is asked at the sockets of a network namespace that is on these networks."""

    cookie: int
    networks: tuple[Membership, ...]


class Attach(Frozen, frozen=True, tag=True):
    """Attach the programs of the role."""

    attachment: Attachment


class DelFrontend(Frozen, frozen=True, tag=True):
    """Serve it no longer; its packets go the kernel's way."""

    key: FrontendKey


class DelAllowed(Frozen, frozen=True, tag=True):
    """Remove the list of the pool's clients: nothing asks for it any more."""

    key: PoolKey


class DelPool(Frozen, frozen=True, tag=True):
    """Remove the pool and its table."""

    key: PoolKey


class RetireBackend(Frozen, frozen=True, tag=True):
    """Leave the backend in the map as `GONE`, and let its id rest.

    Unless its node is `lost`, that is still asked about its connections.
    """

    key: BackendKey
    lost: bool = False


class FreeBackend(Frozen, frozen=True, tag=True):
    """Remove a retired backend whose id has rested."""

    key: BackendKey


class DelAddress(Frozen, frozen=True, tag=True):
    """The node has the address no longer."""

    address: str


class DelNode(Frozen, frozen=True, tag=True):
    """The Swarm has the node no longer."""

    vtep: str


class DelEndpoint(Frozen, frozen=True, tag=True):
    """Nobody known is behind the veth any more."""

    key: EndpointKey


class DelNamespace(Frozen, frozen=True, tag=True):
    """Leave the sockets of a network namespace alone."""

    cookie: int


class Detach(Frozen, frozen=True, tag=True):
    """Take the role's programs off; a namespace or link that is gone is a success."""

    attachment: Attachment


Put: TypeAlias = (
    PutNode
    | PutBackend
    | PutTable
    | PutPool
    | PutAllowed
    | PutFrontend
    | PutAddress
    | PutEndpoint
    | PutNamespace
    | Attach
)
Removal: TypeAlias = (
    DelFrontend
    | DelAllowed
    | DelPool
    | RetireBackend
    | FreeBackend
    | DelAddress
    | DelNode
    | DelEndpoint
    | DelNamespace
    | Detach
)
Operation: TypeAlias = Put | Removal
REMOVALS = (
    DelFrontend,
    DelAllowed,
    DelPool,
    RetireBackend,
    FreeBackend,
    DelAddress,
    DelNode,
    DelEndpoint,
    DelNamespace,
    Detach,
)

Plan: TypeAlias = tuple[Operation, ...]

K = TypeVar("K", FrontendKey, PoolKey, BackendKey, EndpointKey, int)
V = TypeVar("V")
D = TypeVar("D", bound=Desired)


def plan(
    desired: Desired,
    actual: Actual,
    *,
    whole: bool = True,
    rested: Collection[BackendKey] = frozenset(),
) -> Plan:
    """Return the operations on maps that turn `actual` into `desired`, in order; none if it is so.

    `whole`: see the module. `rested`: keys whose ids have rested (`Allocator.rested`); those among
    the retired backends are freed. The plan depends on the values alone, not on their order.
    """
    if not whole:
        return tuple(_puts(laid_over(desired, actual), actual))
    return (*_puts(desired, actual), *_removals(desired, actual, rested))


def plan_touched(
    desired: Desired, touched: Touched, actual: Actual, rested: Collection[BackendKey]
) -> Plan:
    """Return the whole plan, where `actual` has been brought to `touched.since`; see there.

    It takes no longer in a large Swarm than in a small one.
    """
    wanted, there = _narrowed(desired, touched), _narrowed(actual, touched)
    there = msgspec.structs.replace(there, counts=_part(actual.counts, touched.pools))
    return plan(wanted, there, rested=rested)


def _narrowed(state: D, touched: Touched) -> D:
    return msgspec.structs.replace(
        state,
        frontends=_part(state.frontends, touched.frontends),
        pools=_part(state.pools, touched.pools),
        allowed={},
        backends=_part(state.backends, touched.backends),
        nodes=frozenset(),
        addresses=frozenset(),
        endpoints={},
        namespaces={},
    )


def _part(of: Mapping[K, V], keys: Iterable[K]) -> dict[K, V]:
    return {key: of[key] for key in keys if key in of}


def plan_links(desired: Desired, actual: Actual, *, whole: bool = True) -> Plan:
    """Return the operations on programs at links: what is new first. `whole` as in `plan`."""
    attach = map(Attach, _in_order(desired.attachments - actual.attachments))
    over = actual.attachments - desired.attachments if whole else frozenset[Attachment]()
    return (*attach, *map(Detach, _in_order(over)))


def applied(actual: Actual, operations: Iterable[Operation]) -> Actual:
    """Return what there is after the operations have succeeded, in their order.

    Where only some have succeeded, the plan from there leads to the same end. The value is copied
    once for each call, so hand over many operations at once.
    """
    change = _Change(actual)
    for operation in operations:
        if isinstance(operation, REMOVALS):
            change.remove(operation)
        else:
            change.put(operation)
    return change.result()


def laid_over(desired: Desired, actual: Actual) -> Desired:
    """Return `actual`, changed only where a partial `desired` says so outright."""
    backends = {
        key: _filled_in(backend, actual.backends.get(key))
        for key, backend in desired.backends.items()
    }
    vague = {key for key, backend in backends.items() if backend is not desired.backends[key]}
    pools = {
        key: _not_shrunk(pool, actual.pools.get(key), backends.keys() - vague)
        for key, pool in desired.pools.items()
    }
    return Desired(
        frontends=actual.frontends | desired.frontends,
        pools=actual.pools | pools,
        allowed=actual.allowed | desired.allowed,
        backends=actual.backends | backends,
        nodes=actual.nodes | desired.nodes,
        addresses=actual.addresses | desired.addresses,
        attachments=actual.attachments | desired.attachments,
        endpoints=actual.endpoints | desired.endpoints,
        namespaces=actual.namespaces | desired.namespaces,
        lost=desired.lost,
    )


def _filled_in(backend: Backend, before: Backend | None) -> Backend:
    """Return the backend with the way to it that was known before, where it is ready but vague."""
    if before is None or backend.state is not BackendState.READY:
        return backend
    if backend.address != before.address:
        return backend
    vtep, gateway = backend.vtep or before.vtep, backend.gateway or before.gateway
    if (vtep, gateway) == (backend.vtep, backend.gateway):
        return backend
    return msgspec.structs.replace(backend, vtep=vtep, gateway=gateway)


def _not_shrunk(pool: Pool, before: Pool | None, certain: Set[BackendKey]) -> Pool:
    """Return the pool with those who were ready and are not `certain` to be so no longer."""
    if before is None:
        return pool
    ready = {*pool.ready, *(key for key in before.ready if key not in certain)}
    preferred = {*pool.preferred, *(key for key in before.preferred if key not in certain)}
    return Pool(pool.key, tuple(sorted(ready)), tuple(sorted(preferred)), pool.in_turn, pool.spare)


def _puts(desired: Desired, actual: Actual) -> Iterator[Operation]:
    yield from map(PutNode, sorted(desired.nodes - actual.nodes))
    yield from map(PutBackend, _changed(desired.backends, actual.backends))
    unknown = {key: pool for key, pool in desired.pools.items() if key not in actual.counts}
    changed = {pool.key: pool for pool in _changed(desired.pools, actual.pools)}
    for key, pool in sorted((unknown | changed).items()):
        yield PutTable(key, pool.ready, pool.preferred, pool.in_turn, pool.spare)
    counts = {key: len(pool.chosen) for key, pool in desired.pools.items()}
    for key, count in sorted(counts.items() - actual.counts.items()):
        yield PutPool(key, count)
    for key, networks in sorted(desired.allowed.items()):
        if actual.allowed.get(key) != networks:
            yield PutAllowed(key, networks)
    yield from map(PutFrontend, _changed(desired.frontends, actual.frontends))
    yield from map(PutAddress, sorted(desired.addresses - actual.addresses))
    for place, endpoint in sorted(desired.endpoints.items()):
        if actual.endpoints.get(place) != endpoint:
            yield PutEndpoint(place, endpoint)
    for cookie, joined in sorted(desired.namespaces.items()):
        if actual.namespaces.get(cookie) != joined:
            yield PutNamespace(cookie, joined)


def _removals(
    desired: Desired, actual: Actual, rested: Collection[BackendKey]
) -> Iterator[Operation]:
    yield from map(DelFrontend, _missing(desired.frontends, actual.frontends))
    yield from map(DelAllowed, _missing(desired.allowed, actual.allowed))
    yield from map(DelPool, _missing(desired.pools, actual.pools))
    for key in _missing(desired.backends, actual.backends):
        yield RetireBackend(key, actual.backends[key].vtep in desired.lost)
    over = actual.retired.intersection(rested) - desired.backends.keys()
    yield from map(FreeBackend, sorted(over))
    yield from map(DelAddress, sorted(actual.addresses - desired.addresses))
    yield from map(DelNode, sorted(actual.nodes - desired.nodes))
    yield from map(DelEndpoint, _missing(desired.endpoints, actual.endpoints))
    yield from map(DelNamespace, _missing(desired.namespaces, actual.namespaces))


def _changed(wanted: Mapping[K, V], there: Mapping[K, V]) -> list[V]:
    """Return the values that are not there, or not like that, in order of key.

    Most are the very same objects, and need no look inside.
    """
    different = [k for k, v in wanted.items() if (was := there.get(k)) is not v and was != v]
    return [wanted[key] for key in sorted(different)]


def _missing(wanted: Container[K], there: Iterable[K]) -> list[K]:
    """Return the keys that are there and are not wanted, in order."""
    return sorted([key for key in there if key not in wanted])


def _in_order(attachments: Iterable[Attachment]) -> list[Attachment]:
    return sorted(attachments, key=msgspec.structs.astuple)


class _Change:
    """An `Actual` while operations are applied to it: what they change of it is copied first."""

    def __init__(self, actual: Actual) -> None:
        self._actual = actual
        self._maps: dict[str, dict[Any, Any]] = {}
        self._sets: dict[str, set[Any]] = {}

    def result(self) -> Actual:
        sets = {name: frozenset(found) for name, found in self._sets.items()}
        return msgspec.structs.replace(self._actual, **self._maps, **sets)

    def _map(self, name: str) -> dict[Any, Any]:
        if name not in self._maps:
            self._maps[name] = dict(getattr(self._actual, name))
        return self._maps[name]

    def _set(self, name: str) -> set[Any]:
        if name not in self._sets:
            self._sets[name] = set(getattr(self._actual, name))
        return self._sets[name]

    def put(self, operation: Put) -> None:
        match operation:
            case PutNode(vtep=vtep):
                self._set("nodes").add(vtep)
            case PutBackend(backend=backend):
                self._set("retired").discard(backend.key)
                self._map("backends")[backend.key] = backend
            case PutTable(key=key):
                self._map("pools")[key] = operation.pool
            case PutPool(key=key, ready=count):
                self._map("counts")[key] = count
            case PutAllowed(key=key, networks=networks):
                self._map("allowed")[key] = networks
            case PutFrontend(frontend=frontend):
                self._map("frontends")[frontend.key] = frontend
            case PutAddress(address=address):
                self._set("addresses").add(address)
            case PutEndpoint(key=place, endpoint=endpoint):
                self._map("endpoints")[place] = endpoint
            case PutNamespace(cookie=cookie, networks=joined):
                self._map("namespaces")[cookie] = joined
            case Attach(attachment=attachment):
                self._set("attachments").add(attachment)

    def remove(self, operation: Removal) -> None:
        match operation:
            case DelFrontend(key=frontend):
                self._map("frontends").pop(frontend, None)
            case DelAllowed(key=pool):
                self._map("allowed").pop(pool, None)
            case DelPool(key=pool):
                self._map("pools").pop(pool, None)
                self._map("counts").pop(pool, None)
            case RetireBackend(key=backend):
                self._map("backends").pop(backend, None)
                self._set("retired").add(backend)
            case FreeBackend(key=backend):
                self._set("retired").discard(backend)
            case DelAddress(address=address):
                self._set("addresses").discard(address)
            case DelNode(vtep=vtep):
                self._set("nodes").discard(vtep)
            case DelEndpoint(key=place):
                self._map("endpoints").pop(place, None)
            case DelNamespace(cookie=cookie):
                self._map("namespaces").pop(cookie, None)
            case Detach(attachment=attachment):
                self._set("attachments").discard(attachment)
