# SPDX-License-Identifier: Apache-2.0
"""CPU time of each step from the Swarm's API to the maps, in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import swarm
from bench.machine import no_collections
from bench.node import BenchNode, reconciler_of
from bench.scale.child import change
from bench.swarm import Size
from ebpfmesh.desired_cache import DesiredCache
from ebpfmesh.hub.delta import apply, update
from ebpfmesh.hub.protocol import MAX_FROM_HUB, Delta, Full, decode_from_hub, encode
from ebpfmesh.maglev import permutation
from ebpfmesh.model import Desired, MeshState
from ebpfmesh.swarm.client import SwarmClient
from ebpfmesh.swarm.mesh import Snapshot, next_state

LENGTH = 4  # of a frame, before its payload


class Clock:
    """CPU milliseconds of each step, in order."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """What is done here."""
        with no_collections():
            start = time.process_time()
            yield
            self.steps[name] = (time.process_time() - start) * 1e3


class Stages:
    """One hub and one agent, as a chain of calls."""

    def __init__(self, docker: Path, size: Size, node: BenchNode) -> None:
        self._docker, self._size, self._node = docker, size, node
        self._reconciler = node.reconciler
        self._hub = self._agent = MeshState()
        self._desired = DesiredCache()
        self.frame_bytes = 0

    def first(self) -> dict[str, float]:
        """Everything from nothing: neither state, nor maps, nor permutations are known."""
        self._reconciler.sync(Desired(), whole=True)
        self._reconciler = reconciler_of(self._node.module)
        self._reconciler.adopt()
        self._hub = self._agent = MeshState()
        self._desired = DesiredCache()
        permutation.cache_clear()
        return self._through()

    def changed(self, tell: Callable[[], None]) -> dict[str, float]:
        """From a change that dockerd is told of."""
        tell()
        return self._through()

    def _through(self) -> dict[str, float]:
        clock = Clock()
        with clock.step("hub: read the API"):
            snapshot = asyncio.run(self._read())
        before = self._hub
        with clock.step("hub: make the state"):
            self._hub = next_state(before, snapshot, {})
        with clock.step("hub: encode"):
            frame = encode(update(before if before.version else None, self._hub), MAX_FROM_HUB)
        self.frame_bytes = len(frame)
        with clock.step("agent: decode"):
            message = decode_from_hub(frame[LENGTH:])
            if isinstance(message, Full):
                self._agent = message.state
            else:
                assert isinstance(message, Delta)
                self._agent = apply(self._agent, message)
        local = swarm.local_view(self._agent, self._size)
        with clock.step("agent: desired state"):
            desired = self._desired.of(self._agent, local)
        with clock.step("agent: plan and maps"):
            assert self._reconciler.sync(desired, whole=True, touched=self._desired.touched)
        return clock.steps

    async def _read(self) -> Snapshot:
        async with SwarmClient(f"unix://{self._docker}", timeout_s=60.0) as client:
            return await client.manager_snapshot()


def one_task(docker: Path, size: Size, number: int) -> Callable[[], None]:
    """A task that is told to shut down."""
    doc = swarm.task_doc(number, swarm.service_of(number, size), size, wanted="shutdown")
    return lambda: change(docker, put=[doc])


def resized(docker: Path, size: Size, by: int, *, up: bool) -> Callable[[], None]:
    """Service 0 gets more tasks, or loses them again."""
    numbers = range(size.tasks, size.tasks + by)
    if not up:
        return lambda: change(docker, gone=[swarm.task_id(number) for number in numbers])
    docs = [swarm.task_doc(number, 0, size) for number in numbers]
    return lambda: change(docker, put=docs)
