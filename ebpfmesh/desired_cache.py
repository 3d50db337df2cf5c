# SPDX-License-Identifier: Apache-2.0
"""Desired states one after the other: what has not changed in between is taken over. Pure, no I/O.

Tasks that come, change and go are by far the most frequent change, and touch next to nothing of a
large Swarm. Whatever else has changed, all is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from msgspec.structs import replace

from ebpfmesh.desired import desired_state, with_tasks_of
from ebpfmesh.model import Desired, LocalView, MeshState

T = TypeVar("T")


class DesiredCache:
    """Gives what `desired_state` gives. It lives as long as the agent does."""

    def __init__(self) -> None:
        self._inputs: tuple[MeshState, LocalView] | None = None
        self._desired = Desired()

    def of(self, mesh: MeshState, local: LocalView) -> Desired:
        """Say what the maps shall hold: see `desired_state`."""
        services = self._touched(mesh, local)
        if services is None:
            self._desired = desired_state(mesh, local)
        elif services:
            self._desired = with_tasks_of(services, self._desired, mesh, local)
        self._inputs = mesh, local
        return self._desired

    def _touched(self, mesh: MeshState, local: LocalView) -> frozenset[str] | None:
        """Return whose tasks are others than last time; None if anything else is."""
        if self._inputs is None:
            return None
        before, seen = self._inputs
        same = (
            _but_tasks(local) == _but_tasks(seen)
            and mesh.services == before.services
            and mesh.networks == before.networks
            and mesh.nodes == before.nodes
        )
        if not same:
            return None
        changed = _differing(before.tasks, mesh.tasks) + _differing(seen.tasks, local.tasks)
        changed += local.ended ^ seen.ended
        found = (tasks.get(key) for key in changed for tasks in (before.tasks, mesh.tasks))
        return frozenset(task.service_id for task in found if task is not None)


def _but_tasks(local: LocalView) -> LocalView:
    return replace(local, tasks={}, ended=frozenset())


def _differing(before: Mapping[str, T], after: Mapping[str, T]) -> list[str]:
    """Return the ids of what is in one of these only, or differs."""
    come = [k for k, v in after.items() if (was := before.get(k)) is not v and was != v]
    return come + [k for k in before if k not in after]
