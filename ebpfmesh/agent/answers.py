# SPDX-License-Identifier: Apache-2.0
"""What the agent answers when it is asked for its status, its flows or its metrics."""

from __future__ import annotations

import asyncio
import time

import ebpfmesh
from ebpfmesh.agent.capture import Capturer
from ebpfmesh.agent.census import Census, Count, count
from ebpfmesh.agent.explain import Surroundings, explain
from ebpfmesh.agent.flowlist import list_flows
from ebpfmesh.agent.hubrole import HubRole
from ebpfmesh.agent.keeper import Keeper
from ebpfmesh.agent.naming import Naming
from ebpfmesh.agent.problems import Condition, problems
from ebpfmesh.agent.report import MapReader
from ebpfmesh.agent.saver import Saver
from ebpfmesh.agent.tracer import Tracer
from ebpfmesh.agent.worker import Workers
from ebpfmesh.changes import Change
from ebpfmesh.config import Config
from ebpfmesh.datapath.datapath import Datapath
from ebpfmesh.datapath.events import Ring
from ebpfmesh.datapath.lookup import Lookup
from ebpfmesh.desired import notes, silent_nodes
from ebpfmesh.explanation import Explanation, Question
from ebpfmesh.hub.client import HubClient
from ebpfmesh.metrics import render
from ebpfmesh.status import (
    STATUS_VERSION,
    FlowStatus,
    HubStatus,
    NodeStatus,
    NoteStatus,
    Status,
)
from ebpfmesh.swarm.local import NodeInfo


class Answers:
    """Reads the parts of a running agent; changes nothing."""

    def __init__(
        self,
        config: Config,
        info: NodeInfo,
        datapath: Datapath,
        keeper: Keeper,
        hub: HubClient,
        hub_role: HubRole,
        saver: Saver,
        workers: Workers,
    ) -> None:
        """The parts; `tracer` and `capturer` are made of them."""
        self._started = time.monotonic()
        self._config = config
        self._info = info
        self._datapath = datapath
        self._keeper = keeper
        self._hub = hub
        self._hub_role = hub_role
        self._saver = saver
        self._worker = workers.maps
        module = datapath.module
        self._census = Census(lambda: count(module))
        self.tracer = Tracer(
            lambda: Ring(module),
            self._naming,
            reasons=module.reasons,
            tunnel_port=module.value("VXLAN_PORT"),
        )
        self.capturer = Capturer(keeper, workers.links, module.value("VXLAN_PORT"))

    def is_ready(self) -> bool:
        """Whether the maps hold what the Swarm wants, as far as is known."""
        return self._keeper.synced and not self._keeper.error

    async def status(self) -> Status:
        """All that an operator may want to know."""
        counted = await asyncio.to_thread(self._census.taken)
        return await self._worker(self._status, self._hub_status(), counted)

    async def flows(self) -> list[FlowStatus]:
        """The flows that this node translates."""
        whose = self._naming().of_number
        # Not where maps are written: a million of them take their time.
        return await asyncio.to_thread(list_flows, self._datapath.module, whose)

    async def explain(self, asked: Question) -> Explanation:
        """Which backend a packet would get here, and why."""
        return await self._worker(self._explain, asked)

    def changes(self) -> tuple[Change, ...]:
        """The last changes of what this node balances, the newest first."""
        return self._keeper.journal.recent

    async def metrics(self) -> bytes:
        """The Prometheus exposition."""
        status, timers = await self.status(), (self._keeper.timer, self._keeper.convergence)
        most = self._config.metrics_backends
        # Of a large Swarm it takes a second, in which hubs and dockerd must be heard.
        return await asyncio.to_thread(render, status, *timers, backends=most)

    def _explain(self, asked: Question) -> Explanation:
        mesh, config = self._keeper.mesh, self._config
        around = Surroundings(
            vtep=self._info.node_addr,
            return_mode=config.return_mode,
            udp_timeout_s=config.udp_timeout_s,
            mode=self._datapath.maps.run_settings().mode,
            services={service.id: service.name for service in mesh.services.values()},
            networks={network.vni: network.name for network in mesh.networks.values()},
            nodes={node.vtep: node.hostname for node in mesh.nodes.values() if node.vtep},
        )
        return explain(asked, Lookup(self._datapath.module), around)

    def _naming(self) -> Naming:
        keeper = self._keeper
        actual, ids = keeper.reconciler.actual, keeper.reconciler.ids.backends.ids
        return Naming(keeper.mesh, actual.frontends, actual.backends, ids)

    def _status(self, hub: HubStatus, counted: Count) -> Status:
        keeper, node_id = self._keeper, self._info.node_id
        reader = MapReader(keeper.mesh, keeper.reconciler, self._datapath, node_id, counted)
        datapath = reader.datapath_status(self._config.return_mode, self._config.mesh_vni)
        found = notes(keeper.mesh, keeper.local) if keeper.local else ()
        return Status(
            version=STATUS_VERSION,
            problems=problems(self._condition(hub, datapath.programs)),
            node=self._node_status(),
            datapath=datapath,
            hub=hub,
            maps=reader.maps(),
            services=reader.services(),
            drops=reader.drops(),
            handbacks=reader.handbacks(),
            retries=reader.retries(),
            notes=tuple(NoteStatus(str(n.severity), n.subject, n.text) for n in found),
            syncs=keeper.timer.count,
            sync_errors=keeper.timer.errors,
            last_error=keeper.error,
            unreachable=tuple(node.hostname for node in silent_nodes(keeper.mesh)),
        )

    def _node_status(self) -> NodeStatus:
        return NodeStatus(
            id=self._info.node_id,
            hostname=self._info.hostname,
            vtep=self._info.node_addr,
            uptime_s=self._uptime_s,
            agent_version=ebpfmesh.__version__,
            engine_version=self._info.engine_version,
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

    @property
    def _uptime_s(self) -> float:
        return time.monotonic() - self._started

    def _condition(self, hub: HubStatus, programs: int) -> Condition:
        keeper, local = self._keeper, self._keeper.local
        return Condition(
            hub=hub,
            uptime_s=self._uptime_s,
            synced=keeper.synced,
            programs=programs,
            link=self._datapath.device.name,
            link_there=local is None or bool(local.device),
            link_up=local is None or local.link_up,
            behind=keeper.error,
            unsaved=self._saver.error,
            uncovered=keeper.coverage.overdue,
        )
