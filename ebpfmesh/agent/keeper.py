# SPDX-License-Identifier: Apache-2.0
"""Keeps the maps in step: looks at the node when told to, and reconciles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from ebpfmesh.agent.ingresswatch import IngressWatch
from ebpfmesh.agent.labelwatch import LabelWatch
from ebpfmesh.agent.reconcile import Reconciler
from ebpfmesh.agent.truth import LocalTruth
from ebpfmesh.agent.viewer import Viewer
from ebpfmesh.agent.worker import Worker
from ebpfmesh.datapath.errors import DatapathError
from ebpfmesh.desired import desired_state
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
        self._report = report
        self._trigger = asyncio.Event()
        self._containers: list[LocalContainer] = []
        self._containers_stale = True
        self._truth = LocalTruth()
        self._labels = LabelWatch()
        self._ingress = IngressWatch()

    # -- what makes it look ---------------------------------------------------------------

    def take_state(self, mesh: MeshState) -> None:
        """The Swarm's state has changed."""
        self.mesh = mesh
        self._trigger.set()

    def notice(self, event: Event) -> None:
        """dockerd has told something of a container of this node."""
        self._truth.notice(event)
        self.look_again(containers=True)

    def look_again(self, *, containers: bool = False) -> None:
        """Something has changed at the node's links or, if so said, among its containers."""
        self._containers_stale |= containers
        self._trigger.set()

    # -- the loop -------------------------------------------------------------------------

    async def run(self) -> None:
        """Reconciles at every trigger, until cancelled. Failures are kept and tried again."""
        while True:
            await self._trigger.wait()
            await asyncio.sleep(_COALESCE_S)
            self._trigger.clear()
            try:
                await self._reconcile()
            except (SwarmError, DatapathError, OutOfIds, ExceptionGroup, OSError) as error:
                self._failed(error)
                await asyncio.sleep(_RETRY_S)
                self._trigger.set()
            else:
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
        except SwarmError:
            self._containers_stale = True
            raise

    async def _look_and_sync(self) -> None:
        began = time.monotonic()
        mesh = self.mesh
        local = await self._worker(self._viewer.look, self._containers, self._truth.states)
        self.local = local
        self._labels.look(mesh)
        self._ingress.look(mesh)
        self._truth.forget(mesh.tasks.keys() | local.tasks.keys())
        self._report(local.vtep, self._reported(local))
        desired = desired_state(mesh, local)
        whole = mesh.version > 0
        steps = await self._worker(self.reconciler.sync, desired, whole=whole)
        self.timer.observe(time.monotonic() - began)
        self.synced |= whole
        if steps:
            log.info("maps.synced", steps=steps, state=mesh.version)

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
