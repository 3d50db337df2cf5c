# SPDX-License-Identifier: Apache-2.0
"""The state on its way to a disk that may be full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from structlog.testing import capture_logs

from ebpfmesh.agent.saver import Saver
from ebpfmesh.hub.errors import StoreError
from ebpfmesh.latest import Latest
from ebpfmesh.model import MeshState

PATIENCE_S = 20.0


class Disk:
    """Has room for so many states, in the end for more."""

    def __init__(self) -> None:
        self.full = False
        self.tries = 0
        self.holds: list[tuple[str, int]] = []

    def save(self, swarm_id: str, state: MeshState) -> None:
        self.tries += 1
        if self.full:
            raise StoreError("cannot write it: No space left on device")
        self.holds.append((swarm_id, state.version))

    async def tried(self, times: int) -> None:
        await until(lambda: self.tries >= times)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def saving(disk: Disk, states: Latest[MeshState]) -> AsyncIterator[Saver]:
    saver = Saver(disk, lambda: "swarm", gap_s=0.0, retry_s=0.001)
    task = asyncio.create_task(saver.run(states))
    try:
        yield saver
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.asyncio
async def test_every_state_but_the_empty_one_is_saved() -> None:
    disk, states = Disk(), Latest(MeshState())
    async with saving(disk, states):
        await asyncio.sleep(0)
        states.set(MeshState(version=1))
        await disk.tried(1)
        states.set(MeshState(version=2))
        await disk.tried(2)
    assert disk.holds == [("swarm", 1), ("swarm", 2)]


@pytest.mark.asyncio
async def test_a_full_disk_is_said_once_and_tried_until_there_is_room() -> None:
    disk, states = Disk(), Latest(MeshState(version=1))
    disk.full = True
    with capture_logs() as logs:
        async with saving(disk, states) as saver:
            await disk.tried(3)
            assert saver.error == "cannot write it: No space left on device"
            states.set(MeshState(version=2))
            await disk.tried(disk.tries + 3)
            disk.full = False
            await until(lambda: saver.error == "")
            assert disk.holds == [("swarm", 2)]
    assert [line["event"] for line in logs] == ["state.not_saved", "state.saved_again"]
