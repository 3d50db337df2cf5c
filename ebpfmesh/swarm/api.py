# SPDX-License-Identifier: Apache-2.0
"""The Docker Engine API's objects, cut down to the fields that are read. Pure, no I/O.

Engines from 20.10 to 28 leave out or set to null what does not apply, so every field may be
missing or None; `ebpfmesh.swarm.mesh` and `ebpfmesh.swarm.local` give them a meaning.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from ebpfmesh.swarm.errors import UnexpectedAnswer
from ebpfmesh.typed import prepare

T = TypeVar("T")


class Doc(msgspec.Struct, frozen=True, rename="pascal"):
    """Base of every API object: immutable, comparable, unknown fields ignored."""


def decode(answer: object, into: type[T]) -> T:
    """Give an API answer its type, or say which part of it is not as documented."""
    try:
        return msgspec.convert(answer, into)
    except msgspec.ValidationError as error:
        raise UnexpectedAnswer(f"dockerd's answer does not decode: {error}") from error


def decode_json(answer: bytes, into: type[T]) -> T:
    """As `decode`, from the text itself: a fifth of the time where the answer is long."""
    try:
        return msgspec.json.decode(answer, type=into)
    except msgspec.ValidationError as error:
        raise UnexpectedAnswer(f"dockerd's answer does not decode: {error}") from error
    except msgspec.DecodeError as error:
        raise UnexpectedAnswer(f"dockerd answered no JSON: {error}") from error


class Version(Doc, frozen=True):
    """`index` is the position in the managers' log at which the object last changed."""

    index: int = 0


# --- services ---------------------------------------------------------------------------


class EndpointSpec(Doc, frozen=True):
    """What the user asked for."""

    mode: str | None = None


class ServiceSpec(Doc, frozen=True):
    """A service as its user described it."""

    name: str = ""
    labels: dict[str, str] | None = None
    endpoint_spec: EndpointSpec | None = None


class VirtualIP(Doc, frozen=True):
    """A service's address on one network; `addr` has a prefix length."""

    network_id: str = msgspec.field(name="NetworkID", default="")
    addr: str | None = None


class PortDoc(Doc, frozen=True):
    """A published port; `publish_mode` is `ingress` or `host`."""

    protocol: str | None = None
    target_port: int = 0
    published_port: int = 0
    publish_mode: str | None = None


class ServiceEndpoint(Doc, frozen=True):
    """What the Swarm gave the service."""

    virtual_ips: list[VirtualIP] | None = msgspec.field(name="VirtualIPs", default=None)
    ports: list[PortDoc] | None = None


class UpdateStatus(Doc, frozen=True):
    """`state` is `updating`, `paused`, `completed`, or one of `rollback_*`."""

    state: str | None = None


class ServiceDoc(Doc, frozen=True):
    """`GET /services`."""

    id: str = msgspec.field(name="ID")
    version: Version = Version()
    updated_at: str | None = None
    update_status: UpdateStatus | None = None
    spec: ServiceSpec = ServiceSpec()
    endpoint: ServiceEndpoint | None = None


# --- tasks ------------------------------------------------------------------------------


class TaskStatus(Doc, frozen=True):
    """How far the task has come."""

    state: str = ""


class NetworkRef(Doc, frozen=True):
    """The network of an attachment."""

    id: str = msgspec.field(name="ID", default="")


class NetworkAttachment(Doc, frozen=True):
    """A task's addresses on one network, each with a prefix length."""

    network: NetworkRef = NetworkRef()
    addresses: list[str] | None = None


class TaskDoc(Doc, frozen=True):
    """`GET /tasks`. A task that nobody has scheduled yet has no node."""

    id: str = msgspec.field(name="ID")
    version: Version = Version()
    updated_at: str | None = None
    service_id: str | None = msgspec.field(name="ServiceID", default=None)
    node_id: str | None = msgspec.field(name="NodeID", default=None)
    desired_state: str = ""
    status: TaskStatus = TaskStatus()
    networks_attachments: list[NetworkAttachment] | None = None


# --- nodes ------------------------------------------------------------------------------


class NodeSpec(Doc, frozen=True):
    """`role` is `manager` or `worker`."""

    role: str | None = None


class NodeDescription(Doc, frozen=True):
    """What the node says of itself."""

    hostname: str | None = None


class NodeStatus(Doc, frozen=True):
    """`state` is `ready`, `down`, `disconnected` or `unknown`."""

    state: str = ""
    addr: str | None = None


class ManagerStatus(Doc, frozen=True):
    """Present on managers only."""

    addr: str | None = None


class NodeDoc(Doc, frozen=True):
    """`GET /nodes`."""

    id: str = msgspec.field(name="ID")
    version: Version = Version()
    updated_at: str | None = None
    spec: NodeSpec = NodeSpec()
    description: NodeDescription | None = None
    status: NodeStatus = NodeStatus()
    manager_status: ManagerStatus | None = None


# --- networks ---------------------------------------------------------------------------


class NetworkContainer(Doc, frozen=True):
    """A local endpoint of a network; `ipv4_address` has a prefix length."""

    name: str = ""
    mac_address: str | None = None
    ipv4_address: str | None = msgspec.field(name="IPv4Address", default=None)


class NetworkDoc(Doc, frozen=True):
    """`GET /networks`, and with `containers` `GET /networks/<id>`."""

    id: str = msgspec.field(name="Id")
    name: str = ""
    scope: str = ""
    driver: str = ""
    ingress: bool = False
    options: dict[str, str] | None = None
    containers: dict[str, NetworkContainer] | None = None


# --- this node --------------------------------------------------------------------------


class PeerDoc(Doc, frozen=True):
    """A manager, as a node remembers it; `addr` is host:port."""

    node_id: str = msgspec.field(name="NodeID", default="")
    addr: str = ""


class ClusterDoc(Doc, frozen=True):
    """What a manager says of the whole Swarm."""

    id: str = msgspec.field(name="ID", default="")
    data_path_port: int = 0


class SwarmDoc(Doc, frozen=True):
    """`GET /info`, its `Swarm` part."""

    node_id: str = msgspec.field(name="NodeID", default="")
    node_addr: str = ""
    local_node_state: str = ""
    control_available: bool = False
    remote_managers: list[PeerDoc] | None = None
    cluster: ClusterDoc | None = None


class InfoDoc(Doc, frozen=True):
    """`GET /info`."""

    name: str = ""
    server_version: str = ""
    docker_root_dir: str = ""
    swarm: SwarmDoc | None = None


# --- containers -------------------------------------------------------------------------


class HealthDoc(Doc, frozen=True):
    """`status` is `none`, `starting`, `healthy` or `unhealthy`."""

    status: str = "none"


class ContainerState(Doc, frozen=True):
    """Whether the container runs, and how well."""

    status: str = ""
    running: bool = False
    pid: int = 0
    started_at: str | None = None
    health: HealthDoc | None = None


class ContainerConfig(Doc, frozen=True):
    """The labels say which task the container is."""

    labels: dict[str, str] | None = None


class EndpointDoc(Doc, frozen=True):
    """The container's end of one network."""

    network_id: str = msgspec.field(name="NetworkID", default="")
    ip_address: str | None = msgspec.field(name="IPAddress", default=None)
    mac_address: str | None = None


class NetworkSettings(Doc, frozen=True):
    """`sandbox_key` is the path of the container's network namespace."""

    sandbox_key: str = ""
    sandbox_id: str = msgspec.field(name="SandboxID", default="")
    networks: dict[str, EndpointDoc] | None = None


class ContainerDoc(Doc, frozen=True):
    """`GET /containers/<id>/json`."""

    id: str = msgspec.field(name="Id")
    state: ContainerState = ContainerState()
    config: ContainerConfig = ContainerConfig()
    network_settings: NetworkSettings = NetworkSettings()


prepare(ServiceDoc, TaskDoc, NodeDoc, NetworkDoc, InfoDoc, ContainerDoc)
