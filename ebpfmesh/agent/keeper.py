# SPDX-License-Identifier: Apache-2.0
"""Keeps the maps in step: looks at the node when told to, and reconciles.

What may take long is done side by side, so that nothing else waits for it: dockerd is asked about
containers; tasks' namespaces, and the node's links, are looked at; maps are made to follow what is
known; programs are put where they belong. Each begins when there is cause, and gives cause to what
comes after it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path

import structlog
from msgspec.structs import replace

from ebpfmesh.agent.containers import Containers, Source
from ebpfmesh.agent.coverage import Coverage
from ebpfmesh.agent.deathwatch import DeathWatch
from ebpfmesh.agent.ingresswatch import IngressWatch
from ebpfmesh.agent.journal import Journal
from ebpfmesh.agent.labelwatch import LabelWatch
from ebpfmesh.agent.offers import Offers
from ebpfmesh.agent.readiness import Readiness
from ebpfmesh.agent.reconcile import Reconciler
from ebpfmesh.agent.truth import LocalTruth
from ebpfmesh.agent.viewer import Viewer
from ebpfmesh.agent.work import Work
from ebpfmesh.agent.worker import Workers
from ebpfmesh.datapath.errors import DatapathError
from ebpfmesh.desired_cache import DesiredCache
from ebpfmesh.ids import OutOfIds
from ebpfmesh.metrics import ConvergenceTimer, SyncTimer
from ebpfmesh.model import Attachment, BackendState, Desired, LocalView, MeshState
from ebpfmesh.swarm.errors import SwarmError
from ebpfmesh.swarm.events import Event
from ebpfmesh.swarm.local import LocalContainer

log = structlog.get_logger(__name__)

_RETRY_S = 1.0
# A burst of changes (a veth has several) is looked at once. What is known is followed sooner.
_COALESCE_LOOKS_S = 0.005
_COALESCE_S = 0.001
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
        swarm: Source,
        viewer: Viewer,
        reconciler: Reconciler,
        workers: Workers,
        *,
        readiness: Readiness,
        coverage: Coverage,
        offers: Offers,
        journal: Journal,
        report: ReportSink,
        seen: Iterable[str] = (),
        groups: Path | None = None,
    ) -> None:
        self.mesh = MeshState()
        self.local: LocalView | None = None
        self.synced = False
        self._errors: dict[str, str] = {}
        self.timer = SyncTimer()
        self.convergence = ConvergenceTimer()
        self.reconciler = reconciler
        self._viewer = viewer
        self._workers = workers
        self._readiness = readiness
        self.coverage = coverage
        self._offers = offers
        self.journal = journal
        self._starting: dict[str, BackendState] = {}
        self._seen = set(seen)
        self._report = report
        self._looks_at_links = Work("links", _COALESCE_LOOKS_S)
        self._looks_at_tasks = Work("tasks", _COALESCE_S)
        self._follows = Work("maps", _COALESCE_S)
        self._attaches = Work("programs")
        self._links_seen = False
        self._tasks_seen: Sequence[LocalContainer] | None = None
        self._containers = Containers(swarm, self._list_changed, self._dockerd_told)
        self._origin_ns = 0
        self._started_ns: dict[str, int] = {}
        self._attachable = Desired()
        self._attached: Set[Attachment] | None = None
        self._truth = LocalTruth()
        self._desired = DesiredCache()
        self._deaths = DeathWatch(self.died, groups=groups)
        self._labels = LabelWatch()
        self._ingress = IngressWatch()

    # -- what makes it look ---------------------------------------------------------------

    def take_state(self, mesh: MeshState) -> None:
        """The Swarm's state has changed."""
        self._tell_maps(_ending(self.mesh, mesh))
        self.journal.look_at_nodes(self.mesh, mesh)
        if self._offers.awaited(self.mesh, mesh):
            self._origin_ns = mesh.origin_ns
        self.mesh = mesh
        state = f"the Swarm's state {mesh.version}" if mesh.version else "the agent's start"
        self.convergence.began(mesh.origin_ns)
        self._because(state)

    def notice(self, event: Event) -> None:
        """dockerd has told something of a container of this node: hubs hear of it at once."""
        if event.action == "start" and event.task_id:
            self._started_ns[event.task_id] = event.time_ns
        elif event.action == "die" and event.task_id:
            self._started_ns.pop(event.task_id, None)
        of = f" of task {event.task_id}" if event.task_id else ""
        cause = f"dockerd: {event.action}{of}"
        if self._truth.notice(event) and event.task_id:
            self._tell_maps({event.task_id: self._truth.states.get(event.task_id)})
            self._happened(event.time_ns, cause)
        self._containers.look_at(event.id)
        self.look_again(cause)

    def died(self, task_id: str) -> None:
        """The kernel has told that a task of this node has ended."""
        if self._truth.died(task_id):
            cause = f"the kernel: end of task {task_id}"
            self._tell_maps({task_id: BackendState.GONE})
            self._happened(time.time_ns(), cause)
            self.look_again(cause)

    def _tell_maps(self, states: Mapping[str, BackendState | None]) -> None:
        """At once, whatever the other threads are at, and before the hubs hear of it."""
        ending = {task: s for task, s in states.items() if s and s >= BackendState.STOPPING}
        try:
            self.reconciler.tell(ending)
        except DatapathError as error:
            log.warning("maps.not_told", error=str(error))

    def _happened(self, origin_ns: int, cause: str) -> None:
        """A fact of this node is new since `origin_ns`."""
        self.convergence.began(origin_ns)
        if self.local is not None:
            self._tell_hubs(self.local, origin_ns)
        self._because(cause)

    def _because(self, cause: str) -> None:
        """Something is known now that the maps may not hold yet."""
        self._follows.because(cause)

    def look_again(self, cause: str, *, containers: bool = False) -> None:
        """Something has changed at the node's links or, if so said, among its containers."""
        if containers:
            self._containers.look()
        self._looks_at_links.because(cause)
        self._looks_at_tasks.because(cause)

    def _list_changed(self) -> None:
        cause = "dockerd: its containers"
        self._deaths.follow(self._containers.listed or ())
        self._because(cause)
        self._looks_at_tasks.because(cause)

    def _dockerd_told(self, question: str, error: SwarmError | None) -> None:
        if error is not None:
            self._failed(f"dockerd: {question}", error)
        else:
            self._succeeded(f"dockerd: {question}")

    @property
    def containers(self) -> tuple[LocalContainer, ...]:
        """The Swarm's tasks on this node, as dockerd has listed them last."""
        return self._containers.listed or ()

    # -- the loops ------------------------------------------------------------------------

    async def run(self) -> None:
        """Keeps the maps in step, until cancelled."""
        self.look_again("the agent's start")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._containers.run(), name="containers")
            group.create_task(self._watch_starting(), name="starting")
            group.create_task(self._keep(self._looks_at_links, self._look_at_links), name="looks")
            group.create_task(self._keep(self._looks_at_tasks, self._look_at_tasks), name="tasks")
            group.create_task(self._keep(self._follows, self._follow_news), name="maps")
            group.create_task(self._keep(self._attaches, self._attach), name="programs")

    async def _keep(self, work: Work, do: Callable[[], Awaitable[bool]]) -> None:
        """Does the work whenever it is due, if it can yet. Failures are kept and tried again."""
        while True:
            await work.due()
            try:
                done = await do()
            except (DatapathError, OutOfIds, ExceptionGroup, OSError) as error:
                self._failed(work.name, error)
                await asyncio.sleep(_RETRY_S)
                work.again()
                self._looks_at_links.again()
            else:
                if done:
                    work.causes.end()
                    self._succeeded(work.name)

    # -- looking --------------------------------------------------------------------------

    async def _look_at_links(self) -> bool:
        await self._workers.looks(self._viewer.look_at_links)
        self._links_seen = True
        self._view()
        self._looks_at_links.hand_on(self._follows)
        return True

    async def _look_at_tasks(self) -> bool:
        """Has to come before all else where a task begins: everybody waits for it."""
        containers = self._containers.listed
        if containers is None:
            return False
        self._starting = await self._look_at_starting(containers, self.mesh)
        await self._workers.sockets(self._viewer.look_at_tasks, containers)
        self._tasks_seen = containers
        self._view()
        self._looks_at_tasks.hand_on(self._follows)
        return True

    def _view(self) -> None:
        """The node as it was seen last; nothing before all of it has been seen once."""
        if self._tasks_seen is None or not self._links_seen:
            return
        self._look_at_cover(self._tasks_seen)
        local = self._viewer.view(self._tasks_seen, self._known)
        self._note_link(local)
        self.local = local = replace(local, ended=self._ended(local))
        self._forget(self.mesh.tasks.keys() | local.tasks.keys())
        self._note_starts(local)

    # -- following ------------------------------------------------------------------------

    async def _follow_news(self) -> bool:
        """Has the maps follow what is known."""
        if self.local is None:
            return False
        self.local = self._with_news(self.local, self._containers.listed or ())
        await self._follow(self.local)
        self._follows.hand_on(self._attaches)
        return True

    async def _attach(self) -> bool:
        """Puts programs where they belong, once the maps are ready for them."""
        mesh, desired = self.mesh, self._attachable
        whole = mesh.version > 0
        if desired.attachments is not self._attached:
            try:
                await self._workers.links(self.reconciler.attach, desired, whole=whole)
            finally:
                self.journal.look_at_links(self.reconciler.actual, mesh, self._attaches.causes)
                self._look_at_cover(self._tasks_seen or ())
            self._attached = desired.attachments
        self.synced |= whole
        return True

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
        desired = self._desired.of(mesh, local)
        whole, touched = mesh.version > 0, self._desired.touched
        try:
            sync = self.reconciler.sync
            steps = await self._workers.maps(sync, desired, whole=whole, touched=touched)
        finally:
            self._look_at_served(mesh, local, desired)
            self.journal.look_at_maps(self.reconciler.actual, mesh, self._follows.causes)
        self._attachable = desired
        return steps

    def _look_at_served(self, mesh: MeshState, local: LocalView, desired: Desired) -> None:
        """Whom the maps serve now, others may send packets to."""
        held = self.reconciler.actual.backends
        if self._offers.look(mesh, local, desired.backends, held) and self.local is not None:
            self._tell(self.local)

    def _with_news(self, local: LocalView, containers: Sequence[LocalContainer]) -> LocalView:
        """The node as it was seen last, but for what has been told of its tasks since."""
        self._look_at_cover([one for one in containers if one.task_id in local.tasks])
        listed = {container.task_id: container.state for container in containers}
        known = self._known
        tasks = {}
        for key, task in local.tasks.items():
            state = max(listed.get(key, task.state), known.get(key, BackendState.READY))
            tasks[key] = task if state is task.state else replace(task, state=state)
        self._tell(local := replace(local, tasks=tasks))
        return local

    def _note_link(self, local: LocalView) -> None:
        was_up = self.local.link_up if self.local else True
        if local.link_up is not was_up:
            self.journal.link(local.device, up=local.link_up)

    def _ended(self, local: LocalView) -> frozenset[str]:
        """The tasks that were here once; one that was not may be about to begin."""
        self._seen |= local.tasks.keys()
        told = {t for t, state in self._truth.states.items() if state is BackendState.GONE}
        return frozenset((self._seen | told) - local.tasks.keys())

    def _forget(self, listed: Set[str]) -> None:
        self._truth.forget(listed)
        self._seen &= listed

    def _tell(self, local: LocalView) -> None:
        """What is held back is told later, with the time at which it came to be."""
        self._tell_hubs(local, self._origin_ns)
        if not self._offers.held_back:
            self._origin_ns = 0

    def _tell_hubs(self, local: LocalView, origin_ns: int) -> None:
        self._report(local.vtep, self._offers.told(self._reported(local)), origin_ns)

    def _note_starts(self, local: LocalView) -> None:
        """Tasks that are seen for the first time have been there since they were started."""
        seen = [self._started_ns.pop(task) for task in local.tasks.keys() & self._started_ns.keys()]
        for started_ns in seen:
            self.convergence.began(started_ns)
        self._origin_ns = self._origin_ns or min(seen, default=0)

    async def _look_at_starting(
        self, containers: Sequence[LocalContainer], mesh: MeshState
    ) -> dict[str, BackendState]:
        return await self._workers.sockets(self._readiness.starting, containers, mesh)

    async def _watch_starting(self) -> None:
        """Looks again as soon as one of the tasks that are starting is ready."""
        took_s, last_ns = 0.0, 0
        while True:
            await asyncio.sleep(max(_STARTING_POLL_S, _STARTING_REST * took_s))
            if self.coverage.waiting:
                self._look_at_cover(self._tasks_seen or ())
            if not self._starting or self._containers.listed is None:
                last_ns = 0
                continue
            began, began_ns = time.monotonic(), time.time_ns()
            found = await self._look_at_starting(self._containers.listed, self.mesh)
            took_s = time.monotonic() - began
            if found.keys() != self._starting.keys():
                self._starting = found
                # It was not ready yet at the look before.
                self.convergence.began(last_ns or began_ns)
                self._origin_ns = last_ns or began_ns
                self._because("a task that was starting")
            last_ns = began_ns

    def _look_at_cover(self, containers: Iterable[LocalContainer]) -> None:
        """No task gets flows before its links have programs, unless that takes too long."""
        since_ns = self.coverage.look(
            [
                c
                for c in containers
                if c.state is BackendState.READY and c.task_id not in self._starting
            ],
            self._viewer.sandbox,
            self.mesh.networks,
            self.reconciler.attached,
        )
        if since_ns:
            self.convergence.began(since_ns)
            self._origin_ns = self._origin_ns or since_ns
            self._because("programs at the links of a task")

    @property
    def _known(self) -> dict[str, BackendState]:
        """What is known of this node's tasks ahead of dockerd, or beyond it."""
        return self._starting | self.coverage.waiting | self._truth.states

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
        known = text in self._errors.values()
        self._errors[what] = text
        if not known:
            log.error("sync.failed", error=text)

    def _succeeded(self, what: str) -> None:
        if self._errors.pop(what, None) is not None and not self._errors:
            log.info("sync.recovered")

    @property
    def error(self) -> str:
        """What keeps the maps from following; empty if nothing does."""
        return "; ".join(dict.fromkeys(self._errors.values()))


def _ending(before: MeshState, after: MeshState) -> dict[str, BackendState]:
    """The tasks that have been told to stop since, or have ended."""
    return {
        key: task.state
        for key, task in after.tasks.items()
        if task.state >= BackendState.STOPPING and before.tasks.get(key) is not task
    }
