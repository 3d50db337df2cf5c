# SPDX-License-Identifier: Apache-2.0
"""The agent: wires what it follows (dockerd, the node's links, a hub) to the reconciler."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog
from aiohttp import web

import ebpfmesh
from ebpfmesh.agent.flowlist import list_flows
from ebpfmesh.agent.http import serve_metrics, serve_socket
from ebpfmesh.agent.hubrole import HubRole
from ebpfmesh.agent.reconcile import Reconciler
from ebpfmesh.agent.report import MapReader
from ebpfmesh.agent.truth import LocalTruth
from ebpfmesh.agent.viewer import Viewer
from ebpfmesh.config import Config
from ebpfmesh.datapath.attach import Attacher, XdpPolicy
from ebpfmesh.datapath.datapath import Datapath, attach_sockets, open_datapath
from ebpfmesh.datapath.errors import DatapathError
from ebpfmesh.datapath.links import link_changes
from ebpfmesh.desired import desired_state, notes
from ebpfmesh.hub.client import HubClient
from ebpfmesh.hub.errors import HubError
from ebpfmesh.hub.link import HubAddress
from ebpfmesh.hub.store import StateStore
from ebpfmesh.hub.tls import Certificates
from ebpfmesh.ids import Ids, OutOfIds
from ebpfmesh.metrics import SyncTimer, render
from ebpfmesh.model import BackendState, LocalView, MeshState
from ebpfmesh.status import (
    STATUS_VERSION,
    DatapathStatus,
    FlowStatus,
    HubStatus,
    NodeStatus,
    NoteStatus,
    Status,
)
from ebpfmesh.swarm.client import SwarmClient
from ebpfmesh.swarm.errors import SwarmError
from ebpfmesh.swarm.events import Event, Kind
from ebpfmesh.swarm.local import DATA_PATH_PORT, LocalContainer, NodeInfo

log = structlog.get_logger(__name__)

T = TypeVar("T")

_START_RETRY_S = 1.0
_SYNC_RETRY_S = 1.0
_SAVE_GAP_S = 1.0
# A burst of changes (a veth has several) is looked at once.
_COALESCE_S = 0.005


class Agent:
    """One node's agent. `run` does everything; the rest answers questions about it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._started = time.monotonic()
        # One thread: maps and netlink are used by one call at a time.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="datapath")
        self._trigger = asyncio.Event()
        self._containers_stale = True
        self._containers: list[LocalContainer] = []
        self._truth = LocalTruth()
        self._local: LocalView | None = None
        self._mesh = MeshState()
        self._synced = False
        self._sync_error = ""
        self._timer = SyncTimer()
        self._overlay_watchers: dict[Path, asyncio.Task[None]] = {}

    # -- start ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Runs until cancelled. What is attached stays attached and goes on working."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._worker.shutdown)
            self._swarm = await stack.enter_async_context(
                SwarmClient(f"unix://{self._config.docker_socket}")
            )
            self._info, self._certificates = await self._join()
            await self._prepare()
            await self._start_serving(stack)
            stack.push_async_callback(self._hub_role.stop)
            await self._run_loops()

    async def _join(self) -> tuple[NodeInfo, Certificates]:
        """Waits for dockerd and for this node's place in a Swarm; a line per new reason."""
        reason = ""
        while True:
            try:
                info = await self._swarm.info()
                return info, await asyncio.to_thread(self._load_certificates, info)
            except (SwarmError, HubError) as error:
                if str(error) != reason:
                    reason = str(error)
                    log.warning("agent.waiting", reason=reason)
            await asyncio.sleep(_START_RETRY_S)

    def _load_certificates(self, info: NodeInfo) -> Certificates:
        if self._config.swarm_dir:
            return Certificates(Path(self._config.swarm_dir))
        return Certificates.of_node(info.docker_root)

    async def _prepare(self) -> None:
        config, info = self._config, self._info
        self._viewer = Viewer(info.node_id, info.node_addr, config.device, Path(config.netns_dir))
        self._datapath = await self._in_worker(self._open_datapath)
        self._store = StateStore(Path(config.state_dir) / "mesh.state")
        known = await asyncio.to_thread(self._store.load, self._certificates.identity.swarm_id)
        self._mesh = known or MeshState()
        self._hub = HubClient(self._certificates, known=known, agent=ebpfmesh.__version__)
        self._hub_role = HubRole(config, self._swarm, self._certificates)
        log.info(
            "agent.started",
            node=info.hostname,
            vtep=info.node_addr,
            device=self._datapath.device.name,
            engine=info.engine_version,
            known_state=self._mesh.version,
        )

    def _open_datapath(self) -> Datapath:
        config, info = self._config, self._info
        device = self._viewer.device()
        port = config.vxlan_port
        if port == DATA_PATH_PORT:
            port = info.data_path_port
        datapath = open_datapath(config, device, info.node_addr, port)
        attacher = Attacher(datapath.module, XdpPolicy(config.xdp))
        ids = Ids(
            max_frontends=config.max_frontends,
            max_services=config.max_services,
            max_backends=config.max_backends,
        )
        self._reconciler = Reconciler(datapath.maps, attacher, ids)
        self._reconciler.adopt()
        if not attach_sockets(datapath):
            log.warning("agent.no_cgroup2", effect="localhost:PORT is not balanced")
        return datapath

    async def _start_serving(self, stack: contextlib.AsyncExitStack) -> None:
        config = self._config
        await self._serve_on(stack, await serve_socket(self, Path(config.socket)))
        host = config.metrics_address or self._info.node_addr
        try:
            runner = await serve_metrics(self, host, config.metrics_port)
        except OSError as error:
            # Balancing goes on without metrics rather than not at all.
            log.error("metrics.not_served", host=host, port=config.metrics_port, error=str(error))
            return
        await self._serve_on(stack, runner)

    @staticmethod
    async def _serve_on(stack: contextlib.AsyncExitStack, runner: web.AppRunner) -> None:
        stack.push_async_callback(runner.cleanup)

    async def _run_loops(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._follow_role(), name="role")
            group.create_task(self._follow_events(), name="events")
            group.create_task(self._follow_hub(), name="states")
            group.create_task(self._save_states(), name="save")
            group.create_task(self._hub.run(), name="hub-client")
            group.create_task(self._follow_links(""), name="links")
            group.create_task(self._resync_now_and_then(), name="resync")
            group.create_task(self._reconcile_forever(), name="reconcile")

    # -- what makes it look again ---------------------------------------------------------

    async def _follow_role(self) -> None:
        """Promotions, demotions, other managers' addresses."""
        while True:
            try:
                self._info = await self._swarm.info()
                await self._hub_role.follow(self._info)
                self._hub.set_hubs(self._hub_addresses())
            except (SwarmError, OSError) as error:
                log.warning("role.unknown", error=str(error))
            await asyncio.sleep(self._config.resync_interval_s)

    def _hub_addresses(self) -> list[HubAddress]:
        """Where hubs may be; on a manager its own comes first."""
        info, port = self._info, self._config.hub_port
        own = [self._config.hub_address or info.node_addr] if info.is_manager else []
        others = [m.host for m in info.remote_managers if m.node_id != info.node_id]
        return [HubAddress(host, port) for host in own + others if host]

    async def _follow_events(self) -> None:
        async for event in self._swarm.events():
            self._hub_role.notice(event)
            if isinstance(event, Event):
                self._truth.notice(event)
            if not isinstance(event, Event) or event.kind is Kind.CONTAINER:
                self._look_again(containers=True)

    async def _follow_hub(self) -> None:
        async for state in self._hub.states.changes():
            self._mesh = state
            self._look_again()

    async def _save_states(self) -> None:
        """Keeps the last state on disk, at most once in a while."""
        async for state in self._hub.states.changes():
            if not state.version:
                continue
            try:
                swarm = self._certificates.identity.swarm_id
                await asyncio.to_thread(self._store.save, swarm, state)
            except HubError as error:
                log.warning("state.not_saved", error=str(error))
            await asyncio.sleep(_SAVE_GAP_S)

    async def _follow_links(self, netns: str) -> None:
        try:
            async for _ in link_changes(netns):
                self._look_again()
        except OSError as error:
            log.warning("links.unwatched", netns=netns, error=str(error))

    async def _resync_now_and_then(self) -> None:
        """The net under everything: a lost event costs at most this long."""
        while True:
            await asyncio.sleep(self._config.resync_interval_s)
            await asyncio.to_thread(self._certificates.reload_if_changed)
            self._look_again(containers=True)

    def _look_again(self, *, containers: bool = False) -> None:
        self._containers_stale |= containers
        self._trigger.set()

    def _watch_overlays(self, present: list[Path]) -> None:
        """A watcher for each overlay namespace that has come, none for those that have gone."""
        for path in self._overlay_watchers.keys() - set(present):
            self._overlay_watchers.pop(path).cancel()
        for path in set(present) - self._overlay_watchers.keys():
            task = self._group.create_task(self._follow_links(str(path)), name=f"links {path}")
            self._overlay_watchers[path] = task

    # -- the loop -------------------------------------------------------------------------

    async def _reconcile_forever(self) -> None:
        while True:
            await self._trigger.wait()
            await asyncio.sleep(_COALESCE_S)
            self._trigger.clear()
            try:
                await self._reconcile()
            except (SwarmError, DatapathError, OutOfIds, ExceptionGroup, OSError) as error:
                self._failed(error)
                await asyncio.sleep(_SYNC_RETRY_S)
                self._look_again()
            else:
                self._succeeded()

    async def _reconcile(self) -> None:
        """What events have told is acted on at once, before dockerd is asked for more."""
        if self._local is not None:
            await self._look_and_sync()
        if self._containers_stale:
            self._containers_stale = False
            try:
                self._containers = await self._swarm.local_tasks()
            except SwarmError:
                self._containers_stale = True
                raise
            await self._look_and_sync()

    async def _look_and_sync(self) -> None:
        began = time.monotonic()
        local = await self._in_worker(self._viewer.look, self._containers, self._truth.states)
        self._watch_overlays(await self._in_worker(self._viewer.overlays))
        self._local = local
        self._truth.forget(self._mesh.tasks.keys() | local.tasks.keys())
        self._hub.report(local.vtep, self._reported(local))
        mesh = self._mesh
        desired = desired_state(mesh, local)
        steps = await self._in_worker(self._reconciler.sync, desired, whole=mesh.version > 0)
        self._timer.observe(time.monotonic() - began)
        self._synced = self._synced or mesh.version > 0
        if steps:
            log.info("maps.synced", steps=steps, state=mesh.version)

    def _reported(self, local: LocalView) -> dict[str, BackendState]:
        """The states of this node's tasks, those that have ended included."""
        return self._truth.states | {task.id: task.state for task in local.tasks.values()}

    def _failed(self, error: Exception) -> None:
        self._timer.failed()
        causes = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
        text = "; ".join(str(cause) for cause in causes)
        if text != self._sync_error:
            self._sync_error = text
            log.error("sync.failed", error=text)

    def _succeeded(self) -> None:
        if self._sync_error:
            self._sync_error = ""
            log.info("sync.recovered")

    async def _in_worker(self, function: Callable[..., T], *args: object, **kwargs: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, lambda: function(*args, **kwargs))

    # -- answers --------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether the maps hold what the Swarm wants, as far as is known."""
        return self._synced and not self._sync_error

    async def status(self) -> Status:
        """All that an operator may want to know."""
        hub = self._hub_status()
        return await self._in_worker(self._make_status, hub)

    async def flows(self) -> list[FlowStatus]:
        """The flows that this node translates."""
        reader = self._reader()
        return await self._in_worker(lambda: list_flows(self._datapath.module, reader.names()))

    async def metrics(self) -> bytes:
        """The Prometheus exposition."""
        return render(await self.status(), self._timer)

    def _reader(self) -> MapReader:
        return MapReader(self._mesh, self._reconciler, self._datapath, self._info.node_id)

    def _make_status(self, hub: HubStatus) -> Status:
        reader, local = self._reader(), self._local
        found = notes(self._mesh, local) if local else ()
        return Status(
            version=STATUS_VERSION,
            problems=self._problems(hub, reader.datapath_status("", 0)),
            node=NodeStatus(
                id=self._info.node_id,
                hostname=self._info.hostname,
                vtep=self._info.node_addr,
                uptime_s=time.monotonic() - self._started,
                agent_version=ebpfmesh.__version__,
                engine_version=self._info.engine_version,
            ),
            datapath=reader.datapath_status(self._config.return_mode, self._config.mesh_vni),
            hub=hub,
            maps=reader.maps(),
            services=reader.services(),
            drops=reader.drops(),
            handbacks=reader.handbacks(),
            notes=tuple(NoteStatus(str(n.severity), n.subject, n.text) for n in found),
            syncs=self._timer.count,
            sync_errors=self._timer.errors,
            last_error=self._sync_error,
        )

    def _hub_status(self) -> HubStatus:
        status = self._hub.status
        return HubStatus(
            role="hub" if self._hub_role.active else "agent",
            connected=status.connected,
            address=status.hub_address,
            since_s=status.since_s,
            state_version=status.state_version,
            age_s=status.state_age_s,
            last_error=status.last_error,
        )

    def _problems(self, hub: HubStatus, datapath: DatapathStatus) -> tuple[str, ...]:
        problems = []
        if not hub.connected:
            cause = f": {hub.last_error}" if hub.last_error else ""
            problems.append(f"no hub for {hub.since_s:.0f} s{cause}")
        if not self._synced:
            problems.append("nothing is known of the Swarm yet")
        if self._sync_error:
            problems.append(f"the maps are behind: {self._sync_error}")
        if not datapath.programs:
            problems.append("no programs are attached")
        return tuple(problems)
