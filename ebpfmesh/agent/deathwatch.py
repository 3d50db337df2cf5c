# SPDX-License-Identifier: Apache-2.0
"""Hears of the end of a task's first process from the kernel, at once.

dockerd tells it, too, but only when it has cleared up: a tenth of a second later, or more. A
descriptor of the process (pidfd_open(2)) is readable as soon as that has ended. Where the agent
does not see the processes of containers, because it has a PID namespace of its own, their control
groups tell. Where those cannot be seen either dockerd's events are all there is, and the log says
so.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from ebpfmesh.agent import emptygroup
from ebpfmesh.model import BackendState
from ebpfmesh.swarm.local import LocalContainer

log = structlog.get_logger(__name__)

PROC = Path("/proc")

_FIRST_PID_NAMESPACE = f"pid:[{0xEFFFFFFC}]"  # PROC_PID_INIT_INO in the kernel's linux/proc_ns.h


class DeathWatch:
    """Calls `died` with a task's id when its process has ended. Belongs to one event loop."""

    def __init__(
        self, died: Callable[[str], None], proc: Path = PROC, groups: Path | None = None
    ) -> None:
        """`groups` is the root of cgroup v2, if there is one."""
        self._died = died
        self._proc = proc
        self._groups = groups
        self._open: dict[str, int] = {}
        self._told = False

    def follow(self, containers: Iterable[LocalContainer]) -> None:
        """These, and no others any more."""
        listed = {c.task_id: c for c in containers if c.pid and c.state is not BackendState.GONE}
        for task_id in self._open.keys() - listed.keys():
            self._close(task_id)
        for task_id in listed.keys() - self._open.keys():
            self._watch(listed[task_id])

    def close(self) -> None:
        """Follows none any more."""
        self.follow(())

    def _watch(self, container: LocalContainer) -> None:
        if str((self._proc / "self/ns/pid").readlink()) == _FIRST_PID_NAMESPACE:
            self._watch_process(container)
        else:
            self._watch_group(container)

    def _watch_process(self, container: LocalContainer) -> None:
        """The number may be another process's by now, or mean nothing here: then it is let be."""
        try:
            fd = os.pidfd_open(container.pid)
        except OSError:
            return
        if not self._is_of(container):
            os.close(fd)
            return
        self._open[container.task_id] = fd
        asyncio.get_running_loop().add_reader(fd, self._ended, container.task_id)

    def _watch_group(self, container: LocalContainer) -> None:
        """It may be empty by now: that is looked at when the watch stands."""
        events = emptygroup.events_file(self._groups, container.id) if self._groups else None
        if events is None:
            self._tell_that_it_is_blind()
            return
        try:
            fd = emptygroup.watch(events)
        except FileNotFoundError:
            return
        self._open[container.task_id] = fd
        loop = asyncio.get_running_loop()
        loop.add_reader(fd, self._group_changed, container.task_id, fd, events)
        loop.call_soon(self._group_changed, container.task_id, fd, events)

    def _group_changed(self, task_id: str, fd: int, events: Path) -> None:
        if self._open.get(task_id) != fd:
            return
        emptygroup.drain(fd)
        if emptygroup.is_empty(events):
            self._ended(task_id)

    def _is_of(self, container: LocalContainer) -> bool:
        """By the name of its cgroup, which has the container's id in it with every driver."""
        try:
            return container.id in (self._proc / str(container.pid) / "cgroup").read_text()
        except OSError:
            return False

    def _tell_that_it_is_blind(self) -> None:
        if self._told:
            return
        self._told = True
        log.info(
            "deathwatch.blind",
            cause="a PID namespace of its own, and no control groups of containers to be seen",
            effect="a task that was killed is known from dockerd, a tenth of a second later",
        )

    def _ended(self, task_id: str) -> None:
        self._close(task_id)
        self._died(task_id)

    def _close(self, task_id: str) -> None:
        fd = self._open.pop(task_id)
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
