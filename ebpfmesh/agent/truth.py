# SPDX-License-Identifier: Apache-2.0
"""What events have told of this node's tasks, ahead of any listing. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Collection

from ebpfmesh.model import BackendState
from ebpfmesh.swarm.events import Event, Kind

_REVIVING = frozenset({"start", "unpause"})


class LocalTruth:
    """A task's worst known state, until its container is seen to be well or is forgotten."""

    def __init__(self) -> None:
        self.states: dict[str, BackendState] = {}

    def notice(self, event: Event) -> bool:
        """Takes an event; says whether it has changed anything."""
        task = event.task_id
        if event.kind is not Kind.CONTAINER or task is None:
            return False
        healthy = event.action == "health_status" and event.detail == "healthy"
        if event.action in _REVIVING or healthy:
            return self.states.pop(task, None) is not None
        state = event.task_state
        if state is None or self.states.get(task, BackendState.READY) >= state:
            return False
        self.states[task] = state
        return True

    def died(self, task_id: str) -> bool:
        """Takes that a task's process has ended; says whether that is news."""
        if self.states.get(task_id) is BackendState.GONE:
            return False
        self.states[task_id] = BackendState.GONE
        return True

    def forget(self, listed: Collection[str]) -> None:
        """Drops what is known of tasks that neither the Swarm nor the node lists any more."""
        for task in self.states.keys() - set(listed):
            del self.states[task]
