# SPDX-License-Identifier: Apache-2.0
"""Hears of the end of a task's first process from the kernel, at once.

dockerd tells it, too, but only when it has cleared up: a tenth of a second later, or more. A
descriptor of the process (pidfd_open(2)) is readable as soon as that has ended. Where the agent
does not see the processes of containers, because it has a PID namespace of its own, dockerd's
events are all there is, and the log says so.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from ebpfmesh.model import BackendState
from ebpfmesh.swarm.local import LocalContainer

log = structlog.get_logger(__name__)

PROC = Path("/proc")

_FIRST_PID_NAMESPACE = f"pid:[{0xEFFFFFFC}]"  # PROC_PID_INIT_INO in the kernel's linux/proc_ns.h


class DeathWatch:
    """Calls `died` with a task's id when its process has ended. Belongs to one event loop."""

    def __init__(self, died: Callable[[str], None], proc: Path = PROC) -> None:
        self._died = died
        self._proc = proc
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
        """The number may be another process's by now, or mean nothing here: then it is let be."""
        try:
            fd = os.pidfd_open(container.pid)
        except OSError:
            self._tell_if_blind()
            return
        if not self._is_of(container):
            os.close(fd)
            self._tell_if_blind()
            return
        self._open[container.task_id] = fd
        asyncio.get_running_loop().add_reader(fd, self._ended, container.task_id)

    def _is_of(self, container: LocalContainer) -> bool:
        """By the name of its cgroup, which has the container's id in it with every driver."""
        try:
            return container.id in (self._proc / str(container.pid) / "cgroup").read_text()
        except OSError:
            return False

    def _tell_if_blind(self) -> None:
        """Once: that a process is not seen may have another cause, but here none ever is."""
        if self._told or str((self._proc / "self/ns/pid").readlink()) == _FIRST_PID_NAMESPACE:
            return
        self._told = True
        log.info(
            "deathwatch.blind",
            cause="the agent has a PID namespace of its own",
            effect="a task that was killed is known from dockerd, a tenth of a second later",
        )

    def _ended(self, task_id: str) -> None:
        self._close(task_id)
        self._died(task_id)

    def _close(self, task_id: str) -> None:
        fd = self._open.pop(task_id)
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
