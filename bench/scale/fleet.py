# SPDX-License-Identifier: Apache-2.0
"""A hub, one whole agent, and a crowd of agents without maps: each a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path

import msgspec

from bench import swarm
from bench.node import BenchNode, bench_node, quiet
from ebpfmesh.agent.coverage import Coverage
from ebpfmesh.agent.journal import Journal
from ebpfmesh.agent.keeper import Keeper
from ebpfmesh.agent.offers import Offers
from ebpfmesh.agent.readiness import Readiness
from ebpfmesh.agent.viewer import Viewer
from ebpfmesh.agent.worker import Workers
from ebpfmesh.hub import (
    Certificates,
    HubAddress,
    HubClient,
    HubServer,
    LinkSettings,
    ServerSettings,
)
from ebpfmesh.model import BackendState, LocalView, MeshState
from ebpfmesh.swarm.client import SwarmClient
from ebpfmesh.swarm.local import LocalContainer
from ebpfmesh.swarm.watcher import MeshWatcher, WatcherSettings

HOST = "127.0.0.1"
POLL_S = 1.0  # the default of task_poll_interval_s
# The crowd shares one event loop: what one agent does must not look like a dead hub to the others.
PATIENT = LinkSettings(connect_timeout_s=60.0, silence_s=60.0, standby_silence_s=60.0)
# It has one address as well.
PATIENT_HUB = ServerSettings(
    handshake_timeout_s=60.0, silence_s=60.0, send_timeout_s=60.0, max_of_one_address=256
)


def tell(event: str, **facts: int) -> None:
    """A line for the bench."""
    print(msgspec.json.encode({"event": event, **facts}).decode(), flush=True)


async def _until_told(*running: Coroutine[None, None, None]) -> None:
    """Runs these until standard input ends."""
    tasks = [asyncio.create_task(one) for one in running]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# --- the hub ----------------------------------------------------------------------------


async def hub(home: Path, docker: Path) -> None:
    """Watches the made-up dockerd, serves the state; tells of every new one."""
    async with SwarmClient(f"unix://{docker}", timeout_s=60.0) as client:
        watcher = MeshWatcher(client, WatcherSettings(task_poll_interval_s=POLL_S))
        server = HubServer(
            Certificates(home), watcher.states, watcher.report, watcher.age_s, PATIENT_HUB
        )
        await server.start(HOST, 0)
        tell("listening", port=server.port)
        await _until_told(watcher.run(), server.run(), _events(client, watcher), _states(watcher))


async def _events(client: SwarmClient, watcher: MeshWatcher) -> None:
    async for event in client.events():
        watcher.notice(event)


async def _states(watcher: MeshWatcher) -> None:
    async for state in watcher.states.changes():
        tell("state", version=state.version, at_ns=time.monotonic_ns())


# --- the crowd --------------------------------------------------------------------------


async def crowd(homes: Sequence[Path], port: int) -> None:
    """Agents that follow the hub; tells when the last one has a state."""
    clients = [HubClient(Certificates(home), settings=PATIENT) for home in homes]
    have: Counter[int] = Counter()
    for client in clients:
        client.set_hubs([HubAddress(HOST, port)])
    await _until_told(
        *(client.run() for client in clients),
        *(_count(client, have, len(clients)) for client in clients),
    )


async def _count(client: HubClient, have: Counter[int], count: int) -> None:
    async for state in client.states.changes():
        have[state.version] += 1
        if state.version and have[state.version] == count:
            tell("all", version=state.version, at_ns=time.monotonic_ns())


# --- the agent --------------------------------------------------------------------------


class MadeUpViewer(Viewer):
    """Sees the containers that the Swarm says are on this node, on all networks."""

    def __init__(self, size: swarm.Size) -> None:
        super().__init__(swarm.node_id(0), swarm.vtep(0), "nic0", Path("/nowhere"))
        self.mesh = MeshState()
        self._size = size

    def look_at_links(self) -> None:
        """Sees nothing of this machine."""

    def look_at_tasks(self, containers: Sequence[LocalContainer]) -> None:
        """Sees nothing of this machine."""

    def view(
        self, containers: Sequence[LocalContainer], known: Mapping[str, BackendState]
    ) -> LocalView:
        """What would be seen."""
        del containers, known
        return swarm.local_view(self.mesh, self._size)


async def agent(home: Path, port: int, docker: Path, size: swarm.Size) -> None:
    """Everything between hub and maps, with real maps; tells when they are as they should be."""
    workers, stack = Workers(), contextlib.ExitStack()

    def open_maps() -> BenchNode:
        return stack.enter_context(bench_node(swarm.vtep(0)))

    node = await workers.maps(open_maps)
    client, viewer = HubClient(Certificates(home), settings=PATIENT), MadeUpViewer(size)
    client.set_hubs([HubAddress(HOST, port)])
    async with SwarmClient(f"unix://{docker}") as docker_client:
        keeper = Keeper(
            docker_client,
            viewer,
            node.reconciler,
            workers,
            readiness=Readiness(60.0),
            coverage=Coverage(),
            offers=Offers(),
            journal=Journal(node.reconciler.actual),
            report=client.report,
        )
        await _until_told(
            client.run(), _take(client, keeper, viewer), keeper.run(), _synced(keeper)
        )
    await workers.maps(stack.close)
    workers.close()


async def _take(client: HubClient, keeper: Keeper, viewer: MadeUpViewer) -> None:
    async for state in client.states.changes():
        viewer.mesh = state
        keeper.take_state(state)


async def _synced(keeper: Keeper) -> None:
    while not keeper.synced:  # noqa: ASYNC110 - the keeper tells nobody
        await asyncio.sleep(0.05)
    tell("synced", at_ns=time.monotonic_ns())


def main() -> None:
    """Run one of them."""
    options = argparse.ArgumentParser()
    options.add_argument("role", choices=("hub", "crowd", "agent"))
    options.add_argument("--home", type=Path, action="append", required=True)
    options.add_argument("--docker", type=Path, default=Path())
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--size", default="{}")
    given = options.parse_args()
    quiet()
    size = msgspec.json.decode(given.size, type=swarm.Size)
    roles: dict[str, Coroutine[None, None, None]] = {}
    if given.role == "hub":
        roles["hub"] = hub(given.home[0], given.docker)
    elif given.role == "crowd":
        roles["crowd"] = crowd(given.home, given.port)
    else:
        roles["agent"] = agent(given.home[0], given.port, given.docker, size)
    asyncio.run(_run(roles[given.role]))


async def _run(role: Coroutine[None, None, None]) -> None:
    await role


if __name__ == "__main__":
    main()
