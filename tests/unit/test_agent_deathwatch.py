# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ebpfmesh.agent.deathwatch import DeathWatch
from ebpfmesh.model import BackendState
from ebpfmesh.swarm.local import LocalContainer

CONTAINER = "c0ffee"


class Tasks:
    """Processes, and a /proc that says whose they are."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, task_id: str, *, of: str = CONTAINER) -> LocalContainer:
        process = subprocess.Popen(["sleep", "infinity"])
        self._running.append(process)
        (self._proc / str(process.pid)).mkdir()
        (self._proc / str(process.pid) / "cgroup").write_text(
            f"0::/system.slice/docker-{of}.scope\n"
        )
        return LocalContainer(
            id=CONTAINER,
            task_id=task_id,
            service_id="s1",
            sandbox="",
            pid=process.pid,
            state=BackendState.READY,
        )

    def kill(self, number: int) -> None:
        self._running[number].kill()
        self._running[number].wait()

    def kill_all(self) -> None:
        for number in range(len(self._running)):
            self.kill(number)


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[Tasks]:
    made = Tasks(tmp_path)
    in_pid_namespace(tmp_path, "pid:[4026531836]")
    yield made
    made.kill_all()


def in_pid_namespace(proc: Path, name: str) -> None:
    link = proc / "self" / "ns" / "pid"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(name)


class Deaths:
    """What has been told, in order."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def next(self) -> str:
        async with asyncio.timeout(10):
            return await self.told.get()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_the_end_of_a_task_is_told_once(tasks: Tasks, tmp_path: Path) -> None:
    deaths = Deaths()
    watch = DeathWatch(deaths.told.put_nowait, tmp_path)
    both = [tasks.start("t1"), tasks.start("t2")]
    before = descriptors()
    watch.follow(both)
    watch.follow(both)
    assert descriptors() == before + 2
    tasks.kill(1)
    assert await deaths.next() == "t2"
    tasks.kill(0)
    assert await deaths.next() == "t1"
    watch.follow(both)  # dockerd still lists them
    assert deaths.told.empty()
    assert descriptors() == before


async def test_who_is_listed_no_more_is_not_followed(tasks: Tasks, tmp_path: Path) -> None:
    deaths = Deaths()
    watch = DeathWatch(deaths.told.put_nowait, tmp_path)
    gone, stays = tasks.start("t1"), tasks.start("t2")
    watch.follow([gone, stays])
    watch.follow([stays])
    tasks.kill(0)
    tasks.kill(1)
    assert await deaths.next() == "t2"
    assert deaths.told.empty()


async def test_a_number_that_is_anothers_is_let_be(tasks: Tasks, tmp_path: Path) -> None:
    deaths = Deaths()
    watch = DeathWatch(deaths.told.put_nowait, tmp_path)
    stranger, own = tasks.start("t1", of="another"), tasks.start("t2")
    watch.follow([stranger, own])
    tasks.kill(0)
    tasks.kill(1)
    assert await deaths.next() == "t2"
    assert deaths.told.empty()
    watch.close()


class Groups:
    """Control groups as an agent in a PID namespace of its own sees them."""

    def __init__(self, place: Path) -> None:
        in_pid_namespace(place, "pid:[4026532000]")
        self.root = place / "groups"
        self._made = 0

    def make(self, task_id: str, *, populated: bool = True) -> tuple[LocalContainer, Path]:
        self._made += 1
        container = LocalContainer(
            id=f"{CONTAINER}{self._made}",
            task_id=task_id,
            service_id="s1",
            sandbox="",
            pid=os.getpid(),  # which here is somebody else
            state=BackendState.READY,
        )
        events = self.root / "system.slice" / f"docker-{container.id}.scope" / "cgroup.events"
        events.parent.mkdir(parents=True)
        events.write_text(f"populated {int(populated)}\nfrozen 0\n")
        return container, events


async def test_where_no_process_is_seen_an_empty_group_is_the_end(tmp_path: Path) -> None:
    deaths, groups = Deaths(), Groups(tmp_path)
    watch = DeathWatch(deaths.told.put_nowait, tmp_path, groups.root)
    before = descriptors()
    (first, events), (second, other) = groups.make("t1"), groups.make("t2")
    watch.follow([first, second])
    other.write_text("populated 1\nfrozen 1\n")
    events.write_text("populated 0\nfrozen 0\n")
    assert await deaths.next() == "t1"
    assert deaths.told.empty()
    other.write_text("populated 0\nfrozen 0\n")
    assert await deaths.next() == "t2"
    assert deaths.told.empty()
    assert descriptors() == before


async def test_a_group_that_is_empty_already_is_the_end(tmp_path: Path) -> None:
    deaths, groups = Deaths(), Groups(tmp_path)
    container, _ = groups.make("t1", populated=False)
    DeathWatch(deaths.told.put_nowait, tmp_path, groups.root).follow([container])
    assert await deaths.next() == "t1"


async def test_a_group_is_followed_no_longer_than_its_task(tmp_path: Path) -> None:
    deaths, groups = Deaths(), Groups(tmp_path)
    watch = DeathWatch(deaths.told.put_nowait, tmp_path, groups.root)
    before = descriptors()
    (first, events), (second, other) = groups.make("t1"), groups.make("t2")
    watch.follow([first, second])
    watch.follow([second])
    for file in (events, other):
        file.write_text("populated 0\n")
    assert await deaths.next() == "t2"
    assert deaths.told.empty()
    assert descriptors() == before


async def test_who_sees_neither_processes_nor_groups_says_so_once(tmp_path: Path) -> None:
    groups = Groups(tmp_path)
    tasks = [groups.make(task_id)[0] for task_id in ("t1", "t2")]
    nowhere = tmp_path / "nowhere"
    for root in (None, nowhere):
        watch = DeathWatch(Deaths().told.put_nowait, tmp_path, root)
        with capture_logs() as logs:
            watch.follow(tasks)
        assert [entry["event"] for entry in logs] == ["deathwatch.blind"]
