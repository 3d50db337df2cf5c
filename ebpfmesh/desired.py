# SPDX-License-Identifier: Apache-2.0
"""What the maps of one node shall hold, from the Swarm's state and the node's own. Pure, no I/O.

The rules, in short:

- a service in ``vip`` mode has a VIP frontend on each of its networks that this node has a program
  attached to, and each of its backends there a DIRECT one;
- its published ports have PORT frontends on every node, served by the tasks' ingress addresses;
- what this node sees of its own tasks comes before what the Swarm says of them;
- tasks on a node that no hub hears get nothing that can go elsewhere;
- a service's labels (`ebpfmesh.labels`) say how its flows are spread, and who may ask its ports.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from datetime import UTC, datetime
from enum import StrEnum
from operator import attrgetter

from msgspec.structs import replace

from ebpfmesh.labels import ALLOW, Policy, problems, read, without_effect
from ebpfmesh.model import (
    Backend,
    BackendKey,
    BackendState,
    Desired,
    EndpointMode,
    Frontend,
    FrontendKey,
    FrontendKind,
    Frozen,
    LocalTask,
    LocalView,
    Membership,
    MeshState,
    Network,
    Node,
    Pool,
    PoolKey,
    Port,
    Protocol,
    Scheduler,
    Service,
    Task,
)


class Severity(StrEnum):
    """`WARNING`: less is served than asked for. `ERROR`: something is not served at all."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Note(Frozen, frozen=True, order=True):
    """Something that an operator should know; `subject` is the name of what it is about."""

    severity: Severity
    subject: str
    text: str


class Touched(Frozen, frozen=True, eq=False):
    """What a desired state may hold otherwise than the one before it, `since`; all else is equal.

    Told by the keys of what has been made anew.
    """

    since: Desired
    frontends: Set[FrontendKey] = frozenset()
    pools: Set[PoolKey] = frozenset()
    backends: Set[BackendKey] = frozenset()


def desired_state(mesh: MeshState, local: LocalView) -> Desired:
    """Say what the maps of this node shall hold.

    `local` lists every container of this node. Tasks that are starting, draining, gone, or on a
    node that is down are among the backends, so that their flows are known, but not in
    `Pool.ready`.
    """
    return _Assembly(mesh, local).run()


def with_tasks_of(
    services: Set[str],
    previous: Desired,
    mesh: MeshState,
    local: LocalView,
    known: Set[BackendKey],
) -> tuple[Desired, Touched]:
    """Say the same where only tasks have changed since `previous`, and those only of `services`.

    `known`: the backends that these have there. Returns also what may be different from it. What
    has not changed is the same object as before, so that a plan need not look into it.
    """
    tasks = [task for task in mesh.tasks.values() if task.service_id in services]
    return _Assembly(mesh, local, tasks).run_again(services, previous, known)


def notes(mesh: MeshState, local: LocalView) -> tuple[Note, ...]:
    """List what keeps the mesh, as this node sees it, from serving all that was asked for."""
    return (
        *ingress_notes(mesh),
        *_port_notes(mesh),
        *_gateway_notes(mesh, local),
        *_vtep_notes(mesh, local),
        *_silence_notes(mesh),
        *label_notes(mesh),
    )


def silent_nodes(mesh: MeshState) -> tuple[Node, ...]:
    """List the nodes that no hub hears, by id."""
    return tuple(node for _, node in sorted(mesh.nodes.items()) if node.silent_ns)


def mac_of(address: str) -> str:
    """Return the MAC address that Docker gives to an overlay endpoint: 02:42 and the address."""
    return "02:42:" + ":".join(f"{int(byte):02x}" for byte in address.split("."))


class _Assembly:
    """One run of `desired_state`, or of `with_tasks_of`: then `tasks` are the only ones."""

    def __init__(
        self, mesh: MeshState, local: LocalView, tasks: Iterable[Task] | None = None
    ) -> None:
        self.mesh = mesh
        self.local = local
        self.vteps = _vteps(mesh, local)
        self.down = {n.id for n in mesh.nodes.values() if not n.up} - {local.node_id}
        self.silent = {n.id for n in mesh.nodes.values() if n.silent_ns} - {local.node_id}
        self.ingress = _ingress(mesh)
        inside = {self.ingress.vni} if self.ingress else set()
        self.attached = {a.vni for a in local.attachments if a.vni} - inside
        self.tasks = _tasks_by_service(mesh.tasks.values() if tasks is None else tasks)
        self.frontends: dict[FrontendKey, Frontend] = {}
        self.pools: dict[PoolKey, Pool] = {}
        self.allowed: dict[PoolKey, frozenset[str]] = {}
        self.backends: dict[BackendKey, Backend] = {}

    def run(self) -> Desired:
        balanced = [s for s in self.mesh.services.values() if s.mode is EndpointMode.VIP]
        for service in balanced:
            self._add_vips(service)
        if self.ingress and not self.ingress.encrypted:
            self._add_ports(self.ingress)
        for backend in list(self.backends.values()):
            self._add_direct(backend)
        return Desired(
            frontends=self.frontends,
            pools=self.pools,
            allowed=self.allowed,
            backends=self.backends,
            nodes=frozenset(vtep for vtep in self.vteps.values() if vtep),
            addresses=self.local.addresses,
            attachments=self.local.attachments,
            endpoints=self.local.endpoints,
            namespaces=self._namespaces(),
            lost=frozenset(vtep for node, vtep in self.vteps.items() if vtep and node in self.down),
        )

    def _namespaces(self) -> dict[int, tuple[Membership, ...]]:
        """Return who is on which network that may have VIPs."""
        found = {
            cookie: tuple(one for one in networks if one.vni in self.attached)
            for cookie, networks in self.local.namespaces.items()
        }
        return {cookie: networks for cookie, networks in found.items() if networks}

    def run_again(
        self, services: Set[str], previous: Desired, known: Set[BackendKey]
    ) -> tuple[Desired, Touched]:
        networks = {network.vni: network for network in self.mesh.networks.values()}
        for key in previous.pools:
            if key.service_id in services:
                self._add_pool(self.mesh.services[key.service_id], networks[key.vni])
        before = [previous.backends[key] for key in known]
        backends = dict(previous.backends)
        for gone in known - self.backends.keys():
            del backends[gone]
        backends |= self.backends
        own, away = _addresses(self.backends.values()), _addresses(before)
        self.frontends = _without_direct(previous.frontends, away - own, backends)
        for backend in self.backends.values():
            self._add_direct(backend)
        touched = Touched(
            previous,
            frontends=own | away,
            pools=frozenset(self.pools),
            backends=known | self.backends.keys(),
        )
        pools = previous.pools | self.pools
        found = replace(previous, frontends=self.frontends, pools=pools, backends=backends)
        return found, touched

    def _add_vips(self, service: Service) -> None:
        for network_id, vip in service.vips.items():
            network = self.mesh.networks.get(network_id)
            if network is None or network.vni not in self.attached:
                continue
            pool = self._add_pool(service, network)
            key = FrontendKey(network.vni, vip)
            policy = read(service.labels).policy
            self.frontends[key] = Frontend(
                key,
                FrontendKind.VIP,
                pool,
                scheduler=policy.scheduler,
                affinity=policy.affinity,
            )

    def _add_ports(self, ingress: Network) -> None:
        for (protocol, published), owners in _published(self.mesh).items():
            service, target = owners[0]
            pool = PoolKey(service.id, ingress.vni)
            if pool not in self.pools:
                self._add_pool(service, ingress)
            policy = read(service.labels).policy
            if policy.allow is not None:
                self.allowed[pool] = policy.allow
            key = FrontendKey(0, port=published, protocol=protocol)
            self.frontends[key] = Frontend(
                key,
                FrontendKind.PORT,
                pool,
                target,
                scheduler=policy.scheduler,
                affinity=policy.affinity,
                restricted=policy.allow is not None,
            )

    def _add_pool(self, service: Service, network: Network) -> PoolKey:
        """Add the service's tasks on the network as backends, and the pool of those in use.

        Where nobody is ready, others get new flows (`spare`). Those that the Swarm has no more use
        for go on until one that takes their place is ready, though nothing but its coming may be
        known yet; where there are none, a task that has started answers, or refuses, for itself.
        """
        pool = PoolKey(service.id, network.vni)
        policy = read(service.labels).policy
        ready: list[BackendKey] = []
        mine: list[BackendKey] = []
        starting: list[BackendKey] = []
        well: list[BackendKey] = []
        silent: list[BackendKey] = []
        coming = False
        for task in self.tasks.get(service.id, ()):
            if address := task.addresses.get(network.id):
                backend = self._backend(task, address, pool, network)
                self.backends[backend.key] = backend
                silent += [backend.key] if task.node_id in self.silent else []
                coming |= backend.state is BackendState.STARTING and task.node_id not in self.down
                if not self._is_reached(task, backend, network):
                    continue
                if backend.state is BackendState.READY:
                    ready.append(backend.key)
                    mine += [backend.key] if task.node_id == self.local.node_id else []
                elif backend.state is BackendState.STARTING:
                    starting.append(backend.key)
                elif backend.state is BackendState.DRAINING and self._is_well(task):
                    well.append(backend.key)
        ready = self._heard(ready, silent)
        spare = [] if ready or not coming else well or starting
        for key in spare:
            self.backends[key] = replace(self.backends[key], spare=True)
        self.pools[pool] = _pool(pool, policy, ready, mine, spare)
        return pool

    def _heard(self, ready: list[BackendKey], silent: list[BackendKey]) -> list[BackendKey]:
        """Leave those on nodes that nobody hears aside, as long as others are ready.

        Connections to them go on: the node may be back before these give up.
        """
        heard = [key for key in ready if key not in silent]
        if not heard:
            return ready
        for key in silent:
            backend = self.backends[key]
            state = max(backend.state, BackendState.STOPPING)
            self.backends[key] = replace(backend, state=state)
        return heard

    def _backend(self, task: Task, address: str, pool: PoolKey, network: Network) -> Backend:
        mine = self._mine(task)
        return Backend(
            key=BackendKey(task.id, network.vni),
            pool=pool,
            address=address,
            mac=(mine and mine.macs.get(address)) or mac_of(address),
            vtep=self.vteps.get(task.node_id, ""),
            state=self._state(task, mine),
            gateway=mine.gateway if mine and network.ingress else None,
        )

    def _mine(self, task: Task) -> LocalTask | None:
        return self.local.tasks.get(task.id) if task.node_id == self.local.node_id else None

    def _state(self, task: Task, mine: LocalTask | None) -> BackendState:
        """Return the worse of what the Swarm and this node say.

        Whether a task has started well, only its own node can tell: until it has seen the task, it
        has not. The Swarm may know of a task before its node has looked.
        """
        if mine is not None:
            starting = task.state is BackendState.STARTING
            return mine.state if starting else max(task.state, mine.state)
        if task.node_id != self.local.node_id:
            return task.state
        ended = task.id in self.local.ended
        return BackendState.GONE if ended else max(task.state, BackendState.STARTING)

    def _is_well(self, task: Task) -> bool:
        """Tell whether a task that drains was not told to stop yet; its own node knows best."""
        mine = self._mine(task)
        return mine.state is BackendState.READY if mine is not None else task.well

    def _is_reached(self, task: Task, backend: Backend, network: Network) -> bool:
        """Tell whether its node is there, and, from the outside, whether there is a way to it."""
        if task.node_id in self.down:
            return False
        if not network.ingress:
            return True
        if task.node_id == self.local.node_id:
            return backend.gateway is not None
        return backend.vtep != ""

    def _add_direct(self, backend: Backend) -> None:
        """Mark a backend's own address, unless it has become a VIP since."""
        if backend.key.vni in self.attached:
            key = FrontendKey(backend.key.vni, backend.address)
            if key not in self.frontends:
                self.frontends[key] = Frontend(key, FrontendKind.DIRECT)


def _addresses(backends: Iterable[Backend]) -> frozenset[FrontendKey]:
    """Return what those who ask backends by their own addresses ask."""
    return frozenset(FrontendKey(b.key.vni, b.address) for b in backends)


def _without_direct(
    frontends: dict[FrontendKey, Frontend],
    away: Set[FrontendKey],
    backends: Mapping[BackendKey, Backend],
) -> dict[FrontendKey, Frontend]:
    """Return the frontends without the addresses that no backend has any more."""
    left = dict(frontends)
    if away:
        addresses = {key.address for key in away}
        away = away - _addresses(b for b in backends.values() if b.address in addresses)
    for key in away & left.keys():
        if left[key].kind is FrontendKind.DIRECT:
            del left[key]
    return left


def _pool(
    key: PoolKey,
    policy: Policy,
    ready: list[BackendKey],
    mine: list[BackendKey],
    spare: list[BackendKey],
) -> Pool:
    """Return the pool as the policy wants it; `mine` are those of `ready` on this node."""
    return Pool(
        key,
        ready=tuple(ready),
        preferred=tuple(mine) if policy.local else (),
        in_turn=policy.scheduler is not Scheduler.MAGLEV,
        spare=tuple(spare),
    )


def _vteps(mesh: MeshState, local: LocalView) -> dict[str, str]:
    """Map node id to VTEP; this node knows its own best."""
    vteps = {node.id: node.vtep for node in mesh.nodes.values()}
    if local.vtep:
        vteps[local.node_id] = local.vtep
    return vteps


def _tasks_by_service(tasks: Iterable[Task]) -> dict[str, list[Task]]:
    """Group the tasks, in order of id: the order of `Pool.ready`."""
    groups: dict[str, list[Task]] = defaultdict(list)
    for task in sorted(tasks, key=attrgetter("id")):
        groups[task.service_id].append(task)
    return groups


def _ingress(mesh: MeshState) -> Network | None:
    """Return the ingress network; the Swarm has one at most."""
    return next((net for net in mesh.networks.values() if net.ingress), None)


def _published(mesh: MeshState) -> dict[tuple[Protocol, int], list[tuple[Service, int]]]:
    """Map each published port to its services and target ports, the lowest service id first."""
    owners: dict[tuple[Protocol, int], list[tuple[Service, int]]] = defaultdict(list)
    for _, service in sorted(mesh.services.items()):
        for port in _ports(service):
            owners[port.protocol, port.published].append((service, port.target))
    return owners


def _ports(service: Service) -> tuple[Port, ...]:
    """Return its published ports; Swarm lets no ``dnsrr`` service have any."""
    return service.ports if service.mode is EndpointMode.VIP else ()


def _ingress_tasks(mesh: MeshState) -> Iterator[tuple[Service, Task]]:
    """Yield every ready task that serves a published port, in order of id."""
    ingress = _ingress(mesh)
    if ingress is None or ingress.encrypted:
        return
    for _, task in sorted(mesh.tasks.items()):
        service = mesh.services.get(task.service_id)
        serves = service is not None and _ports(service) and ingress.id in task.addresses
        if service is not None and serves and task.state is BackendState.READY:
            yield service, task


def ingress_notes(mesh: MeshState) -> Iterator[Note]:
    """Yield why no published port is served at all, if that is so."""
    if not any(_ports(service) for service in mesh.services.values()):
        return
    ingress = _ingress(mesh)
    if ingress is None:
        text = "services publish ports, but the Swarm has no ingress network: no port is served"
        yield Note(Severity.ERROR, "ingress", text)
    elif ingress.encrypted:
        text = "the ingress network is encrypted: published ports are left to Docker"
        yield Note(Severity.WARNING, ingress.name, text)


def _port_notes(mesh: MeshState) -> Iterator[Note]:
    for (protocol, published), owners in sorted(_published(mesh).items()):
        winner = owners[0][0]
        for service in {s.id: s for s, _ in owners[1:] if s is not winner}.values():
            port = f"port {published}/{protocol.name.lower()}"
            text = f"{port} is served for {winner.name}, which publishes it too"
            yield Note(Severity.ERROR, service.name, text)


def label_notes(mesh: MeshState) -> Iterator[Note]:
    """Yield what is wrong with labels: the one thing here that no node can get over by itself."""
    for service, refused in problems(mesh.services):
        yield Note(Severity.ERROR, service.name, refused.text)
    ingress = _ingress(mesh)
    for _, service in sorted(mesh.services.items()):
        if text := without_effect(service):
            yield Note(Severity.WARNING, service.name, text)
        elif ALLOW in service.labels and (ingress is None or ingress.encrypted):
            text = f"{ALLOW} is not enforced: its published ports are left to Docker"
            yield Note(Severity.ERROR, service.name, text)


def _gateway_notes(mesh: MeshState, local: LocalView) -> Iterator[Note]:
    for service, task in _ingress_tasks(mesh):
        mine = local.tasks.get(task.id) if task.node_id == local.node_id else None
        if mine is not None and mine.state is BackendState.READY and mine.gateway is None:
            text = f"task {task.id} has no docker_gwbridge endpoint: no published port reaches it"
            yield Note(Severity.WARNING, service.name, text)


def _vtep_notes(mesh: MeshState, local: LocalView) -> Iterator[Note]:
    vteps = _vteps(mesh, local)
    missing: dict[str, int] = defaultdict(int)
    for _, task in _ingress_tasks(mesh):
        if task.node_id != local.node_id and not vteps.get(task.node_id):
            missing[task.node_id] += 1
    for node_id, count in sorted(missing.items()):
        node = mesh.nodes.get(node_id)
        text = f"its VXLAN address is not known yet: {count} task(s) get no published traffic"
        yield Note(Severity.WARNING, node.hostname if node else node_id, text)


def _silence_notes(mesh: MeshState) -> Iterator[Note]:
    for node in silent_nodes(mesh):
        since = datetime.fromtimestamp(node.silent_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")
        text = f"unreachable since {since} UTC: its tasks get nothing that others can take"
        yield Note(Severity.WARNING, node.hostname or node.id, text)
