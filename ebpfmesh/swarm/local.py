# SPDX-License-Identifier: Apache-2.0
"""What this node's dockerd says of the node and its task containers. Pure, no I/O."""

from __future__ import annotations

from datetime import datetime

import msgspec

from ebpfmesh.model import BackendState
from ebpfmesh.swarm.api import ContainerDoc, InfoDoc, NetworkContainer, NetworkDoc
from ebpfmesh.swarm.errors import NotInSwarm

TASK_ID = "com.docker.swarm.task.id"
SERVICE_ID = "com.docker.swarm.service.id"
SHORT_ID = 12
"""dockerd names a gateway endpoint after the first 12 characters of an id."""

DATA_PATH_PORT = 4789

NO_HEALTH_CHECK = "none"
_OF_HEALTH = {"starting": BackendState.STARTING, "unhealthy": BackendState.DRAINING}


class Manager(msgspec.Struct, frozen=True):
    """A manager, and the host part of its address."""

    node_id: str
    host: str


class NodeInfo(msgspec.Struct, frozen=True):
    """This node's place in the Swarm.

    `data_path_port` is known to managers only and otherwise the default.
    """

    node_id: str
    node_addr: str
    hostname: str
    is_manager: bool
    remote_managers: tuple[Manager, ...]
    docker_root: str
    engine_version: str
    cluster_id: str = ""
    data_path_port: int = DATA_PATH_PORT


class Endpoint(msgspec.Struct, frozen=True):
    """A container's address and MAC address on one network."""

    address: str
    mac: str


class LocalContainer(msgspec.Struct, frozen=True):
    """A container of this node that is a Swarm task.

    `sandbox` is the path of its network namespace, `endpoints` is keyed by network id, and
    `gateway` is its end of docker_gwbridge, if it has one. `started_s` is when it was started, by
    this node's clock (seconds since 1970), 0 if dockerd does not say. `health` is ``none`` without
    a health check.
    """

    id: str
    task_id: str
    service_id: str
    sandbox: str
    pid: int
    state: BackendState
    health: str = "none"
    started_s: float = 0.0
    endpoints: dict[str, Endpoint] = {}
    gateway: Endpoint | None = None


def node_info(doc: InfoDoc) -> NodeInfo:
    """Read `docker info`, or say why this node has no place in a Swarm."""
    swarm = doc.swarm
    state = swarm.local_node_state if swarm else "inactive"
    if state == "locked":
        raise NotInSwarm("this manager is locked; run `docker swarm unlock` first")
    if swarm is None or not swarm.node_id or state != "active":
        raise NotInSwarm(
            f"this node is not in a Swarm (state: {state}); "
            "run `docker swarm init` or `docker swarm join` first"
        )
    cluster = swarm.cluster
    return NodeInfo(
        node_id=swarm.node_id,
        node_addr=swarm.node_addr,
        hostname=doc.name,
        is_manager=swarm.control_available,
        remote_managers=tuple(
            Manager(peer.node_id, _host(peer.addr)) for peer in swarm.remote_managers or []
        ),
        docker_root=doc.docker_root_dir,
        engine_version=doc.server_version,
        cluster_id=cluster.id if cluster else "",
        data_path_port=(cluster and cluster.data_path_port) or DATA_PATH_PORT,
    )


def _host(address: str) -> str:
    """The host of ``host:port``; an IPv6 host has brackets."""
    return address.rpartition(":")[0].strip("[]")


def local_container(doc: ContainerDoc, gateways: NetworkDoc | None) -> LocalContainer | None:
    """The task that a container runs, or None for a container that is none."""
    labels = doc.config.labels or {}
    task_id = labels.get(TASK_ID)
    if task_id is None:
        return None
    settings = doc.network_settings
    health = doc.state.health.status if doc.state.health else NO_HEALTH_CHECK
    return LocalContainer(
        id=doc.id,
        task_id=task_id,
        service_id=labels.get(SERVICE_ID, ""),
        sandbox=settings.sandbox_key,
        pid=doc.state.pid,
        state=_state(doc.state.running, health),
        health=health or NO_HEALTH_CHECK,
        started_s=_seconds(doc.state.started_at or ""),
        endpoints={
            end.network_id: Endpoint(end.ip_address, (end.mac_address or "").lower())
            for end in (settings.networks or {}).values()
            if end.network_id and end.ip_address
        },
        gateway=_gateway(doc, gateways),
    )


def _state(running: bool, health: str) -> BackendState:
    """What the container's own condition allows; the Swarm may allow less."""
    if not running:
        return BackendState.GONE
    return _OF_HEALTH.get(health, BackendState.READY)


def _seconds(stamp: str) -> float:
    """A time as dockerd writes it (RFC 3339, nanoseconds); 0 if it is none."""
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _gateway(doc: ContainerDoc, gateways: NetworkDoc | None) -> Endpoint | None:
    """The container's endpoint on docker_gwbridge, by container id or by its derived name."""
    listed = (gateways and gateways.containers) or {}
    found = listed.get(doc.id) or _by_name(doc, listed)
    if found is None or not found.ipv4_address:
        return None
    return Endpoint(found.ipv4_address.partition("/")[0], (found.mac_address or "").lower())


def _by_name(doc: ContainerDoc, listed: dict[str, NetworkContainer]) -> NetworkContainer | None:
    ids = (doc.id, doc.network_settings.sandbox_id)
    names = {f"gateway_{an_id[:SHORT_ID]}" for an_id in ids if an_id}
    return next((end for end in listed.values() if end.name in names), None)
