# SPDX-License-Identifier: Apache-2.0
"""What the Swarm API and the agents say, made into one mesh state. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from ipaddress import IPv4Address
from itertools import chain

import msgspec

from ebpfmesh.labels import read
from ebpfmesh.model import (
    BackendState,
    EndpointMode,
    MeshState,
    Network,
    Node,
    Port,
    Protocol,
    Service,
    Task,
)
from ebpfmesh.swarm.api import NetworkDoc, NodeDoc, PortDoc, ServiceDoc, TaskDoc

LABEL_PREFIX = "ebpfmesh."
RUNNING = "running"
UPDATING = frozenset({"updating", "rollback_started"})
VXLAN_IDS = "com.docker.network.driver.overlay.vxlanid_list"
ENCRYPTED = "encrypted"

SEQUENCE_BITS = 20
"""A version is the managers' log index and, below it, a count of changes at that index."""

PROTOCOLS = {"tcp": Protocol.TCP, "udp": Protocol.UDP, "sctp": Protocol.SCTP}
MODES = {"vip": EndpointMode.VIP, "dnsrr": EndpointMode.DNSRR}

UP_STATES = frozenset({"ready", "unknown"})
"""`unknown`: a new leader has not heard of the node yet, which says nothing against it."""


class NodeReport(msgspec.Struct, frozen=True):
    """What a node's agent knows of its node before, or better than, the Swarm API."""

    vtep: str = ""
    tasks: dict[str, BackendState] = {}


class Heard(msgspec.Struct, frozen=True):
    """What a hub hears of nodes: since when those are silent that are; which are there.

    The Swarm hears of a node by its dockerd alone: one that is down for it may well be there.
    """

    silent: dict[str, int] = {}
    there: frozenset[str] = frozenset()


class Snapshot(msgspec.Struct, frozen=True):
    """One complete reading of the Swarm API."""

    services: list[ServiceDoc] = []
    tasks: list[TaskDoc] = []
    nodes: list[NodeDoc] = []
    networks: list[NetworkDoc] = []

    @property
    def index(self) -> int:
        """The highest log index that any object carries."""
        versions = [doc.version.index for doc in self.services]
        versions += [doc.version.index for doc in self.tasks]
        versions += [doc.version.index for doc in self.nodes]
        return max(versions, default=0)


def with_tasks(snapshot: Snapshot, tasks: list[TaskDoc]) -> Snapshot:
    """Give the snapshot with newer tasks; those that are listed no more stay, until all is read."""
    listed = {doc.id for doc in tasks}
    missing = [doc for doc in snapshot.tasks if doc.id not in listed]
    return msgspec.structs.replace(snapshot, tasks=[*tasks, *missing])


def next_state(
    previous: MeshState,
    snapshot: Snapshot,
    reports: Mapping[str, NodeReport],
    fresh: Collection[str] = (),
    heard: Heard | None = None,
) -> MeshState:
    """Give the state that follows `previous`, or `previous` itself if nothing changed."""
    state = mesh_state(snapshot, reports, previous.version, fresh, heard)
    if previous.version and state == msgspec.structs.replace(previous, origin_ns=0):
        return previous
    version = max(previous.version + 1, snapshot.index << SEQUENCE_BITS)
    return msgspec.structs.replace(state, version=version)


def changed_ns(old: Snapshot | None, new: Snapshot) -> int:
    """When the first of the changes from `old` to `new` was made, by the managers' clocks.

    Of tasks only those count that run, or did. 0 where nobody tells: of the first snapshot, and of
    what is listed no more.
    """
    if old is None:
        return 0
    before = {doc.id: doc for doc in _timed(old)}
    times = [
        nanoseconds(doc.updated_at or "")
        for doc in _timed(new)
        if before.get(doc.id) != doc and _matters(before.get(doc.id), doc)
    ]
    return min((at for at in times if at), default=0)


def _timed(snapshot: Snapshot) -> Iterator[TaskDoc | ServiceDoc | NodeDoc]:
    return chain(snapshot.tasks, snapshot.services, snapshot.nodes)


def _matters(*docs: TaskDoc | ServiceDoc | NodeDoc | None) -> bool:
    """Whether it is no task, or one that runs in one of these."""
    return any(d and (not isinstance(d, TaskDoc) or d.status.state == RUNNING) for d in docs)


def nanoseconds(stamp: str) -> int:
    """A time as dockerd writes it (RFC 3339), since 1970; 0 if it is none. To the microsecond."""
    try:
        return round(datetime.fromisoformat(stamp).timestamp() * 1e6) * 1000
    except (ValueError, OverflowError):
        return 0


def updating(services: Iterable[ServiceDoc]) -> bool:
    """Whether a service is being updated: the next of its tasks leaves without an event."""
    return any(s.update_status and s.update_status.state in UPDATING for s in services)


def mesh_state(
    snapshot: Snapshot,
    reports: Mapping[str, NodeReport],
    version: int,
    fresh: Collection[str] = (),
    heard: Heard | None = None,
) -> MeshState:
    """Join what the API lists with what the nodes report of themselves.

    `fresh` names tasks that have begun to run so lately that their nodes should be heard first.
    `heard`: what the hub hears of the nodes by itself.
    """
    known_networks = {n.id: n for n in map(_network, snapshot.networks) if n is not None}
    ingress = frozenset(n.id for n in known_networks.values() if n.ingress)
    heard = heard or Heard()
    known_nodes = {
        doc.id: _node(doc, reports.get(doc.id), heard.silent.get(doc.id, 0))
        for doc in snapshot.nodes
    }
    down = frozenset(node.id for node in known_nodes.values() if not node.up)
    known_services = {s.id: s for s in (_service(doc, ingress) for doc in snapshot.services) if s}
    unheard = frozenset(fresh) - _ready_at_once(snapshot.tasks, known_services)
    lost = down - heard.there
    found = (_task(doc, down, lost, reports, unheard) for doc in snapshot.tasks)
    known_tasks = {t.id: t for t in found if t is not None}
    return MeshState(
        version=version,
        nodes=known_nodes,
        networks=known_networks,
        services=known_services,
        tasks=known_tasks,
    )


def _network(doc: NetworkDoc) -> Network | None:
    """A swarm-wide overlay that has its VNI; others are not ours to balance."""
    if doc.scope != "swarm" or doc.driver != "overlay":
        return None
    options = doc.options or {}
    vni = options.get(VXLAN_IDS, "").partition(",")[0].strip()
    if not vni.isdecimal():
        return None
    return Network(
        id=doc.id,
        name=doc.name,
        vni=int(vni),
        ingress=doc.ingress,
        encrypted=is_encrypted(doc),
    )


def is_encrypted(doc: NetworkDoc) -> bool:
    """Docker looks at the option's name alone: ``encrypted=false`` encrypts, too."""
    return ENCRYPTED in (doc.options or {})


def _node(doc: NodeDoc, report: NodeReport | None, silent_ns: int) -> Node:
    """A node; its own word on its VTEP counts more than the address the managers saw."""
    address = doc.status.addr or ""
    return Node(
        id=doc.id,
        hostname=(doc.description and doc.description.hostname) or "",
        address=address,
        vtep=(report and _unicast(report.vtep)) or _unicast(address),
        manager=doc.manager_status is not None or doc.spec.role == "manager",
        up=doc.status.state in UP_STATES,
        silent_ns=silent_ns,
    )


def _unicast(address: str) -> str:
    """An address that a node can have, or nothing: who says something else harms itself alone."""
    try:
        found = IPv4Address(address)
    except ValueError:
        return ""
    odd = found.is_unspecified or found.is_loopback or found.is_multicast or found.is_reserved
    return "" if odd else str(found)


def _service(doc: ServiceDoc, ingress: frozenset[str]) -> Service | None:
    """A service in a mode that we know; the ingress network is how it is reached, not a VIP."""
    spec = doc.spec.endpoint_spec
    mode = MODES.get((spec and spec.mode) or "vip")
    if mode is None:
        return None
    vips = (doc.endpoint and doc.endpoint.virtual_ips) or []
    ports = (doc.endpoint and doc.endpoint.ports) or []
    return Service(
        id=doc.id,
        name=doc.spec.name,
        mode=mode,
        vips={v.network_id: _bare(v.addr) for v in vips if v.addr and v.network_id not in ingress},
        ports=tuple(port for port in map(_port, ports) if port is not None),
        labels={k: v for k, v in (doc.spec.labels or {}).items() if k.startswith(LABEL_PREFIX)},
    )


def _port(doc: PortDoc) -> Port | None:
    """A port of the mesh; host-mode ports belong to one node and its own NAT."""
    protocol = PROTOCOLS.get(doc.protocol or "tcp")
    if protocol is None or not doc.published_port or (doc.publish_mode or "ingress") != "ingress":
        return None
    return Port(protocol=protocol, published=doc.published_port, target=doc.target_port)


def running(tasks: Iterable[TaskDoc]) -> frozenset[str]:
    """The ids of those that run."""
    return frozenset(doc.id for doc in tasks if doc.status.state == RUNNING)


def _ready_at_once(tasks: Iterable[TaskDoc], services: Mapping[str, Service]) -> frozenset[str]:
    """The tasks of services that ask for no wait."""
    owners = {s.id for s in services.values() if not read(s.labels).policy.listening}
    return frozenset(doc.id for doc in tasks if doc.service_id in owners) if owners else frozenset()


def _task(
    doc: TaskDoc,
    down: frozenset[str],
    lost: frozenset[str],
    reports: Mapping[str, NodeReport],
    unheard: Collection[str],
) -> Task | None:
    """A task that has flows, or may get some; None for all others."""
    if doc.service_id is None or doc.node_id is None:
        return None
    state = _listed_state(doc, down=doc.node_id in down, lost=doc.node_id in lost)
    if state is None:
        return None
    reported = reports.get(doc.node_id, NodeReport()).tasks.get(doc.id)
    if reported is None and doc.id in unheard:
        reported = BackendState.STARTING
    return Task(
        id=doc.id,
        service_id=doc.service_id,
        node_id=doc.node_id,
        state=max(state, reported or state),
        addresses={
            attachment.network.id: _bare(attachment.addresses[0])
            for attachment in doc.networks_attachments or []
            if attachment.addresses
        },
        well=state is BackendState.DRAINING
        and reported is BackendState.READY
        and doc.node_id not in down,
    )


def _listed_state(doc: TaskDoc, *, down: bool, lost: bool) -> BackendState | None:
    """The API's view of a task: a down node's task gets nothing new, and is then given up.

    If the node is not lost, it is only its dockerd that is: who is connected to the task goes on.
    """
    if doc.status.state != RUNNING:
        return None
    wanted = doc.desired_state == RUNNING
    if wanted and not down:
        return BackendState.READY
    return BackendState.DRAINING if wanted or not lost else None


def _bare(address: str) -> str:
    """An address without its prefix length."""
    return address.partition("/")[0]
