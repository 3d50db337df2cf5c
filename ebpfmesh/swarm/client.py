# SPDX-License-Identifier: Apache-2.0
"""What the agent asks dockerd: where am I, what runs here, what does the Swarm look like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType

import structlog

from ebpfmesh.swarm.api import ContainerDoc, NetworkDoc, TaskDoc
from ebpfmesh.swarm.docker import Engine
from ebpfmesh.swarm.errors import SwarmError
from ebpfmesh.swarm.events import Event, Resync
from ebpfmesh.swarm.local import NodeInfo, node_info
from ebpfmesh.swarm.mesh import Snapshot, is_encrypted

DEFAULT_URL = "unix:///var/run/docker.sock"
GATEWAY_NETWORK = "docker_gwbridge"
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

log = structlog.get_logger(__name__)


class SwarmClient:
    """One node's dockerd, as the agent sees it; made inside a running event loop."""

    def __init__(self, url: str = DEFAULT_URL, *, timeout_s: float = 10.0) -> None:
        self._engine = Engine(url, timeout_s)

    async def __aenter__(self) -> SwarmClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to dockerd."""
        await self._engine.close()

    async def info(self) -> NodeInfo:
        """This node's place in the Swarm; `NotInSwarm` if it has none."""
        return node_info(await self._engine.info())

    async def manager_snapshot(self) -> Snapshot:
        """Everything that the Swarm API lists, or an error: never a part of it."""
        return await self.complete(await self.tasks())

    async def tasks(self) -> list[TaskDoc]:
        """The tasks alone, cheap enough to poll: no event tells of their changes."""
        return await self._engine.tasks()

    async def complete(self, tasks: list[TaskDoc]) -> Snapshot:
        """The snapshot around tasks that were just listed."""
        services, nodes, networks = await asyncio.gather(
            self._engine.services(), self._engine.nodes(), self._engine.networks()
        )
        return Snapshot(services=services, tasks=tasks, nodes=nodes, networks=networks)

    async def task_container_ids(self) -> list[str]:
        """The running containers of this node that Swarm made."""
        return await self._engine.task_container_ids()

    async def container(self, container_id: str) -> ContainerDoc | None:
        """One container, None if it is gone. While dockerd works on it there is no answer."""
        return await self._engine.container(container_id)

    async def gateways(self) -> NetworkDoc | None:
        """The network of the containers' way out; None before dockerd has made it."""
        return await self._engine.network(GATEWAY_NETWORK)

    async def ingress_is_encrypted(self) -> bool:
        """Whether the ingress network is, as this node knows it: no manager is needed."""
        found = await self._engine.networks()
        return any(doc.ingress and is_encrypted(doc) for doc in found)

    async def events(self) -> AsyncIterator[Event | Resync]:
        """Every event from now on, forever; a `Resync` first and after each interruption."""
        pause_s = FIRST_PAUSE_S
        interrupted: str | None = None
        while True:
            try:
                async with self._engine.events() as events:
                    if interrupted is not None:
                        log.info("docker.events_resumed")
                    interrupted, pause_s = None, FIRST_PAUSE_S
                    yield Resync()
                    async for event in events:
                        yield event
            except SwarmError as error:
                if interrupted is None:
                    interrupted = str(error)
                    log.warning("docker.events_interrupted", error=interrupted)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
