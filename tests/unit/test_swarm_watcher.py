# SPDX-License-Identifier: Apache-2.0
"""The watcher: when it looks, what it keeps, what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from ebpfmesh.model import BackendState, MeshState
from ebpfmesh.swarm.api import (
    NodeDoc,
    NodeStatus,
    ServiceDoc,
    TaskDoc,
    TaskStatus,
    UpdateStatus,
    Version,
)
from ebpfmesh.swarm.errors import DockerUnavailable
from ebpfmesh.swarm.events import Event, Kind, Resync
from ebpfmesh.swarm.local import TASK_ID
from ebpfmesh.swarm.mesh import Snapshot
from ebpfmesh.swarm.watcher import FreshTasks, Look, MeshWatcher, WatcherSettings

PATIENCE_S = 20.0
NEVER_S = 1000.0
TRIGGERED_ONLY = WatcherSettings(
    task_poll_interval_s=NEVER_S,
    brisk_poll_interval_s=NEVER_S,
    full_interval_s=NEVER_S,
    min_gap_s=0.0,
    first_retry_s=0.01,
)
NODE = NodeDoc(id="n1", status=NodeStatus(state="ready", addr="192.0.2.11"))


def running(task_id: str, index: int = 1) -> TaskDoc:
    return TaskDoc(
        id=task_id,
        version=Version(index),
        service_id="web",
        node_id="n1",
        desired_state="running",
        status=TaskStatus("running"),
    )


class FakeSwarm:
    """A Swarm API that counts, can be held, and can fail."""

    def __init__(self) -> None:
        self.listed: list[TaskDoc] = [running("a")]
        self.nodes: list[NodeDoc] = [NODE]
        self.error: str | None = None
        self.partial: str | None = None
        self.polls = self.completions = 0
        self.gate, self.rest = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.rest.set()

    async def tasks(self) -> list[TaskDoc]:
        self.polls += 1
        await self.gate.wait()
        if self.error:
            raise DockerUnavailable(self.error)
        return list(self.listed)

    async def complete(self, tasks: list[TaskDoc]) -> Snapshot:
        self.completions += 1
        await self.rest.wait()
        if self.partial:
            raise DockerUnavailable(self.partial)
        return Snapshot(tasks=tasks, nodes=list(self.nodes))


@asynccontextmanager
async def watching(
    swarm: FakeSwarm, settings: WatcherSettings = TRIGGERED_ONLY
) -> AsyncIterator[MeshWatcher]:
    watcher = MeshWatcher(swarm, settings)
    loop = asyncio.create_task(watcher.run())
    try:
        yield watcher
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


async def settled(swarm: FakeSwarm) -> None:
    """Let everything that is due happen."""
    for _ in range(100):
        await asyncio.sleep(0)


def container_event(action: str = "die") -> Event:
    return Event(Kind.CONTAINER, action, "c1", attributes={TASK_ID: "a"})


@pytest.mark.asyncio
async def test_the_first_look_needs_no_trigger() -> None:
    async with watching(FakeSwarm()) as watcher:
        assert watcher.age_s() == float("inf")
        await until(lambda: "a" in watcher.state.tasks)
        assert watcher.age_s() < PATIENCE_S


@pytest.mark.asyncio
async def test_triggers_during_a_refresh_cause_exactly_one_more() -> None:
    swarm = FakeSwarm()
    async with watching(swarm) as watcher:
        await until(lambda: watcher.state.version > 0)
        swarm.gate.clear()
        watcher.look()
        await until(lambda: swarm.polls == 2)
        for _ in range(10):
            watcher.notice(Resync())
        swarm.gate.set()
        await until(lambda: swarm.polls == 3)
        await settled(swarm)
        assert swarm.polls == 3


@pytest.mark.asyncio
async def test_unchanged_tasks_are_not_asked_about_further() -> None:
    swarm = FakeSwarm()
    async with watching(swarm) as watcher:
        await until(lambda: watcher.state.version > 0)
        watcher.notice(container_event())
        await until(lambda: swarm.polls == 2)
        await settled(swarm)
        assert swarm.completions == 1
        swarm.listed = [running("a"), running("b", 2)]
        watcher.look(Look.TASKS)
        await until(lambda: "b" in watcher.state.tasks)
        assert swarm.completions == 2


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("event", "completions"),
    [
        (Resync(), 2),
        (Event(Kind.SERVICE, "update", "web", scope="swarm"), 2),
        (Event(Kind.NODE, "update", "n1", scope="swarm"), 2),
        (Event(Kind.NETWORK, "create", "net", scope="swarm"), 2),
        (container_event(), 1),
    ],
)
async def test_an_event_causes_as_much_reading_as_it_may_mean(
    event: Event | Resync, completions: int
) -> None:
    swarm = FakeSwarm()
    async with watching(swarm) as watcher:
        await until(lambda: watcher.state.version > 0)
        watcher.notice(event)
        await until(lambda: swarm.polls == 2)
        await settled(swarm)
        assert swarm.completions == completions


@pytest.mark.asyncio
async def test_containers_of_no_service_are_nobodys_business() -> None:
    swarm = FakeSwarm()
    async with watching(swarm) as watcher:
        await until(lambda: watcher.state.version > 0)
        watcher.notice(Event(Kind.CONTAINER, "start", "plain"))
        await settled(swarm)
        assert swarm.polls == 1


@pytest.mark.asyncio
async def test_tasks_are_polled_because_no_event_tells_of_them() -> None:
    swarm = FakeSwarm()
    async with watching(swarm, WatcherSettings(task_poll_interval_s=0.01)) as watcher:
        await until(lambda: "a" in watcher.state.tasks)
        swarm.listed = []
        await until(lambda: "a" not in watcher.state.tasks)


@pytest.mark.asyncio
async def test_everything_is_read_now_and_then_against_lost_events() -> None:
    swarm = FakeSwarm()
    settings = WatcherSettings(task_poll_interval_s=0.01, full_interval_s=0.05)
    async with watching(swarm, settings) as watcher:
        await until(lambda: "n1" in watcher.state.nodes)
        swarm.nodes = []
        await until(lambda: "n1" not in watcher.state.nodes)


@pytest.mark.asyncio
async def test_a_report_counts_before_the_swarm_is_asked() -> None:
    swarm = FakeSwarm()
    async with watching(swarm) as watcher:
        await until(lambda: "a" in watcher.state.tasks)
        swarm.gate.clear()
        watcher.report("n1", "198.51.100.1", {"a": BackendState.GONE})
        assert watcher.state.tasks["a"].state is BackendState.GONE
        assert watcher.state.nodes["n1"].vtep == "198.51.100.1"
        await until(lambda: swarm.polls == 2)


@pytest.mark.asyncio
async def test_reports_of_nodes_that_left_are_forgotten() -> None:
    swarm = FakeSwarm()
    async with watching(swarm) as watcher:
        await until(lambda: "n1" in watcher.state.nodes)
        watcher.report("n1", "198.51.100.1", {})
        swarm.nodes = []
        watcher.look()
        await until(lambda: "n1" not in watcher.state.nodes)
        swarm.nodes = [NODE]
        watcher.look()
        await until(lambda: "n1" in watcher.state.nodes)
        assert watcher.state.nodes["n1"].vtep == "192.0.2.11"


@pytest.mark.asyncio
async def test_failures_keep_the_state_and_are_told_once() -> None:
    swarm = FakeSwarm()
    async with watching(swarm) as watcher:
        await until(lambda: "a" in watcher.state.tasks)
        known = watcher.state
        with capture_logs() as logs:
            swarm.listed, swarm.error = [], "gone fishing"
            watcher.look()
            await until(lambda: swarm.polls >= 4)
            assert watcher.state is known
            swarm.error = None
            await until(lambda: watcher.state is not known)
        assert [line["event"] for line in logs] == [
            "swarm.refresh_failed",
            "swarm.refresh_recovered",
        ]


@pytest.mark.asyncio
async def test_a_part_of_the_answers_is_no_answer() -> None:
    swarm = FakeSwarm()
    async with watching(swarm) as watcher:
        await until(lambda: "a" in watcher.state.tasks)
        known = watcher.state
        swarm.listed, swarm.partial = [], "no leader"
        watcher.look()
        await until(lambda: swarm.completions >= 3)
        assert watcher.state is known
        swarm.partial = None
        await until(lambda: watcher.state.tasks == {})


@pytest.mark.asyncio
async def test_a_slow_subscriber_gets_the_newest_state_only() -> None:
    watcher = MeshWatcher(FakeSwarm(), TRIGGERED_ONLY)
    changes = watcher.states.changes()
    assert (await anext(changes)).version == 0
    for version in (1, 2, 3):
        watcher.states.set(MeshState(version=version))
    assert (await anext(changes)).version == 3
    await changes.aclose()  # type: ignore[attr-defined]


def test_what_ran_before_the_first_look_is_not_fresh() -> None:
    now_s = [100.0]
    fresh = FreshTasks(10.0, lambda: now_s[0])
    assert fresh.among({"old"}) == set()
    assert fresh.among({"old", "new"}) == {"new"}
    now_s[0] += 9.9
    assert fresh.among({"old", "new", "newer"}) == {"new", "newer"}
    now_s[0] += 0.2
    assert fresh.among({"old", "new", "newer"}) == {"newer"}


@pytest.mark.asyncio
async def test_a_task_of_a_node_without_an_agent_is_ready_at_the_bound() -> None:
    swarm = FakeSwarm()
    settings = WatcherSettings(task_poll_interval_s=0.01, ready_timeout_s=NEVER_S)
    async with watching(swarm, settings) as watcher:
        await until(lambda: "a" in watcher.state.tasks)
        swarm.listed = [running("a"), running("b", 2)]
        await until(lambda: "b" in watcher.state.tasks)
        assert watcher.state.tasks["a"].state is BackendState.READY
        assert watcher.state.tasks["b"].state is BackendState.STARTING
        watcher._fresh._now_s = lambda: time.monotonic() + NEVER_S
        await until(lambda: watcher.state.tasks["b"].state is BackendState.READY)


@pytest.mark.asyncio
async def test_a_nodes_word_ends_the_wait_at_once() -> None:
    swarm = FakeSwarm()
    async with watching(swarm) as watcher:
        await until(lambda: "a" in watcher.state.tasks)
        swarm.listed = [running("a"), running("b", 2)]
        watcher.look()
        await until(lambda: "b" in watcher.state.tasks)
        swarm.gate.clear()
        watcher.report("n1", "", {"b": BackendState.READY})
        assert watcher.state.tasks["b"].state is BackendState.READY


@pytest.mark.asyncio
async def test_a_task_that_leaves_is_told_before_the_rest_is_read() -> None:
    swarm = FakeSwarm()
    once = replace(TRIGGERED_ONLY, first_retry_s=NEVER_S, longest_retry_s=NEVER_S)
    async with watching(swarm, once) as watcher:
        await until(lambda: "a" in watcher.state.tasks)
        swarm.partial = "busy"
        leaving = replace(
            running("a", 2), desired_state="shutdown", updated_at="1970-01-01T00:00:01Z"
        )
        swarm.listed = [leaving]
        watcher.look(Look.TASKS)
        await until(lambda: watcher.state.tasks["a"].state is BackendState.DRAINING)
        assert watcher.state.origin_ns == 1_000_000_000


@pytest.mark.asyncio
async def test_what_could_not_be_read_with_changed_tasks_is_read_again() -> None:
    swarm = FakeSwarm()
    async with watching(swarm) as watcher:
        await until(lambda: "a" in watcher.state.tasks)
        swarm.partial, swarm.nodes = "busy", []
        swarm.listed = [running("a"), running("b", 2)]
        watcher.look(Look.TASKS)
        await until(lambda: swarm.completions >= 2)
        swarm.partial = None
        await until(lambda: watcher.state.nodes == {})


@pytest.mark.asyncio
async def test_a_nodes_word_has_its_own_time() -> None:
    swarm = FakeSwarm()
    async with watching(swarm) as watcher:
        await until(lambda: "a" in watcher.state.tasks)
        swarm.gate.clear()
        watcher.report("n1", "198.51.100.1", {"a": BackendState.GONE}, 77)
        assert watcher.state.origin_ns == 77


@pytest.mark.asyncio
async def test_while_the_swarm_changes_it_is_looked_at_often() -> None:
    settings = replace(TRIGGERED_ONLY, brisk_poll_interval_s=0.001)
    swarm = FakeSwarm()
    async with watching(swarm, settings) as watcher:
        await until(lambda: "a" in watcher.state.tasks)
        swarm.listed = [running("a"), running("b", 2)]
        watcher.look(Look.TASKS)
        await until(lambda: "b" in watcher.state.tasks)
        swarm.listed = []
        await until(lambda: watcher.state.tasks == {})


@pytest.mark.asyncio
async def test_tasks_are_looked_at_while_the_rest_is_read() -> None:
    """dockerd lists networks slowly while it makes one."""
    swarm = FakeSwarm()
    async with watching(swarm, replace(TRIGGERED_ONLY, brisk_poll_interval_s=0.001)) as watcher:
        await until(lambda: "a" in watcher.state.tasks)
        swarm.rest.clear()
        watcher.look()
        await until(lambda: swarm.completions == 2)
        swarm.listed = [replace(running("a", 2), desired_state="shutdown"), running("b", 2)]
        await until(lambda: watcher.state.tasks["a"].state is BackendState.DRAINING)
        await until(lambda: "b" in watcher.state.tasks)
        swarm.listed = [running("b", 2)]
        polls = swarm.polls
        await until(lambda: swarm.polls > polls + 1)
        assert "a" in watcher.state.tasks
        swarm.rest.set()
        await until(lambda: watcher.state.tasks.keys() == {"b"})


@pytest.mark.parametrize(
    ("state", "brisk_for_s", "took_s", "rest_s"),
    [
        ("completed", -1.0, 0.0, 1.0),
        ("completed", -1.0, 0.5, 5.0),
        ("completed", 60.0, 0.0, 0.01),
        ("completed", 60.0, 0.05, 0.2),
        ("completed", 60.0, 0.9, 1.0),
        ("updating", -1.0, 0.0, 0.01),
    ],
)
def test_how_long_it_rests(state: str, brisk_for_s: float, took_s: float, rest_s: float) -> None:
    """Polling takes a tenth of a manager's time at most, a fifth while something changes."""
    settings = WatcherSettings(1.0, brisk_for_s=brisk_for_s)
    watcher = MeshWatcher(FakeSwarm(), settings)
    watcher._snapshot = Snapshot(services=[ServiceDoc("s", update_status=UpdateStatus(state))])
    watcher._poll_took_s = took_s
    watcher._be_brisk()
    assert settings.min_gap_s + watcher._pause_s() == pytest.approx(rest_s)


@pytest.mark.asyncio
async def test_a_swarm_that_does_not_answer_is_no_confirmation_however_new() -> None:
    swarm = FakeSwarm()
    async with watching(swarm) as watcher:
        await until(lambda: watcher.age_s() < PATIENCE_S)
        swarm.error = "no leader"
        watcher.look()
        await until(lambda: watcher.age_s() == float("inf"))
        swarm.error = None
        await until(lambda: watcher.age_s() < PATIENCE_S)


@pytest.mark.asyncio
async def test_a_nodes_silence_counts_at_once_and_its_end_too() -> None:
    swarm = FakeSwarm()
    async with watching(swarm) as watcher:
        await until(lambda: "a" in watcher.state.tasks)
        watcher.hear({"n1": 7}, ())
        assert watcher.state.nodes["n1"].silent_ns == 7
        assert watcher.state.origin_ns > 0
        watcher.hear({}, {"n1"})
        assert watcher.state.nodes["n1"].silent_ns == 0
