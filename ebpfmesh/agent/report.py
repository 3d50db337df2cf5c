# SPDX-License-Identifier: Apache-2.0
"""Reads the maps and makes the `Status` that command line and metrics show."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ebpfmesh.agent.census import Count
from ebpfmesh.agent.reconcile import Reconciler
from ebpfmesh.datapath.attach import Role
from ebpfmesh.datapath.counters import Counter, Counters
from ebpfmesh.datapath.datapath import Datapath
from ebpfmesh.ids import NO_ID
from ebpfmesh.labels import in_words, read
from ebpfmesh.model import (
    Backend,
    BackendState,
    EndpointMode,
    Frontend,
    FrontendKind,
    MeshState,
    Network,
    Pool,
    PoolKey,
    Service,
)
from ebpfmesh.status import (
    BackendStatus,
    DatapathStatus,
    FrontendStatus,
    MapStatus,
    NicStatus,
    ServiceStatus,
    Traffic,
)
from ebpfmesh.takeover import SECOND_NS, seconds_left


def _traffic(counter: Counter) -> Traffic:
    return Traffic(
        packets_to_backend=counter.packets_to_backend,
        packets_to_client=counter.packets_to_client,
        bytes_to_backend=counter.bytes_to_backend,
        bytes_to_client=counter.bytes_to_client,
        connections=counter.connections,
    )


@dataclass(frozen=True)
class MapReader:
    """One look at a node's maps. Blocks on system calls: use it in a thread."""

    mesh: MeshState
    reconciler: Reconciler
    datapath: Datapath
    node_id: str
    count: Count

    @property
    def _counters(self) -> Counters:
        return self.datapath.counters

    @cached_property
    def _avoided(self) -> frozenset[int]:
        return self.reconciler.maps.avoided(time.monotonic())

    def datapath_status(self, return_mode: str, mesh_vni: int) -> DatapathStatus:
        """Where programs are, and in which mode XDP runs."""
        attached = self.reconciler.attached.values()
        nics = sorted(
            (a for a in attached if a.attachment.role in {Role.NIC, Role.EDGE}),
            key=lambda a: (a.attachment.role != Role.NIC, a.attachment.name),
        )
        told, now_ns = self.datapath.maps.run_settings(), time.monotonic_ns()
        return DatapathStatus(
            device=self.datapath.device.name,
            xdp=next((str(a.xdp) for a in nics if a.attachment.role == Role.NIC), "off"),
            return_mode=return_mode,
            programs=len(attached),
            maglev_size=self.datapath.maps.maglev_size,
            layout=self.datapath.layout,
            mesh_vni=mesh_vni,
            nics=tuple(NicStatus(a.attachment.name, str(a.xdp)) for a in nics),
            mode=told.mode.name.lower(),
            mode_age_s=(now_ns - told.since_ns) / SECOND_NS,
            takeover_left_s=seconds_left(told, now_ns),
        )

    def maps(self) -> tuple[MapStatus, ...]:
        """How full the maps are."""
        module, ids = self.datapath.module, self.reconciler.ids
        arrays = {
            "pools": (len(ids.pools.ids), module.table("pools").max_entries),
            "backends": (len(ids.backends.ids), module.table("backends").max_entries),
        }
        hashes = {n: (used, module.table(n).max_entries) for n, used in self.count.sizes.items()}
        return tuple(MapStatus(n, used, of) for n, (used, of) in {**arrays, **hashes}.items())

    def services(self) -> tuple[ServiceStatus, ...]:
        """A row for each service on each of its networks, by name."""
        rows = [
            self._service(service, network, self.count.flows)
            for service in self.mesh.services.values()
            for network in self._networks(service)
        ]
        return tuple(sorted(rows, key=lambda row: (row.name, row.network)))

    def drops(self) -> dict[str, int]:
        """Packets dropped, by reason."""
        return self._reasons("drop")

    def handbacks(self) -> dict[str, int]:
        """Packets handed back to the kernel, by reason."""
        return self._reasons("handback")

    def retries(self) -> dict[str, int]:
        """Flows that got another backend before they were lost, by reason."""
        return self._reasons("retry")

    def _reasons(self, kind: str) -> dict[str, int]:
        return {name: n for (k, name), n in self._counters.reasons().items() if k == kind}

    def _networks(self, service: Service) -> list[Network]:
        """Where the service has a VIP, where its tasks are (dnsrr), and ingress if it publishes."""
        wanted = set(service.vips)
        if service.mode is EndpointMode.DNSRR:
            tasks = [t for t in self.mesh.tasks.values() if t.service_id == service.id]
            wanted |= {network for task in tasks for network in task.addresses}
        if service.ports:
            wanted |= {n.id for n in self.mesh.networks.values() if n.ingress}
        return [n for n in self.mesh.networks.values() if n.id in wanted]

    def _service(
        self, service: Service, network: Network, flows: NDArray[np.int64]
    ) -> ServiceStatus:
        key = PoolKey(service.id, network.vni)
        actual = self.reconciler.actual
        pool = actual.pools.get(key)
        backends = sorted(
            (b for b in actual.backends.values() if b.pool == key), key=lambda b: b.key
        )
        frontends = sorted(
            (f for f in actual.frontends.values() if f.pool == key), key=lambda f: f.key
        )
        listed = sum(
            t.service_id == service.id and network.id in t.addresses
            for t in self.mesh.tasks.values()
        )
        ready = len(pool.ready) if pool else 0
        total = len(backends) if pool else listed
        ids = [self.reconciler.ids.backends.ids.get(b.key, NO_ID) for b in backends]
        return ServiceStatus(
            id=service.id,
            name=service.name,
            network=network.name,
            vni=network.vni,
            mode=str(service.mode),
            state=_state(service, pool, ready=ready, total=total),
            ready=ready,
            total=total,
            flows=int(flows[ids].sum()) if ids else 0,
            frontends=tuple(self._frontend(f) for f in frontends),
            backends=tuple(self._backend(b) for b in backends),
            policy=in_words(read(service.labels).policy),
            chosen=len(pool.chosen) if pool else 0,
        )

    def _frontend(self, frontend: Frontend) -> FrontendStatus:
        number = self.reconciler.ids.frontends.ids.get(frontend.key, NO_ID)
        return FrontendStatus(
            name=frontend.key.name,
            kind=FrontendKind(frontend.kind).name.lower(),
            target_port=frontend.target_port,
            traffic=_traffic(self._counters.frontend(number)),
            entered=_traffic(self._counters.entry(number)),
        )

    def _backend(self, backend: Backend) -> BackendStatus:
        number = self.reconciler.ids.backends.ids.get(backend.key, NO_ID)
        task = self.mesh.tasks.get(backend.key.task_id)
        node = self.mesh.nodes.get(task.node_id) if task else None
        return BackendStatus(
            task=backend.key.task_id,
            address=backend.address,
            node=node.hostname if node else "",
            local=bool(task and task.node_id == self.node_id),
            state=BackendState(backend.state).name.lower(),
            avoided=backend.state is BackendState.READY and number in self._avoided,
            traffic=_traffic(self._counters.backend(number)),
            share=self.reconciler.shares.get(backend.pool, {}).get(backend.key, 0.0),
        )


def _state(service: Service, pool: Pool | None, *, ready: int, total: int) -> str:
    if service.mode is EndpointMode.DNSRR:
        return "dnsrr"
    if pool is None:
        return "elsewhere"
    if not pool.chosen:
        return "down"
    return "ok" if ready == total else "degraded"
