# SPDX-License-Identifier: Apache-2.0
"""Ready means it answers: which tasks of this node have started, but do not listen yet.

A container without a health check is running as soon as its process is; what it will answer on is
seen in its network namespace. Once ready, a container stays so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from ebpfmesh.datapath.listening import KernelSilent, Listener, listeners
from ebpfmesh.labels import read
from ebpfmesh.model import BackendState, EndpointMode, MeshState, Protocol, Service
from ebpfmesh.swarm.local import NO_HEALTH_CHECK, LocalContainer

log = structlog.get_logger(__name__)

# Where the kernel takes a port for a socket that asks for none (ip_local_port_range begins there,
# unless it is changed): what is there may be a question of the task's own, to a name server, say.
FIRST_EPHEMERAL = 32768

SETTLE_S = 0.2
"""A server opens its sockets one after the other: so long after the last one there are no more."""

Look = Callable[[str], frozenset[Listener]]


class Readiness:
    """Keeps the tasks that are starting. Methods that look block: call them in a thread.

    A container counts as ready `timeout_s` after its start, whatever is seen. That start is
    dockerd's word on this node's own clock; a container seen first in the future starts now.
    """

    def __init__(
        self,
        timeout_s: float,
        *,
        look: Look = listeners,
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._timeout_s = timeout_s
        self._look = look
        self._now_s = now_s
        self._wall_s = wall_s
        self._known: frozenset[str] = frozenset()
        self._deadlines: dict[tuple[str, int], float] = {}
        self._ready: set[tuple[str, int]] = set()
        self._heard: dict[tuple[str, int], tuple[frozenset[Listener], float]] = {}
        self._silent = False

    def adopt(self, task_ids: Iterable[str]) -> None:
        """Take these tasks for ready if the first look finds them: they got flows before."""
        self._known = frozenset(task_ids)

    def starting(
        self, containers: Sequence[LocalContainer], mesh: MeshState
    ) -> dict[str, BackendState]:
        """Look at those that are not ready yet; return the tasks that still are not."""
        living = {_key(container) for container in containers}
        self._ready &= living
        self._deadlines = {k: at for k, at in self._deadlines.items() if k in living}
        self._heard = {k: heard for k, heard in self._heard.items() if k in living - self._ready}
        waiting = [c for c in containers if not self._is_ready(c, mesh.services)]
        self._known = frozenset()
        return {container.task_id: BackendState.STARTING for container in waiting}

    def _is_ready(self, container: LocalContainer, services: Mapping[str, Service]) -> bool:
        key = _key(container)
        if key in self._ready or container.health != NO_HEALTH_CHECK:
            return True
        ready = container.task_id in self._known or self._is_over(container)
        if ready or self._answers(container, services.get(container.service_id)):
            self._ready.add(key)
            self._deadlines.pop(key, None)
            return True
        return False

    def _is_over(self, container: LocalContainer) -> bool:
        """Whether the time to wait for it has passed."""
        key, now_s = _key(container), self._now_s()
        first = key not in self._deadlines
        if first:
            age_s = max(0.0, self._wall_s() - container.started_s) if container.started_s else 0.0
            self._deadlines[key] = now_s + self._timeout_s - age_s
        if now_s < self._deadlines[key]:
            return False
        if not first:
            log.info("task.not_listening", task=container.task_id, ready_after_s=self._timeout_s)
        return True

    def _answers(self, container: LocalContainer, service: Service | None) -> bool:
        if self._silent:
            return True
        if service is None:
            return False
        if service.mode is not EndpointMode.VIP or not read(service.labels).policy.listening:
            return True
        try:
            found = self._look(container.sandbox) if container.sandbox else frozenset()
            return self._is_whole(_key(container), found, service)
        except KernelSilent as error:
            self._silent = True
            log.warning("task.readiness_unknown", error=str(error), effect="started means ready")
            return True
        except OSError:
            return False  # it has just gone, or is not there yet

    def _is_whole(self, key: tuple[str, int], found: frozenset[Listener], service: Service) -> bool:
        """Whether it listens on all that is published, or on something, and to no more for long."""
        now_s, listening = self._now_s(), heard(found, service)
        before, since_s = self._heard.get(key, (frozenset(), now_s))
        if listening != before:
            since_s = now_s
        self._heard[key] = (listening, since_s)
        if service.ports and listening == _published(service):
            return True
        return bool(listening) and now_s - since_s >= SETTLE_S


def heard(found: frozenset[Listener], service: Service) -> frozenset[Listener]:
    """Return those of a task's listeners that do what its service is there for.

    Where ports are published these alone count: nobody says what the others are for.
    """
    if service.ports:
        return found & _published(service)
    return frozenset(
        one for one in found if one.protocol is not Protocol.UDP or one.port < FIRST_EPHEMERAL
    )


def _published(service: Service) -> frozenset[Listener]:
    return frozenset(Listener(port.protocol, port.target) for port in service.ports)


def _key(container: LocalContainer) -> tuple[str, int]:
    """A container that was started again is another one."""
    return container.id, container.pid
