# SPDX-License-Identifier: Apache-2.0
"""The part of a hub that an agent on a manager plays, for as long as the node is one."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from ebpfmesh.config import Config
from ebpfmesh.hub.server import HubServer
from ebpfmesh.hub.tls import Certificates
from ebpfmesh.swarm.client import SwarmClient
from ebpfmesh.swarm.events import Event, Resync
from ebpfmesh.swarm.local import NodeInfo
from ebpfmesh.swarm.watcher import MeshWatcher, WatcherSettings

log = structlog.get_logger(__name__)


class HubRole:
    """Starts and stops watcher and server as the node is promoted and demoted."""

    def __init__(self, config: Config, swarm: SwarmClient, certificates: Certificates) -> None:
        self._config = config
        self._swarm = swarm
        self._certificates = certificates
        self._watcher: MeshWatcher | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        """Whether this node is a hub now."""
        return self._running is not None

    async def follow(self, info: NodeInfo) -> None:
        """Becomes or ceases to be a hub, as `info` says. Raises what ended a running one."""
        if self._running is not None and self._running.done():
            self._running, self._watcher = None, None
            log.warning("hub.ended")
        if info.is_manager and self._running is None:
            await self._start(self._config.hub_address or info.node_addr)
        elif not info.is_manager and self._running is not None:
            await self.stop()

    async def _start(self, host: str) -> None:
        settings = WatcherSettings(
            task_poll_interval_s=self._config.task_poll_interval_s,
            ready_timeout_s=self._config.ready_timeout_s,
        )
        watcher = MeshWatcher(self._swarm, settings)
        server = HubServer(
            self._certificates,
            watcher.states,
            watcher.report,
            watcher.age_s,
            on_hearing=watcher.hear,
        )
        await server.start(host, self._config.hub_port)
        self._watcher = watcher
        self._running = asyncio.create_task(self._run(watcher, server), name="hub")

    @staticmethod
    async def _run(watcher: MeshWatcher, server: HubServer) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(watcher.run())
                group.create_task(server.run())
        except Exception:
            log.exception("hub.failed")
            raise

    def notice(self, event: Event | Resync) -> None:
        """Passes an event of dockerd on to the watcher."""
        if self._watcher is not None:
            self._watcher.notice(event)

    async def stop(self) -> None:
        """Ceases to be a hub; the agents go to another."""
        running, self._running, self._watcher = self._running, None, None
        if running is not None:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            log.info("hub.stopped")
