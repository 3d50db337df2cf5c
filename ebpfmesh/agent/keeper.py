# SPDX-License-Identifier: Apache-2.0
"""Keeps the maps in step: looks at the node when told to, and reconciles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from ebpfmesh.agent.deathwatch import DeathWatch
from ebpfmesh.agent.ingresswatch import IngressWatch
from ebpfmesh.agent.journal import Journal
from ebpfmesh.agent.labelwatch import LabelWatch
from ebpfmesh.agent.readiness import Readiness
from ebpfmesh.agent.reconcile import Reconciler
from ebpfmesh.agent.truth import LocalTruth
from ebpfmesh.agent.viewer import Viewer
from ebpfmesh.agent.worker import Worker
from ebpfmesh.datapath.errors import DatapathError
from ebpfmesh.desired_cache import DesiredCache
from ebpfmesh.ids import OutOfIds
from ebpfmesh.metrics import SyncTimer
from ebpfmesh.model import BackendState, LocalView, MeshState
from ebpfmesh.swarm.client import SwarmClient
from ebpfmesh.swarm.errors import SwarmError
from ebpfmesh.swarm.events import Event
from ebpfmesh.swarm.local import LocalContainer

log = structlog.get_logger(__name__)

_RETRY_S = 1.0
# A burst of changes (a veth has several) is looked at once.
_COALESCE_S = 0.005
# How often a task that is starting is looked at; a look takes less than a millisecond.
_STARTING_POLL_S = 0.01
_STARTING_REST = 4  # ... and the looks take no more than a fifth of the time, however many

ReportSink = Callable[[str, dict[str, BackendState]], None]


class Keeper:
    """Level-triggered: whatever happens only says "look again".

    `report` takes the node's own facts, for the hubs.
    """

    def __init__(
        self,
        swarm: SwarmClient,
        viewer: Viewer,
        reconciler: Reconciler,
        worker: Worker,
        *,
        readiness: Readiness,
        journal: Journal,
        report: ReportSink,
    ) -> None:
        self.mesh = MeshState()
        self.local: LocalView | None = None
        self.synced = False
        self.error = ""
        self.timer = SyncTimer()
        self.reconciler = reconciler
        self._swarm = swarm
        self._viewer = viewer
        self._worker = worker
        self._readiness = readiness
        self.journal = journal
        self._starting: dict[str, BackendState] = {}
        self._report = report
        self._trigger = asyncio.Event()
        self._containers: list[LocalContainer] = []
        self._containers_stale = True
        self._truth = LocalTruth()
        self._desired = DesiredCache()
        self._deaths = DeathWatch(self.died)
        self._labels = LabelWatch()
        self._ingress = IngressWatch()

    # -- what makes it look ---------------------------------------------------------------

    def take_state(self, mesh: MeshState) -> None:
        """The Swarm's state has changed."""
        self.mesh = mesh
        self.journal.because(f"the Swarm's state {mesh.version}")
        self._trigger.set()

    def notice(self, event: Event) -> None:
        """dockerd has told something of a container of this node."""
        self._truth.notice(event)
        of = f" of task {event.task_id}" if event.task_id else ""
        self.look_again(f"dockerd: {event.action}{of}", containers=True)

    def died(self, task_id: str) -> None:
        """The kernel has told that a task of this node has ended."""
        if self._truth.died(task_id):
            self.look_again(f"the kernel: end of task {task_id}")

    def look_again(self, cause: str, *, containers: bool = False) -> None:
        """Something has changed at the node's links or, if so said, among its containers."""
        self.journal.because(cause)
        self._containers_stale |= containers
        self._trigger.set()

    # -- the loop -------------------------------------------------------------------------

    async def run(self) -> None:
        """Reconciles at every trigger, until cancelled. Failures are kept and tried again."""
        while True:
            await self._trigger.wait()
            await asyncio.sleep(_COALESCE_S)
            self._trigger.clear()
            self.journal.begin()
            try:
                await self._reconcile()
            except (SwarmError, DatapathError, OutOfIds, ExceptionGroup, OSError) as error:
                self._failed(error)
                await asyncio.sleep(_RETRY_S)
                self._trigger.set()
            else:
                self.journal.end()
                self._succeeded()

    async def _reconcile(self) -> None:
        """What events have told is acted on at once, before dockerd is asked for more."""
        if self.local is not None:
            await self._look_and_sync()
        if self._containers_stale:
            await self._list_containers()
            await self._look_and_sync()

    async def _list_containers(self) -> None:
        self._containers_stale = False
        try:
            self._containers = await self._swarm.local_tasks()
            self._deaths.follow(self._containers)
        except SwarmError:
            self._containers_stale = True
            raise

    async def _look_and_sync(self) -> None:
        began = time.monotonic()
        mesh = self.mesh
        self._starting = await self._look_at_starting(mesh)
        known = self._starting | self._truth.states
        local = await self._worker(self._viewer.look, self._containers, known)
        self.local = local
        self._labels.look(mesh)
        self._ingress.look(mesh)
        self._truth.forget(mesh.tasks.keys() | local.tasks.keys())
        self._report(local.vtep, self._reported(local))
        desired = self._desired.of(mesh, local)
        whole = mesh.version > 0
        try:
            steps = await self._worker(self.reconciler.sync, desired, whole=whole)
        finally:
            self.journal.look(self.reconciler.actual, mesh)
        self.timer.observe(time.monotonic() - began)
        self.synced |= whole
        if steps:
            log.info("maps.synced", steps=steps, state=mesh.version)

    async def _look_at_starting(self, mesh: MeshState) -> dict[str, BackendState]:
        return await self._worker(self._readiness.starting, self._containers, mesh)

    async def watch_starting(self) -> None:
        """Look again as soon as one of the tasks that are starting is ready, until cancelled."""
        took_s = 0.0
        while True:
            await asyncio.sleep(max(_STARTING_POLL_S, _STARTING_REST * took_s))
            if not self._starting:
                continue
            began = time.monotonic()
            found = await self._look_at_starting(self.mesh)
            took_s = time.monotonic() - began
            if found != self._starting:
                self._starting = found
                self.look_again("a task that was starting")

    def _reported(self, local: LocalView) -> dict[str, BackendState]:
        """The states of this node's tasks, those that have ended included."""
        return self._truth.states | {task.id: task.state for task in local.tasks.values()}

    def _failed(self, error: Exception) -> None:
        self.timer.failed()
        causes = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
        text = "; ".join(str(cause) for cause in causes)
        if text != self.error:
            self.error = text
            log.error("sync.failed", error=text)

    def _succeeded(self) -> None:
        if self.error:
            self.error = ""
            log.info("sync.recovered")
