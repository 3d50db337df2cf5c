# SPDX-License-Identifier: Apache-2.0
"""On managers: keeps one mesh state fresh, at the pace at which the Swarm changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from enum import IntEnum
from typing import Protocol

import msgspec
import structlog
from msgspec.structs import replace

from ebpfmesh.latest import Latest
from ebpfmesh.model import BackendState, MeshState
from ebpfmesh.swarm.api import TaskDoc
from ebpfmesh.swarm.errors import SwarmError
from ebpfmesh.swarm.events import Event, Resync
from ebpfmesh.swarm.mesh import (
    Heard,
    NodeReport,
    Snapshot,
    changed_ns,
    next_state,
    running,
    updating,
    with_tasks,
)

POLL_REST = 10
BRISK_REST = 4
"""A poll is followed by a rest of this many times its own duration, so that polling never
takes more than a small part of a busy manager."""

log = structlog.get_logger(__name__)


class SnapshotSource(Protocol):
    """The part of `SwarmClient` that the watcher needs."""

    async def tasks(self) -> list[TaskDoc]:
        """List the tasks."""
        ...

    async def complete(self, tasks: list[TaskDoc]) -> Snapshot:
        """List everything else."""
        ...


class WatcherSettings(msgspec.Struct, frozen=True):
    """How often to look. `full_interval_s` is the net under a lost event.

    While the Swarm is changing (an event or a change was less than `brisk_for_s` ago, or a service
    is being updated) the tasks are looked at every `brisk_poll_interval_s`: one that is to leave
    does so without an event, and 2 s later it is told to.

    A task that no node vouches for is ready `ready_timeout_s` after it was first seen to run.
    """

    task_poll_interval_s: float = 0.5
    brisk_poll_interval_s: float = 0.01
    brisk_for_s: float = 5.0
    full_interval_s: float = 10.0
    min_gap_s: float = 0.01
    ready_timeout_s: float = 10.0
    first_retry_s: float = 0.1
    longest_retry_s: float = 5.0


class FreshTasks:
    """When this hub has first seen each task run, by its own clock. Pure, but for the clock.

    What ran before the first look is not fresh: a hub that starts takes no task out.
    """

    def __init__(self, timeout_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._now_s = now_s
        self._until_s: dict[str, float] | None = None

    def among(self, running: Collection[str]) -> frozenset[str]:
        """Return those that have begun to run less than the timeout ago."""
        now_s = self._now_s()
        if self._until_s is None:
            self._until_s = dict.fromkeys(running, now_s)
        known, until_s = self._until_s, now_s + self._timeout_s
        self._until_s = {task: known.get(task, until_s) for task in running}
        return frozenset(task for task, at in self._until_s.items() if now_s < at)


class Look(IntEnum):
    """How much to read."""

    TASKS = 1
    ALL = 2


class MeshWatcher:
    """Turns triggers into refreshes, and refreshes into mesh states.

    Triggers coalesce: whatever arrives during a refresh causes exactly one more. A failed
    refresh leaves the state as it is.
    """

    def __init__(self, source: SnapshotSource, settings: WatcherSettings | None = None) -> None:
        self.states: Latest[MeshState] = Latest(MeshState())
        self._source = source
        self._settings = settings or WatcherSettings()
        self._snapshot: Snapshot | None = None
        self._published: Snapshot | None = None
        self._complete: list[TaskDoc] | None = None
        self._reports: dict[str, NodeReport] = {}
        self._heard = Heard()
        self._fresh = FreshTasks(self._settings.ready_timeout_s)
        self._wanted: Look | None = Look.ALL
        self._trigger = asyncio.Event()
        self._trigger.set()
        self._failure: str | None = None
        self._retry_s = self._settings.first_retry_s
        self._poll_took_s = 0.0
        self._brisk_until_s = 0.0
        self._refreshed_at: float | None = None
        self._completed_at: float | None = None

    @property
    def state(self) -> MeshState:
        """The newest state; version 0 before the first refresh."""
        return self.states.value

    def age_s(self) -> float:
        """Seconds since the Swarm API last confirmed the state; infinite while it does not answer.

        So agents go to another manager's hub at once, not when the state has become old.
        """
        if self._refreshed_at is None or self._failure is not None:
            return float("inf")
        return time.monotonic() - self._refreshed_at

    # --- triggers -----------------------------------------------------------------------

    def notice(self, event: Event | Resync) -> None:
        """Look again because of an event; of any container event the tasks may know more."""
        if isinstance(event, Resync) or event.scope == "swarm":
            self._be_brisk()
            self.look(Look.ALL)
        elif event.task_id is not None:
            self._be_brisk()
            self.look(Look.TASKS)

    def report(
        self, node_id: str, vtep: str, tasks: dict[str, BackendState], origin_ns: int = 0
    ) -> None:
        """Take a node's own word; it counts at once, without asking the Swarm API."""
        report = NodeReport(vtep=vtep, tasks=tasks)
        if self._reports.get(node_id) == report:
            return
        self._reports[node_id] = report
        self._publish(lambda: origin_ns)
        self._be_brisk()
        self.look(Look.TASKS)

    def hear(self, silent: Mapping[str, int], there: Collection[str]) -> None:
        """Take which nodes the hub does not hear, since when (ns since 1970), and which it does."""
        self._heard = Heard(dict(silent), frozenset(there))
        self._publish(time.time_ns)

    def _be_brisk(self) -> None:
        """What has begun to change goes on changing, mostly."""
        self._brisk_until_s = time.monotonic() + self._settings.brisk_for_s

    def look(self, what: Look = Look.ALL) -> None:
        """Ask for a refresh, now or right after the one under way."""
        self._wanted = max(what, self._wanted or what)
        self._trigger.set()

    # --- the loop -----------------------------------------------------------------------

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self._due()
            await self._refresh()
            await asyncio.sleep(self._settings.min_gap_s)

    async def _due(self) -> None:
        """Return at a trigger, or when it is time to poll."""
        if self._failure is not None:
            await asyncio.sleep(self._retry_s)
            return
        try:
            async with asyncio.timeout(self._pause_s()):
                await self._trigger.wait()
        except TimeoutError:
            self.look(Look.TASKS)

    def _pause_s(self) -> float:
        """How long to rest after the gap that there is between any two refreshes."""
        settings, took_s = self._settings, self._poll_took_s
        services = self._snapshot.services if self._snapshot else []
        if time.monotonic() < self._brisk_until_s or updating(services):
            brisk_s = max(settings.brisk_poll_interval_s, BRISK_REST * took_s)
            rest_s = min(brisk_s, settings.task_poll_interval_s)
        else:
            rest_s = max(settings.task_poll_interval_s, POLL_REST * took_s)
        return rest_s - settings.min_gap_s

    async def _refresh(self) -> None:
        self._trigger.clear()
        wanted, self._wanted = self._wanted, None
        began = time.monotonic()
        try:
            await self._read(wanted or Look.TASKS)
        except SwarmError as error:
            self._failed(error, wanted)
        else:
            self._refreshed_at = began
            self._succeeded()
            self._publish(self._listed_ns)

    async def _read(self, wanted: Look) -> None:
        """Replace the snapshot by a newer whole one, if there is anything new to read.

        What has become of the tasks that are known counts before the rest is read.
        """
        began = time.monotonic()
        tasks = await self._source.tasks()
        self._poll_took_s = time.monotonic() - began
        old = self._snapshot
        if old is not None:
            if wanted < Look.ALL and tasks == self._complete and not self._overdue():
                return
            self._snapshot = with_tasks(old, tasks)
            self._publish(self._listed_ns)
        began = time.monotonic()
        self._snapshot, self._complete = await self._everything(tasks), tasks
        self._completed_at = began

    async def _everything(self, tasks: list[TaskDoc]) -> Snapshot:
        """Read the rest; as dockerd may take its time for that, tasks are looked at meanwhile."""
        if self._snapshot is None:
            return await self._source.complete(tasks)
        newest, reading = tasks, asyncio.ensure_future(self._source.complete(tasks))
        try:
            while True:
                rest_s = self._settings.min_gap_s + self._pause_s()
                done, _ = await asyncio.wait([reading], timeout=rest_s)
                if done:
                    return with_tasks(reading.result(), newest)
                newest = await self._source.tasks()
                self._snapshot = with_tasks(self._snapshot, newest)
                self._publish(self._listed_ns)
        finally:
            reading.cancel()

    def _overdue(self) -> bool:
        """Whether everything has to be read again, event or none."""
        if self._completed_at is None:
            return True
        return time.monotonic() - self._completed_at >= self._settings.full_interval_s

    def _listed_ns(self) -> int:
        """When what is listed now, and was not at the last state, has changed."""
        return changed_ns(self._published, self._snapshot) if self._snapshot else 0

    def _publish(self, origin_ns: Callable[[], int]) -> None:
        """Make the state anew from what is known; subscribers hear only of changes."""
        if self._snapshot is None:
            return
        self._forget_reports()
        fresh = self._fresh.among(running(self._snapshot.tasks))
        state = next_state(self.state, self._snapshot, self._reports, fresh, self._heard)
        if state is not self.state:
            self._be_brisk()
            self.states.set(replace(state, origin_ns=origin_ns()))
        self._published = self._snapshot

    def _forget_reports(self) -> None:
        """Drop the words of nodes that the Swarm no longer lists."""
        listed = {doc.id for doc in self._snapshot.nodes} if self._snapshot else set()
        for node_id in self._reports.keys() - listed:
            if self.state.nodes.get(node_id) is not None:
                del self._reports[node_id]

    # --- failures -----------------------------------------------------------------------

    def _failed(self, error: SwarmError, wanted: Look | None) -> None:
        """Keep what is known; one line per new reason, not per attempt."""
        self.look(wanted or Look.TASKS)
        if self._failure is None:
            self._retry_s = self._settings.first_retry_s
        else:
            self._retry_s = min(2 * self._retry_s, self._settings.longest_retry_s)
        if str(error) != self._failure:
            self._failure = str(error)
            log.warning("swarm.refresh_failed", error=self._failure, kept=self.state.version)

    def _succeeded(self) -> None:
        if self._failure is not None:
            self._failure = None
            log.info("swarm.refresh_recovered")
