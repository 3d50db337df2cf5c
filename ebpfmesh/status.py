# SPDX-License-Identifier: Apache-2.0
"""What an agent says of itself: the one source of the status command and the metrics. Pure.

The agent answers it as JSON on its socket (``GET /status``, ``GET /flows``). Counters are raw
integers; ages and spans are seconds.
"""

from __future__ import annotations

import msgspec

from ebpfmesh.model import Frozen

STATUS_VERSION = 1


class Traffic(Frozen, frozen=True, omit_defaults=False):
    """Counters; `connections` counts new flows, bytes count from the IP header on."""

    packets_to_backend: int = 0
    packets_to_client: int = 0
    bytes_to_backend: int = 0
    bytes_to_client: int = 0
    connections: int = 0


class NodeStatus(Frozen, frozen=True, omit_defaults=False):
    """The node and its agent."""

    id: str
    hostname: str
    vtep: str
    uptime_s: float
    agent_version: str
    engine_version: str


class NicStatus(Frozen, frozen=True, omit_defaults=False):
    """A link by which clients come in; `xdp` is native, generic or off (then tc does all)."""

    name: str
    xdp: str


class DatapathStatus(Frozen, frozen=True, omit_defaults=False):
    """`xdp` is native, generic or off; `programs` counts the places that have ours.

    `device` leads to the other nodes and is one of the `nics`. `mode` is serving or giving_back,
    since `mode_age_s`; for `takeover_left_s` unknown connections are the kernel's.
    """

    device: str
    xdp: str
    return_mode: str
    programs: int
    maglev_size: int
    layout: int
    mesh_vni: int
    nics: tuple[NicStatus, ...] = ()
    mode: str = "serving"
    mode_age_s: float = 0.0
    takeover_left_s: float = 0.0


class HubStatus(Frozen, frozen=True, omit_defaults=False):
    """`role` is hub on a manager, agent on a worker; `age_s` is that of the Swarm's state."""

    role: str
    connected: bool
    address: str
    since_s: float
    state_version: int
    age_s: float | None
    last_error: str = ""


class MapStatus(Frozen, frozen=True, omit_defaults=False):
    """How full a map is."""

    name: str
    entries: int
    max_entries: int


class BackendStatus(Frozen, frozen=True, omit_defaults=False):
    """A task; `traffic` is what this node has translated for it.

    `share` is the part of this node's new flows, from 0 to 1, that it is given. `avoided`: it has
    left connections of this node unanswered, and gets no new ones for a while.
    """

    task: str
    address: str
    node: str
    local: bool
    state: str
    traffic: Traffic
    share: float = 0.0
    avoided: bool = False


class FrontendStatus(Frozen, frozen=True, omit_defaults=False):
    """What clients address: ``10.0.1.2`` or ``tcp:8080``.

    `traffic` is what this node has translated: for a VIP as the client's node, for a published
    port as the backend's. `entered` is what came in here for a published port, wherever its
    backend is.
    """

    name: str
    kind: str
    target_port: int
    traffic: Traffic
    entered: Traffic


class PolicyStatus(Frozen, frozen=True, omit_defaults=False):
    """What a service's labels ask for, as far as they are followed, in the labels' own words.

    `allow` is None where everybody may ask the published ports, empty where nobody may.
    """

    scheduler: str = "maglev"
    affinity: str = ""
    prefer: str = ""
    allow: tuple[str, ...] | None = None
    ready: str = "listening"


class ServiceStatus(Frozen, frozen=True, omit_defaults=False):
    """A service on one network (its published ports are on the ingress network).

    `state`: ok, degraded (some backends are not ready), down (nobody gets new flows), dnsrr, or
    elsewhere (no container of this node is on the network, so nothing is programmed). `chosen`
    counts those that get new flows on this node: fewer than are ready where local ones are
    preferred, more where nobody is ready and others stand in.
    """

    id: str
    name: str
    network: str
    vni: int
    mode: str
    state: str
    ready: int
    total: int
    flows: int
    frontends: tuple[FrontendStatus, ...] = ()
    backends: tuple[BackendStatus, ...] = ()
    policy: PolicyStatus = PolicyStatus()
    chosen: int = 0


class NoteStatus(Frozen, frozen=True, omit_defaults=False):
    """Something that keeps a service from being served as asked."""

    severity: str
    subject: str
    text: str


class Status(Frozen, frozen=True, omit_defaults=False):
    """All of it. `problems` is empty if the agent is healthy.

    `drops`, `handbacks` and `retries` (flows that got another backend) are counted by reason.
    `unreachable` has the names of the nodes that no hub hears.
    """

    version: int
    problems: tuple[str, ...]
    node: NodeStatus
    datapath: DatapathStatus
    hub: HubStatus
    maps: tuple[MapStatus, ...]
    services: tuple[ServiceStatus, ...]
    drops: dict[str, int]
    handbacks: dict[str, int]
    notes: tuple[NoteStatus, ...]
    syncs: int
    sync_errors: int
    last_error: str = ""
    retries: dict[str, int] = msgspec.field(default_factory=dict)
    unreachable: tuple[str, ...] = ()


class FlowStatus(Frozen, frozen=True, omit_defaults=False):
    """A live flow that this node translates; ``address:port`` each."""

    protocol: str
    client: str
    frontend: str
    backend: str
    service: str
    network: str
    state: str
    idle_s: float
    entry: str = ""
