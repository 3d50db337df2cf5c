# SPDX-License-Identifier: Apache-2.0
"""The difference of two mesh states, and its application. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from msgspec.structs import replace

from ebpfmesh.hub.errors import BaseMismatch
from ebpfmesh.hub.protocol import Delta, Full
from ebpfmesh.model import MeshState

V = TypeVar("V")


def diff(old: MeshState, new: MeshState) -> Delta:
    """What turns `old` into `new`."""
    return Delta(
        base=old.version,
        version=new.version,
        nodes=_changed(old.nodes, new.nodes),
        networks=_changed(old.networks, new.networks),
        services=_changed(old.services, new.services),
        tasks=_changed(old.tasks, new.tasks),
        gone_nodes=_gone(old.nodes, new.nodes),
        gone_networks=_gone(old.networks, new.networks),
        gone_services=_gone(old.services, new.services),
        gone_tasks=_gone(old.tasks, new.tasks),
        origin_ns=new.origin_ns,
    )


def apply(state: MeshState, delta: Delta) -> MeshState:
    """Give the state after `delta`; `BaseMismatch` if it starts from another one."""
    if state.version != delta.base:
        raise BaseMismatch(f"a delta from version {delta.base} does not fit {state.version}")
    return MeshState(
        version=delta.version,
        nodes=_applied(state.nodes, delta.nodes, delta.gone_nodes),
        networks=_applied(state.networks, delta.networks, delta.gone_networks),
        services=_applied(state.services, delta.services, delta.gone_services),
        tasks=_applied(state.tasks, delta.tasks, delta.gone_tasks),
        origin_ns=delta.origin_ns,
    )


def update(base: MeshState | None, target: MeshState) -> Full | Delta:
    """The shorter way to `target`: the whole state if most of it changed.

    To who had none it is no change that happened just then.
    """
    if base is None:
        return Full(replace(target, origin_ns=0))
    delta = diff(base, target)
    return delta if delta.changes <= _size(target) // 2 + 1 else Full(target)


def _size(state: MeshState) -> int:
    return len(state.nodes) + len(state.networks) + len(state.services) + len(state.tasks)


def _changed(old: Mapping[str, V], new: Mapping[str, V]) -> dict[str, V]:
    return {key: v for key, v in new.items() if (was := old.get(key)) is not v and was != v}


def _gone(old: Mapping[str, V], new: Mapping[str, V]) -> tuple[str, ...]:
    return tuple(key for key in old if key not in new)


def _applied(old: dict[str, V], changed: Mapping[str, V], gone: tuple[str, ...]) -> dict[str, V]:
    """Return the very same mapping where nothing has changed: who compares need not look inside."""
    if not changed and not gone:
        return old
    after = dict(old)
    for key in gone:
        after.pop(key, None)
    after.update(changed)
    return after
