# SPDX-License-Identifier: Apache-2.0
"""Desired states one after the other: what has not changed in between is taken over. Pure, no I/O.

Tasks that come, change and go are by far the most frequent change, and touch next to nothing of a
large Swarm. Whatever else has changed, all is made anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from typing import TypeVar

from msgspec.structs import replace

from ebpfmesh.desired import Touched, desired_state, with_tasks_of
from ebpfmesh.model import BackendKey, Desired, LocalView, MeshState

T = TypeVar("T")


class DesiredCache:
    """Gives what `desired_state` gives. It lives as long as the agent does."""

    def __init__(self) -> None:
        self.touched: Touched | None = None
        """What may be different since the result before; None: anything."""
        self._inputs: tuple[MeshState, LocalView] | None = None
        self._desired = Desired()
        self._backends: dict[str, set[BackendKey]] = {}  # by service

    def of(self, mesh: MeshState, local: LocalView) -> Desired:
        """Say what the maps shall hold: see `desired_state`."""
        services = self._touched(mesh, local)
        if services is None:
            self._desired, self.touched = desired_state(mesh, local), None
            self._backends = defaultdict(set)
            self._note(self._desired.backends)
        elif services:
            known = frozenset[BackendKey]().union(*map(self._of, services))
            last = self._desired
            self._desired, self.touched = with_tasks_of(services, last, mesh, local, known)
            for service in services:
                self._backends.pop(service, None)
            self._note(self.touched.backends & self._desired.backends.keys())
        else:
            self.touched = Touched(self._desired)
        self._inputs = mesh, local
        return self._desired

    def _of(self, service: str) -> Set[BackendKey]:
        return self._backends.get(service, frozenset())

    def _note(self, backends: Iterable[BackendKey]) -> None:
        for key in backends:
            self._backends[self._desired.backends[key].pool.service_id].add(key)

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
