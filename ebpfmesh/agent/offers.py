# SPDX-License-Identifier: Apache-2.0
"""Which tasks of this node others are told are ready: those that its maps hold. Pure, no I/O.

Others send packets as soon as they hear of it. While this node's maps are behind, its programs know
of no such backend, and what comes for it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ebpfmesh.model import Backend, BackendKey, BackendState, LocalView, MeshState


class Offers:
    """A task that is ready counts as one that is starting until the maps serve it.

    Once served, a task stays so until something worse is known of it. Where no map shall hold
    anything of it, because nothing is balanced to it, a task is served as soon as that is known.
    """

    def __init__(self, adopted: Iterable[str] = ()) -> None:
        """`adopted`: the tasks that the maps of an earlier agent give new flows to."""
        self.held_back: frozenset[str] = frozenset()
        """Those that others have last been told are starting, though they are ready."""
        self._served = frozenset(adopted)

    def told(self, states: Mapping[str, BackendState]) -> dict[str, BackendState]:
        """Return what others are told of this node's tasks; `states` is all that it knows."""
        ready = frozenset(task for task, state in states.items() if state is BackendState.READY)
        self._served &= ready
        self.held_back = ready - self._served
        return {**states, **dict.fromkeys(self.held_back, BackendState.STARTING)}

    def look(
        self,
        mesh: MeshState,
        local: LocalView,
        wanted: Mapping[BackendKey, Backend],
        held: Mapping[BackendKey, Backend],
    ) -> bool:
        """Look at what the maps hold, and should hold because of `mesh` and `local`.

        Whether all else could be written does not matter. Tells whether more tasks are served.
        """
        ready = {key for key, task in local.tasks.items() if task.state is BackendState.READY}
        found = {key for key in ready - self._served if _is_served(key, mesh, wanted, held)}
        self._served |= found
        return bool(found)

    def awaited(self, before: MeshState, after: MeshState) -> bool:
        """Tell whether a task that is held back is in the Swarm's state now, and was not before."""
        return any(key in after.tasks and key not in before.tasks for key in self.held_back)


def _is_served(
    task_id: str,
    mesh: MeshState,
    wanted: Mapping[BackendKey, Backend],
    held: Mapping[BackendKey, Backend],
) -> bool:
    """Tell whether the maps hold all that they shall of a task.

    What that is nobody can tell before the Swarm has listed the task and its service.
    """
    task = mesh.tasks.get(task_id)
    if task is None or task.service_id not in mesh.services:
        return False
    networks = (mesh.networks[key].vni for key in task.addresses if key in mesh.networks)
    keys = {BackendKey(task_id, vni) for vni in networks}
    return all(wanted[key] == held.get(key) for key in keys & wanted.keys())
