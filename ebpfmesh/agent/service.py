# SPDX-License-Identifier: Apache-2.0
"""The agent: wires what it follows (dockerd, the node's links, the hubs) to the keeper."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import structlog

import ebpfmesh
from ebpfmesh.accepting import raise_limit_of_files
from ebpfmesh.agent.answers import Answers
from ebpfmesh.agent.coverage import Coverage
from ebpfmesh.agent.detach import detach_strays
from ebpfmesh.agent.follow import Follower, cover
from ebpfmesh.agent.http import serve_metrics, serve_socket
from ebpfmesh.agent.hubrole import HubRole
from ebpfmesh.agent.journal import Journal
from ebpfmesh.agent.keeper import Keeper
from ebpfmesh.agent.offers import Offers
from ebpfmesh.agent.readiness import Readiness
from ebpfmesh.agent.reconcile import Reconciler
from ebpfmesh.agent.recount import RECOUNT_INTERVAL_S, patience, recount
from ebpfmesh.agent.saver import Saver
from ebpfmesh.agent.viewer import Viewer
from ebpfmesh.agent.waykeeper import WayKeeper
from ebpfmesh.agent.worker import Workers
from ebpfmesh.config import Config
from ebpfmesh.datapath.attach import Attacher, XdpPolicy
from ebpfmesh.datapath.datapath import (
    Datapath,
    attach_sockets,
    begin_serving,
    end_move,
    open_datapath,
    take_place,
)
from ebpfmesh.datapath.errors import DatapathError
from ebpfmesh.datapath.filler import Builder
from ebpfmesh.datapath.links import link_changes
from ebpfmesh.datapath.nics import patterns
from ebpfmesh.hub.client import HubClient
from ebpfmesh.hub.errors import HubError
from ebpfmesh.hub.link import HubAddress
from ebpfmesh.hub.store import StateStore
from ebpfmesh.hub.tls import Certificates
from ebpfmesh.ids import Ids
from ebpfmesh.model import MeshState
from ebpfmesh.swarm.client import SwarmClient
from ebpfmesh.swarm.errors import SwarmError
from ebpfmesh.swarm.events import Event, Kind
from ebpfmesh.swarm.local import DATA_PATH_PORT, NodeInfo
from ebpfmesh.takeover import seconds_left

log = structlog.get_logger(__name__)

_START_RETRY_S = 1.0
_WATCH_RETRY_S = 1.0
_HUB_FIRST_S = 2.0


class Agent:
    """One node's agent. `run` does everything."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._workers = Workers()

    async def run(self) -> None:
        """Runs until cancelled. What is attached stays attached and goes on working.

        Raises `DatapathError` if the datapath cannot be opened on this node.
        """
        raise_limit_of_files()
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._workers.close)
            url = f"unix://{self._config.docker_socket}"
            self._swarm = await stack.enter_async_context(SwarmClient(url))
            self._info, self._certificates = await self._join()
            await self._prepare()
            await self._serve(stack)
            stack.push_async_callback(self._hub_role.stop)
            await self._run_loops()

    # -- start ----------------------------------------------------------------------------

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
        """Opens the datapath and takes up the last known state."""
        config, info = self._config, self._info
        viewer = Viewer(
            info.node_id,
            info.node_addr,
            config.device,
            Path(config.netns_dir),
            patterns(config.interfaces),
            spoof_check=config.spoof_check,
            vip_sockets=config.vip_mode == "socket",
        )
        self._datapath, reconciler = await self._workers.maps(self._open_datapath, viewer)
        store = StateStore(Path(config.state_dir) / "mesh.state")
        known = await asyncio.to_thread(store.load, self._swarm_id())
        self._saver = Saver(store, self._swarm_id)
        self._serving = bool(reconciler.actual.backends)
        self._journal = Journal(reconciler.actual)
        self._hub = HubClient(
            self._certificates,
            known=known,
            agent=ebpfmesh.__version__,
            on_hub=self._journal.hub,
        )
        self._hub_role = HubRole(config, self._swarm, self._certificates)
        readiness, seen = Readiness(config.ready_timeout_s), reconciler.ready_tasks()
        coverage = Coverage()
        readiness.adopt(seen)
        coverage.adopt(seen)
        self._keeper = Keeper(
            self._swarm,
            viewer,
            reconciler,
            self._workers,
            readiness=readiness,
            coverage=coverage,
            offers=Offers(seen),
            journal=self._journal,
            report=self._hub.report,
            seen=seen | (known or MeshState()).tasks_on(info.node_id),
            groups=Path(self._datapath.cgroup) if self._datapath.cgroup else None,
        )
        self._keeper.take_state(known or MeshState())
        log.info(
            "agent.started",
            node=info.hostname,
            vtep=info.node_addr,
            device=self._datapath.device.name,
            engine=info.engine_version,
            known_state=self._keeper.mesh.version,
        )

    def _swarm_id(self) -> str:
        return self._certificates.identity.swarm_id

    def _open_datapath(self, viewer: Viewer) -> tuple[Datapath, Reconciler]:
        config, info = self._config, self._info
        port = config.vxlan_port
        if port == DATA_PATH_PORT:
            port = info.data_path_port
        datapath = open_datapath(config, viewer.device(), info.node_addr, port)
        attacher = Attacher(datapath.module, XdpPolicy(config.xdp))
        if datapath.move:
            follow = Follower(attacher, viewer.everywhere())
            take_place(datapath, config, follow.load, follow.attach)
        ids = Ids(
            max_frontends=config.max_frontends,
            max_services=config.max_services,
            max_backends=config.max_backends,
        )
        reconciler = Reconciler(datapath.maps, attacher, ids, build=Builder())
        reconciler.adopt()
        left_s = seconds_left(begin_serving(datapath, config.takeover_grace_s), time.monotonic_ns())
        if left_s:
            log.info("takeover.grace", seconds=round(left_s))
        for stray in detach_strays(viewer.places()):
            log.info("programs.detached", role=stray.role, link=stray.name)
        if reconciler.actual.backends:
            cover(attacher, viewer.everywhere())
        if not attach_sockets(datapath, vips=config.vip_mode == "socket"):
            log.warning("agent.no_cgroup2", effect="localhost:PORT is not balanced")
        if datapath.move:
            end_move(datapath)
        return datapath, reconciler

    async def _serve(self, stack: contextlib.AsyncExitStack) -> None:
        config, info = self._config, self._info
        answers = Answers(
            config,
            info,
            self._datapath,
            self._keeper,
            self._hub,
            self._hub_role,
            self._saver,
            self._workers,
        )
        runner = await serve_socket(answers, Path(config.socket))
        stack.push_async_callback(runner.cleanup)
        host = config.metrics_address or info.node_addr
        try:
            face = await serve_metrics(answers, host, config.metrics_port, page=config.status_page)
        except OSError as error:
            # Balancing goes on without metrics rather than not at all.
            log.error("metrics.not_served", host=host, port=config.metrics_port, error=str(error))
            return
        stack.push_async_callback(face.cleanup)

    async def _run_loops(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_role(), name="role")
            group.create_task(self._follow_events(), name="events")
            group.create_task(self._follow_states(), name="states")
            group.create_task(self._saver.run(self._hub.states), name="save")
            group.create_task(self._hub.run(), name="hub-client")
            group.create_task(self._follow_links(), name="links")
            group.create_task(self._resync_now_and_then(), name="resync")
            group.create_task(self._recount_now_and_then(), name="recount")
            group.create_task(self._keep(), name="keeper")
            group.create_task(self._way_keeper().run(), name="ways")

    def _way_keeper(self) -> WayKeeper:
        keeper = self._keeper
        return WayKeeper(self._workers.ways, lambda: (keeper.mesh, keeper.local))

    async def _keep(self) -> None:
        """Keeps the maps in step: such as serve already may be ahead of what was saved.

        So a hub has a moment to say what holds now, before the saved state takes anybody out.
        """
        if self._serving:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hub.caught_up.wait(), _HUB_FIRST_S)
        await self._keeper.run()

    # -- what it follows ------------------------------------------------------------------

    async def _follow_role(self) -> None:
        """Promotions, demotions, other managers' addresses; a line per new reason not to know."""
        reason = ""
        while True:
            try:
                self._info = await self._swarm.info()
                await self._hub_role.follow(self._info)
                self._hub.set_hubs(self._hub_addresses())
                reason = ""
            except (SwarmError, OSError) as error:
                if str(error) != reason:
                    reason = str(error)
                    log.warning("role.unknown", error=reason)
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
            if not isinstance(event, Event):
                self._keeper.look_again("dockerd: all its events", containers=True)
            elif event.kind is Kind.CONTAINER:
                self._keeper.notice(event)

    async def _follow_states(self) -> None:
        async for state in self._hub.states.changes():
            self._keeper.take_state(state)

    async def _follow_links(self) -> None:
        """Looks again at every change, and after an interruption: it may have hidden one.

        Docker makes both ends of every veth in the node's own namespace and moves them from
        there, so this one watcher hears of all. A socket in an overlay's namespace would keep
        that alive after dockerd has given it up, and dockerd from making it again.
        """
        while True:
            try:
                async for _ in link_changes():
                    self._keeper.look_again("links")
            except OSError as error:
                log.warning("links.watch_interrupted", error=str(error))
            await asyncio.sleep(_WATCH_RETRY_S)
            self._keeper.look_again("links, watched again")

    async def _resync_now_and_then(self) -> None:
        """The net under everything: a lost event costs at most this long."""
        while True:
            await asyncio.sleep(self._config.resync_interval_s)
            try:
                await asyncio.to_thread(self._certificates.reload_if_changed)
            except HubError as error:
                log.warning("certificates.not_reloaded", error=str(error))
            self._keeper.look_again("a look now and then", containers=True)

    async def _recount_now_and_then(self) -> None:
        """Only where a service balances by connections does it cost anything."""
        limits = patience(self._config)
        while True:
            await asyncio.sleep(RECOUNT_INTERVAL_S)
            module, reconciler = self._datapath.module, self._keeper.reconciler
            try:
                await self._workers.maps(recount, reconciler, module, limits)
            except DatapathError as error:
                log.warning("connections.not_recounted", error=str(error))
