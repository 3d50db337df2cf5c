# SPDX-License-Identifier: Apache-2.0
"""The nouns of ebpfmesh: what the Swarm says, what a node has, what the maps shall hold.

Pure data, no I/O. Addresses are dotted IPv4 strings, ports host-order integers, MAC
addresses lower-case ``02:42:..`` strings; only `ebpfmesh.datapath` knows byte order.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec


class Protocol(IntEnum):
    """IANA protocol numbers of what is balanced."""

    ANY = 0
    TCP = 6
    UDP = 17
    SCTP = 132


class EndpointMode(StrEnum):
    """How Swarm publishes a service's name: one virtual address, or one per task."""

    VIP = "vip"
    DNSRR = "dnsrr"


class BackendState(IntEnum):
    """The worse, the higher: of two words on a task the higher one counts.

    `READY` gets new flows. `STARTING` runs, but nothing shows yet that it answers. `DRAINING` keeps
    its flows and gets no new ones. `STOPPING` does so and has been told to stop: its connections go
    on, but datagrams go elsewhere. `GONE` has none left to keep. The maps have values of their own.
    """

    READY = 1
    STARTING = 2
    DRAINING = 3
    STOPPING = 4
    GONE = 5


class Scheduler(IntEnum):
    """How a new flow gets its backend; the values are those of bpf/types.h."""

    MAGLEV = 0
    RANDOM = 1
    RR = 2
    LEAST_CONN = 3


class Frozen(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of every value: immutable, comparable, encodable."""


# --- what the Swarm says (the hub streams it) -------------------------------------------


class Node(Frozen, frozen=True):
    """A Swarm node. `vtep` is its VXLAN address on the underlay, empty while unknown.

    `silent_ns`: since when nothing is heard of it (since 1970, by a hub's clock), 0 if it is heard.
    `up` is the Swarm's own word, which comes much later.
    """

    id: str
    hostname: str
    address: str
    vtep: str = ""
    manager: bool = False
    up: bool = True
    silent_ns: int = 0


class Network(Frozen, frozen=True):
    """An overlay network. `vni` names it in packets and in every map key."""

    id: str
    name: str
    vni: int
    ingress: bool = False
    encrypted: bool = False


class Port(Frozen, frozen=True):
    """A port published on every node (publish mode *ingress*)."""

    protocol: Protocol
    published: int
    target: int


class Service(Frozen, frozen=True):
    """A Swarm service; `vips` maps network id to virtual address (ingress left out)."""

    id: str
    name: str
    mode: EndpointMode
    vips: dict[str, str] = {}
    ports: tuple[Port, ...] = ()
    labels: dict[str, str] = {}


class Task(Frozen, frozen=True):
    """A task that runs or drains; `addresses` maps network id to its address there.

    `well`: it drains because the Swarm has no more use for it, but its node says that it answers as
    before: nobody has told it to stop yet.
    """

    id: str
    service_id: str
    node_id: str
    state: BackendState
    addresses: dict[str, str] = {}
    well: bool = False


class MeshState(Frozen, frozen=True):
    """All that the load balancer needs to know of the Swarm, at one version.

    Each mapping is keyed by the object's id. `version` only rises. `origin_ns` is when the change
    that made this version happened (since 1970, by the clock of whoever saw it), 0 if nobody knows.
    """

    version: int = 0
    nodes: dict[str, Node] = {}
    networks: dict[str, Network] = {}
    services: dict[str, Service] = {}
    tasks: dict[str, Task] = {}
    origin_ns: int = 0

    def tasks_on(self, node_id: str) -> frozenset[str]:
        """Return the ids of the tasks of one node."""
        return frozenset(task.id for task in self.tasks.values() if task.node_id == node_id)


# --- what this node has -----------------------------------------------------------------


class Gateway(Frozen, frozen=True):
    """A local task's endpoint on docker_gwbridge; `ifindex` is the host's end of its veth."""

    address: str
    mac: str
    ifindex: int


class LocalTask(Frozen, frozen=True):
    """A container of this node that runs a Swarm task; `macs` maps its addresses to MACs."""

    id: str
    container_id: str
    state: BackendState
    gateway: Gateway | None = None
    macs: dict[str, str] = {}


class Attachment(Frozen, frozen=True):
    """A place that a program is, or shall be, attached to.

    `netns` is the path of the network namespace, empty for the node's own. `role` names the
    programs (see `ebpfmesh.datapath.attach`); `vni` is the overlay's, 0 for the node's links.
    `name` is for people: dockerd renames a link that has programs already, and it keeps them.
    """

    role: str
    netns: str
    ifindex: int
    name: str
    vni: int = 0

    def _place(self) -> tuple[str, str, int, int]:
        return self.role, self.netns, self.ifindex, self.vni

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attachment) and self._place() == other._place()

    def __hash__(self) -> int:
        return hash(self._place())


class EndpointKey(Frozen, frozen=True, order=True):
    """The node's end of a container's veth: `vni` is its overlay's, 0 in the node's namespace.

    In an overlay `ifindex` 0 stands for Docker's own load balancer.
    """

    vni: int
    ifindex: int


class Endpoint(Frozen, frozen=True):
    """By which address and MAC the packets of the container behind a veth have to be sent."""

    address: str
    mac: str


class Membership(Frozen, frozen=True, order=True):
    """That a container is on an overlay network, and its address there."""

    vni: int
    address: str


class LocalView(Frozen, frozen=True):
    """What the agent sees of its own node.

    `addresses`: those of the node's namespace, IPv4 and IPv6, but loopback; `tasks` by task id;
    `ended`: tasks that were seen here, and are no more; `endpoints`: who is behind which veth, as
    far as that is known; `namespaces`: cookie of a task's network namespace -> the networks that it
    is on, if VIPs are balanced at sockets; `link_up`: whether the link to the other nodes has a
    carrier.
    """

    node_id: str
    vtep: str
    device: str
    addresses: frozenset[str] = frozenset()
    tasks: dict[str, LocalTask] = {}
    attachments: frozenset[Attachment] = frozenset()
    endpoints: dict[EndpointKey, Endpoint] = {}
    namespaces: dict[int, tuple[Membership, ...]] = {}
    ended: frozenset[str] = frozenset()
    link_up: bool = True


# --- what the maps shall hold -----------------------------------------------------------


class FrontendKind(IntEnum):
    """`DIRECT` marks a backend's own address: tracked so that no flow collides with it."""

    VIP = 1
    PORT = 2
    DIRECT = 3


class FrontendKey(Frozen, frozen=True, order=True, cache_hash=True):
    """What a client addresses. A VIP has no port; a published port no address and VNI 0."""

    vni: int
    address: str = "0.0.0.0"  # noqa: S104 - "any local address", nothing is bound to it
    port: int = 0
    protocol: Protocol = Protocol.ANY

    @property
    def name(self) -> str:
        """``10.0.1.2`` for a VIP, ``tcp:8080`` for a published port."""
        return f"{self.protocol.name.lower()}:{self.port}" if self.port else self.address


class PoolKey(Frozen, frozen=True, order=True, cache_hash=True):
    """The backends of one service on one network: what a Maglev table is made of."""

    service_id: str
    vni: int


class BackendKey(Frozen, frozen=True, order=True, cache_hash=True):
    """One task's endpoint on one network."""

    task_id: str
    vni: int


class Frontend(Frozen, frozen=True):
    """`target_port` is 0 where the port is kept (VIPs); `pool` is None for `DIRECT`.

    `affinity`: a client's address alone decides on its backend. `restricted`: only clients that
    `Desired.allowed` lists for the pool are served.
    """

    key: FrontendKey
    kind: FrontendKind
    pool: PoolKey | None = None
    target_port: int = 0
    scheduler: Scheduler = Scheduler.MAGLEV
    affinity: bool = False
    restricted: bool = False


class Backend(Frozen, frozen=True):
    """`gateway` is set for a task of this node that is reached through docker_gwbridge.

    `spare`: it is not ready, but gets new flows, because nobody is (`Pool.spare`).
    """

    key: BackendKey
    pool: PoolKey
    address: str
    mac: str
    vtep: str
    state: BackendState
    gateway: Gateway | None = None
    spare: bool = False


class Pool(Frozen, frozen=True):
    """`ready` lists backends that can get new flows, sorted: one order on every node.

    `preferred` lists those of them that alone get some on this node, if not all do; `spare` those
    that get them where nobody is ready. The table has the backends `in_turn` for a scheduler that
    counts them, and is a Maglev table otherwise.
    """

    key: PoolKey
    ready: tuple[BackendKey, ...] = ()
    preferred: tuple[BackendKey, ...] = ()
    in_turn: bool = False
    spare: tuple[BackendKey, ...] = ()

    @property
    def chosen(self) -> tuple[BackendKey, ...]:
        """Who gets new flows on this node, sorted."""
        return self.preferred or self.ready or self.spare


class Desired(Frozen, frozen=True):
    """What the maps of one node shall hold, and where its programs shall be attached.

    `allowed` has the clients of restricted frontends, as networks (``192.0.2.0/24``, host bits
    zero); a pool that is not in it has none. `namespaces` has the networks with VIPs that each
    network namespace is on, by its cookie. `lost` has the VTEPs of nodes that are down: what was
    there can be asked no more.
    """

    frontends: dict[FrontendKey, Frontend] = {}
    pools: dict[PoolKey, Pool] = {}
    allowed: dict[PoolKey, frozenset[str]] = {}
    backends: dict[BackendKey, Backend] = {}
    nodes: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    attachments: frozenset[Attachment] = frozenset()
    endpoints: dict[EndpointKey, Endpoint] = {}
    namespaces: dict[int, tuple[Membership, ...]] = {}
    lost: frozenset[str] = frozenset()
