# SPDX-License-Identifier: Apache-2.0
"""What has changed in the maps and links of a node, in words that people know. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec

from ebpfmesh.model import (
    Attachment,
    Backend,
    BackendKey,
    BackendState,
    Desired,
    Frontend,
    FrontendKey,
    FrontendKind,
    Frozen,
    PoolKey,
)

_WHEREABOUTS = ("address", "mac", "vtep", "gateway")


class Change(Frozen, frozen=True, omit_defaults=False):
    """One change. `event` is ``backend.state`` and the like; `fields` say of what, and how.

    `at` is in seconds since 1970. `took_s` is from the moment the agent heard of the oldest of its
    causes until the maps had it; None where nothing was waited for.
    """

    event: str
    fields: dict[str, str] = msgspec.field(default_factory=dict)
    at: float = 0.0
    cause: str = ""
    took_s: float | None = None


class Names(Frozen, frozen=True):
    """How people call things: services by id, networks by VNI, nodes by VTEP."""

    services: Mapping[str, str] = msgspec.field(default_factory=dict)
    networks: Mapping[int, str] = msgspec.field(default_factory=dict)
    nodes: Mapping[str, str] = msgspec.field(default_factory=dict)


Frontends = Mapping[FrontendKey, Frontend]

K = TypeVar("K", FrontendKey, BackendKey)
V = TypeVar("V")


def changes(before: Desired, after: Desired, names: Names) -> Iterator[Change]:
    """Yield what is different: what has come or changed first, then what has gone."""
    return _Comparison(before, after, names).run()


class _Comparison:
    def __init__(self, before: Desired, after: Desired, names: Names) -> None:
        self._before = before
        self._after = after
        self._names = names

    def run(self) -> Iterator[Change]:
        before, after = self._before, self._after
        for vtep in sorted(after.nodes - before.nodes):
            yield Change("node.added", self._node(vtep))
        for pool in sorted(after.pools.keys() - before.pools.keys()):
            yield Change("service.added", self._pool(pool))
        for frontend in _news(before.frontends, after.frontends):
            known = frontend.key in before.frontends
            yield Change(
                "frontend.changed" if known else "frontend.added", self._frontend(frontend)
            )
        for key in _others(before.backends, after.backends):
            yield from self._backend(before.backends.get(key), after.backends[key])
        for place in _places(after.attachments - before.attachments):
            yield Change("programs.attached", _place(place))
        yield from self._gone()

    def _gone(self) -> Iterator[Change]:
        before, after = self._before, self._after
        for key in sorted(before.frontends.keys() - after.frontends.keys()):
            if before.frontends[key].kind is not FrontendKind.DIRECT:
                yield Change("frontend.removed", self._frontend(before.frontends[key]))
        for gone in sorted(before.backends.keys() - after.backends.keys()):
            yield Change("backend.gone", self._of_backend(before.backends[gone]))
        for pool in sorted(before.pools.keys() - after.pools.keys()):
            yield Change("service.removed", self._pool(pool))
        for vtep in sorted(before.nodes - after.nodes):
            yield Change("node.removed", self._node(vtep))
        for place in _places(before.attachments - after.attachments):
            yield Change("programs.detached", _place(place))

    def _backend(self, old: Backend | None, new: Backend) -> Iterator[Change]:
        if old is None:
            yield Change("backend.added", {**self._of_backend(new), "state": _word(new)})
            return
        if old.state is not new.state:
            states = {"state": _word(new), "was": _word(old)}
            yield Change("backend.state", {**self._of_backend(new), **states})
        moved = [name for name in _WHEREABOUTS if getattr(old, name) != getattr(new, name)]
        if moved and new.state is not BackendState.GONE:
            yield Change("backend.moved", {**self._of_backend(new), "changed": " ".join(moved)})

    # -- names ----------------------------------------------------------------------------

    def _pool(self, pool: PoolKey) -> dict[str, str]:
        service = self._names.services.get(pool.service_id, pool.service_id)
        return {"service": service, "network": self._network(pool.vni)}

    def _network(self, vni: int) -> str:
        return self._names.networks.get(vni, f"VNI {vni}")

    def _frontend(self, frontend: Frontend) -> dict[str, str]:
        found = self._pool(frontend.pool) if frontend.pool else {}
        return {**found, "frontend": frontend.key.name}

    def _of_backend(self, backend: Backend) -> dict[str, str]:
        return {
            **self._pool(backend.pool),
            "task": backend.key.task_id,
            "address": backend.address,
            "node": self._names.nodes.get(backend.vtep, backend.vtep),
        }

    def _node(self, vtep: str) -> dict[str, str]:
        name = self._names.nodes.get(vtep)
        return {"node": name, "vtep": vtep} if name else {"vtep": vtep}


def _news(before: Frontends, after: Frontends) -> Iterator[Frontend]:
    """Those that people address, new or different."""
    for key in _others(before, after):
        if after[key].kind is not FrontendKind.DIRECT and before.get(key) != after[key]:
            yield after[key]


def _others(before: Mapping[K, V], after: Mapping[K, V]) -> list[K]:
    """The keys of what is not the same object as before, in order: few of many, mostly."""
    return sorted([key for key, value in after.items() if before.get(key) is not value])


def _word(backend: Backend) -> str:
    return backend.state.name.lower()


def _places(found: frozenset[Attachment]) -> list[Attachment]:
    return sorted(found, key=lambda one: (one.role, one.netns, one.ifindex))


def _place(place: Attachment) -> dict[str, str]:
    netns = {"netns": place.netns} if place.netns else {}
    return {"role": place.role, "link": place.name, **netns}


def told(change: Change, at: float, cause: str, took_s: float | None) -> Change:
    """Return the change with when and why."""
    return msgspec.structs.replace(change, at=at, cause=cause, took_s=took_s)
