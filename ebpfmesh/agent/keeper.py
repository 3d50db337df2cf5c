# SPDX-License-Identifier: Apache-2.0
"""Keeps the maps in step: looks at the node when told to, and reconciles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Set

import structlog
from msgspec.structs import replace

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
from ebpfmesh.metrics import ConvergenceTimer, SyncTimer
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

ReportSink = Callable[[str, dict[str, BackendState], int], None]


class Keeper:
    """Level-triggered: whatever happens only says "look again".

    `report` takes the node's own facts, for the hubs, and when the last of them came to be. `seen`
    are the tasks that an earlier agent knew: those of them that are not here any more have ended.
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
        seen: Iterable[str] = (),
    ) -> None:
        self.mesh = MeshState()
        self.local: LocalView | None = None
        self.synced = False
        self._errors: dict[str, str] = {}
        self.timer = SyncTimer()
        self.convergence = ConvergenceTimer()
        self.reconciler = reconciler
        self._swarm = swarm
        self._viewer = viewer
        self._worker = worker
        self._readiness = readiness
        self.journal = journal
        self._starting: dict[str, BackendState] = {}
        self._seen = set(seen)
        self._report = report
        self._trigger = asyncio.Event()
        self._containers: list[LocalContainer] | None = None
        self._containers_stale = asyncio.Event()
        self._containers_stale.set()
        self._local_stale = True
        self._origin_ns = 0
        self._started_ns: dict[str, int] = {}
        self._truth = LocalTruth()
        self._desired = DesiredCache()
        self._deaths = DeathWatch(self.died)
        self._labels = LabelWatch()
        self._ingress = IngressWatch()

    # -- what makes it look ---------------------------------------------------------------

    def take_state(self, mesh: MeshState) -> None:
        """The Swarm's state has changed."""
        self.mesh = mesh
        state = f"the Swarm's state {mesh.version}" if mesh.version else "the agent's start"
        self.journal.because(state)
        self.convergence.began(mesh.origin_ns)
        self._trigger.set()

    def notice(self, event: Event) -> None:
        """dockerd has told something of a container of this node: hubs hear of it at once."""
        if event.action == "start" and event.task_id:
            self._started_ns[event.task_id] = event.time_ns
        elif event.action == "die" and event.task_id:
            self._started_ns.pop(event.task_id, None)
        if self._truth.notice(event):
            self._happened(event.time_ns)
        of = f" of task {event.task_id}" if event.task_id else ""
        self.look_again(f"dockerd: {event.action}{of}", containers=True)

    def died(self, task_id: str) -> None:
        """The kernel has told that a task of this node has ended."""
        if self._truth.died(task_id):
            self._happened(time.time_ns())
            self.look_again(f"the kernel: end of task {task_id}")

    def _happened(self, origin_ns: int) -> None:
        """A fact of this node is new since `origin_ns`."""
        self.convergence.began(origin_ns)
        if self.local is not None:
            self._report(self.local.vtep, self._reported(self.local), origin_ns)

    def look_again(self, cause: str, *, containers: bool = False) -> None:
        """Something has changed at the node's links or, if so said, among its containers."""
        self.journal.because(cause)
        if containers:
            self._containers_stale.set()
        self._look_at_node()

    def _look_at_node(self) -> None:
        self._local_stale = True
        self._trigger.set()

    # -- the loops ------------------------------------------------------------------------

    async def run(self) -> None:
        """Keeps the maps in step, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_containers(), name="containers")
            group.create_task(self._watch_starting(), name="starting")
            group.create_task(self._keep_in_step(), name="sync")

    async def _keep_containers(self) -> None:
        """Lists the containers when they may have changed; nothing else waits for that."""
        while True:
            await self._containers_stale.wait()
            self._containers_stale.clear()
            try:
                self._containers = await self._swarm.local_tasks()
                self._deaths.follow(self._containers)
            except SwarmError as error:
                self._failed("containers", error)
                await asyncio.sleep(_RETRY_S)
                self._containers_stale.set()
            else:
                self._succeeded("containers")
                self._look_at_node()

    async def _keep_in_step(self) -> None:
        """Reconciles at every trigger. Failures are kept and tried again."""
        while True:
            await self._trigger.wait()
            await asyncio.sleep(_COALESCE_S)
            self._trigger.clear()
            if self._containers is None:
                continue
            self.journal.begin()
            try:
                await self._look_and_sync(self._containers)
            except (DatapathError, OutOfIds, ExceptionGroup, OSError) as error:
                self._failed("maps", error)
                await asyncio.sleep(_RETRY_S)
                self._look_at_node()
            else:
                self.journal.end()
                self._succeeded("maps")

    async def _look_and_sync(self, containers: list[LocalContainer]) -> None:
        """First what is known already; then what a look at the node brings: that takes longer."""
        if self.local is not None:
            self.local = self._with_news(self.local, containers)
            await self._follow(self.local)
        if self.local is None or self._local_stale:
            await self._follow(await self._look(containers))

    async def _follow(self, local: LocalView) -> None:
        began = time.monotonic()
        origins = self.convergence.take()
        try:
            steps = await self._sync(self.mesh, local)
        except BaseException:
            self.convergence.put_back(origins)
            raise
        self.timer.observe(time.monotonic() - began)
        if steps:
            took_ms = self.convergence.observe(origins, time.time_ns())
            log.info("maps.synced", steps=steps, state=self.mesh.version, after_ms=took_ms)

    async def _sync(self, mesh: MeshState, local: LocalView) -> int:
        self._labels.look(mesh)
        self._ingress.look(mesh)
        whole = mesh.version > 0
        desired = self._desired.of(mesh, local)
        try:
            steps = await self._worker(self.reconciler.sync, desired, whole=whole)
        finally:
            self.journal.look(self.reconciler.actual, mesh)
        self.synced |= whole
        return steps

    def _with_news(self, local: LocalView, containers: list[LocalContainer]) -> LocalView:
        """The node as it was seen last, but for what has been told of its tasks since."""
        listed = {container.task_id: container.state for container in containers}
        known = self._starting | self._truth.states
        tasks = {}
        for key, task in local.tasks.items():
            state = max(listed.get(key, task.state), known.get(key, BackendState.READY))
            tasks[key] = task if state is task.state else replace(task, state=state)
        self._tell(local := replace(local, tasks=tasks))
        return local

    async def _look(self, containers: list[LocalContainer]) -> LocalView:
        """The node as it is."""
        self._local_stale = False
        mesh = self.mesh
        try:
            self._starting = await self._look_at_starting(containers, mesh)
            known = self._starting | self._truth.states
            local = await self._worker(self._viewer.look, containers, known)
        except BaseException:
            self._local_stale = True
            raise
        self.local = local = replace(local, ended=self._ended(local))
        self._forget(mesh.tasks.keys() | local.tasks.keys())
        self._note_starts(local)
        self._tell(local)
        return local

    def _ended(self, local: LocalView) -> frozenset[str]:
        """The tasks that were here once; one that was not may be about to begin."""
        self._seen |= local.tasks.keys()
        told = {t for t, state in self._truth.states.items() if state is BackendState.GONE}
        return frozenset((self._seen | told) - local.tasks.keys())

    def _forget(self, listed: Set[str]) -> None:
        self._truth.forget(listed)
        self._seen &= listed

    def _tell(self, local: LocalView) -> None:
        self._report(local.vtep, self._reported(local), self._origin_ns)
        self._origin_ns = 0

    def _note_starts(self, local: LocalView) -> None:
        """Tasks that are seen for the first time have been there since they were started."""
        seen = [self._started_ns.pop(task) for task in local.tasks.keys() & self._started_ns.keys()]
        for started_ns in seen:
            self.convergence.began(started_ns)
        self._origin_ns = self._origin_ns or min(seen, default=0)

    async def _look_at_starting(
        self, containers: list[LocalContainer], mesh: MeshState
    ) -> dict[str, BackendState]:
        return await self._worker(self._readiness.starting, containers, mesh)

    async def _watch_starting(self) -> None:
        """Looks again as soon as one of the tasks that are starting is ready."""
        took_s, last_ns = 0.0, 0
        while True:
            await asyncio.sleep(max(_STARTING_POLL_S, _STARTING_REST * took_s))
            if not self._starting or self._containers is None:
                last_ns = 0
                continue
            began, began_ns = time.monotonic(), time.time_ns()
            found = await self._look_at_starting(self._containers, self.mesh)
            took_s = time.monotonic() - began
            if found.keys() != self._starting.keys():
                self._starting = found
                # It was not ready yet at the look before.
                self.convergence.began(last_ns or began_ns)
                self._origin_ns = last_ns or began_ns
                self.look_again("a task that was starting")
            last_ns = began_ns

    def _reported(self, local: LocalView) -> dict[str, BackendState]:
        """The states of this node's tasks, those that have ended included."""
        seen = {task.id: task.state for task in local.tasks.values()}
        told = self._truth.states
        return {
            task: max(seen.get(task, BackendState.READY), told.get(task, BackendState.READY))
            for task in seen.keys() | told.keys()
        }

    def _failed(self, what: str, error: Exception) -> None:
        self.timer.failed()
        causes = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
        text = "; ".join(str(cause) for cause in causes)
        if text != self._errors.get(what):
            self._errors[what] = text
            log.error("sync.failed", error=text)

    def _succeeded(self, what: str) -> None:
        if self._errors.pop(what, None) is not None and not self._errors:
            log.info("sync.recovered")

    @property
    def error(self) -> str:
        """What keeps the maps from following; empty if nothing does."""
        return "; ".join(self._errors.values())
