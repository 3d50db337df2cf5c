# SPDX-License-Identifier: Apache-2.0
"""What people call the backends and frontends of a packet. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ebpfmesh.ids import NO_ID
from ebpfmesh.model import Backend, BackendKey, Frontend, FrontendKey, MeshState, PoolKey, Protocol


class Named(NamedTuple):
    """A service on a network, by name; empty where none is known."""

    service: str = ""
    network: str = ""


class Naming:
    """As the maps are now: `ids` has the number that each backend has in them."""

    def __init__(
        self,
        mesh: MeshState,
        frontends: Mapping[FrontendKey, Frontend],
        backends: Mapping[BackendKey, Backend],
        ids: Mapping[BackendKey, int],
    ) -> None:
        self._services = {service.id: service.name for service in mesh.services.values()}
        self._networks = {network.vni: network.name for network in mesh.networks.values()}
        self._nodes = {node.vtep: node.hostname for node in mesh.nodes.values() if node.vtep}
        self._frontends = frontends
        self._backends = {ids.get(key, NO_ID): each for key, each in backends.items()}
        self._addresses: dict[tuple[int, str], PoolKey] = {}
        for backend in backends.values():
            self._addresses[backend.key.vni, backend.address] = backend.pool
            if backend.gateway:
                self._addresses[0, backend.gateway.address] = backend.pool

    def backend(self, number: int) -> Backend | None:
        """The backend with that number."""
        return self._backends.get(number) if number else None

    def of_number(self, number: int) -> Named:
        """Whose the backend with that number is."""
        backend = self.backend(number)
        return self.of_backend(backend) if backend else Named()

    def node(self, vtep: str) -> str:
        """The name of a node, its VTEP if it has none."""
        return self._nodes.get(vtep, vtep)

    def of_backend(self, backend: Backend) -> Named:
        """Whose it is."""
        return self._named(backend.pool)

    def of_end(self, vni: int, address: str, port: int, protocol: int) -> Named:
        """Whose frontend or backend one end of a packet is."""
        key = FrontendKey(vni, address)
        if not vni:
            if protocol not in set(Protocol):
                return Named()
            key = FrontendKey(0, port=port, protocol=Protocol(protocol))
        frontend = self._frontends.get(key)
        pool = frontend.pool if frontend else None
        return self._named(pool or self._addresses.get((vni, address)))

    def _named(self, pool: PoolKey | None) -> Named:
        if pool is None:
            return Named()
        service = self._services.get(pool.service_id, pool.service_id)
        return Named(service, self._networks.get(pool.vni, ""))
