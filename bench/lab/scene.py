# SPDX-License-Identifier: Apache-2.0
"""Nodes with agents, as many as Docker leaves them, and the ways to the tasks on each.

Nobody's programs are on another side's way: what an agent attaches to a node costs every packet
there, also those that it does not balance.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path as FilePath

from bench.lab import programs, rules
from bench.lab.figures import Path, Side
from bench.lab.rules import Rules
from ebpfmesh.config import Config
from ebpfmesh.lab import images
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.lab import Lab
from ebpfmesh.lab.plan import BRIDGE, Place
from ebpfmesh.lab.processes import wait_until
from ebpfmesh.lab.unix_http import get_json

NEAR, PLAIN, FAR, FAR_PLAIN = "node1", "node2", "node3", "node4"
NODES = (NEAR, PLAIN, FAR, FAR_PLAIN)
TASKS = 2
# A port for each side: none meets what the servers remember of another side's connections.
PORTS = {side: 8001 + number for number, side in enumerate(Side)}
PUBLISHED = {node: 8101 + number for number, node in enumerate(NODES)}
READY_TIMEOUT_S = 180.0
SOCKET_MODE = {"EBPFMESH_VIP_MODE": "socket"}

_FORWARD = """
iptables --wait --insert FORWARD --in-interface docker_gwbridge -j ACCEPT
iptables --wait --insert FORWARD --out-interface docker_gwbridge -j ACCEPT
"""
_NO_SEGMENTS = 'for link in "$@"; do ethtool -K $link tx off tso off gso off gro off; done'


@dataclass(frozen=True)
class Task:
    """A server or a client: `pid` on this machine, its addresses on the overlay and gwbridge."""

    node: str
    pid: int
    overlay: str
    gateway: str


@dataclass(frozen=True)
class Way:
    """From a place to addresses, with rules to be laid meanwhile in a namespace."""

    path: Path
    side: Side
    place: str
    pid: int | None
    targets: Sequence[str]
    rules: Rules = rules.NONE
    rules_at: tuple[str, int | None] = field(default=("", None))


class Scene:
    """Services and clients in a lab that has no agents yet, of `NODES` or the first two of them.

    The two are enough for tasks on the node that is asked.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.nodes = [node.name for node in lab.nodes]
        self.sockets = "vip_mode" in Config.__struct_fields__
        # Without IPVS in the kernel, Docker's own VIPs and mesh are dead.
        self.ipvs = FilePath("/proc/net/ip_vs").exists()

    def build(self) -> None:
        """Make all of it, and wait until it serves."""
        self.lab.start_agent(NEAR)
        if FAR in self.nodes:
            self.lab.start_agent(FAR, SOCKET_MODE if self.sockets else None)
        for node in self.nodes:
            self._deploy(node)
        for node in self.nodes:
            self.lab.wait_for_replicas(_service(node), TASKS, READY_TIMEOUT_S)
            self.lab.wait_for_replicas(_client(node), 1, READY_TIMEOUT_S)
        self._wait_ready(NEAR, _service(NEAR), ("ingress", _service(NEAR)))
        if FAR in self.nodes:
            self._wait_ready(NEAR, _service(FAR), ("ingress",))
            self._wait_ready(FAR, _service(FAR), (_service(FAR),))
        self._route()
        self._take_offloads_away()

    def _deploy(self, node: str) -> None:
        name, here = _service(node), [f"--constraint=node.hostname=={node}"]
        self.lab.docker(NEAR, "network", "create", "--driver=overlay", name)
        port = f"{PUBLISHED[node]}:{PORTS[Side.EBPFMESH]}"
        self.lab.deploy(
            name,
            *map(str, PORTS.values()),
            image=programs.IMAGE,
            replicas=TASKS,
            networks=[name],
            publish=[port, f"{port}/udp"],
            options=[*here, "--ulimit=nofile=20000:20000"],
        )
        options = [*here, "--endpoint-mode=dnsrr"]
        self.lab.deploy(_client(node), image=images.BUSYBOX, networks=[name], options=options)

    def _wait_ready(self, node: str, service: str, networks: Sequence[str]) -> None:
        def ready() -> bool:
            rows = get_json(self.lab.node(node).agent_socket, "/status")["services"]
            full = {
                s["network"]
                for s in rows
                if s["name"] == service and s["ready"] == s["total"] == TASKS
            }
            return full.issuperset(networks)

        if not wait_until(ready, READY_TIMEOUT_S, 0.1):
            raise LabError(f"{node} does not serve {service} on {', '.join(networks)}")

    def _route(self) -> None:
        """Client and entry node reach the tasks of the nodes without agents by their addresses."""
        ways = ((Place.CLIENT, PLAIN), (Place.CLIENT, FAR_PLAIN), (PLAIN, FAR_PLAIN))
        for place, node in ((place, node) for place, node in ways if node in self.nodes):
            via = self.lab.node(node).address
            for task in self.tasks[node]:
                self.lab.run(place, ["ip", "route", "add", task.gateway, "via", via])
        for node in {PLAIN, FAR_PLAIN} & set(self.nodes):
            self.lab.run(node, ["sh", "-ec", _FORWARD])

    def _take_offloads_away(self) -> None:
        """A wire has segments on it. Agents may have changed links: after they are ready."""
        everybody = [*self.nodes, Place.CLIENT]
        links = {place: ["eth0"] for place in everybody} | {Place.LAN: [*everybody, BRIDGE]}
        for place, names in links.items():
            self.lab.run(place, ["sh", "-ec", _NO_SEGMENTS, "sh", *names])

    # --- what there is ------------------------------------------------------------------

    @cached_property
    def tasks(self) -> dict[str, list[Task]]:
        """The servers on each node."""
        return {node: self._found(node, _service(node)) for node in self.nodes}

    @cached_property
    def clients(self) -> dict[str, Task]:
        """The container on each node that shares the network of its servers."""
        return {node: self._found(node, _client(node))[0] for node in self.nodes}

    def _found(self, node: str, service: str) -> list[Task]:
        found = self.lab.task_containers(service)
        return [self._task(node, t.container_id, t.addresses[_service(node)]) for t in found]

    def _task(self, node: str, container: str, overlay: str) -> Task:
        pid = int(self.lab.docker(node, "inspect", "--format={{.State.Pid}}", container))
        route = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-j", "route", "get", "192.0.2.1"]
        (way,) = json.loads(self.lab.run(node, route).stdout)
        return Task(node, pid, overlay, way["prefsrc"])

    def _vip(self, node: str) -> str:
        network = json.loads(self.lab.docker(NEAR, "network", "inspect", _service(node)))[0]
        service = json.loads(self.lab.docker(NEAR, "service", "inspect", _service(node)))[0]
        vips = {v["NetworkID"]: v["Addr"] for v in service["Endpoint"]["VirtualIPs"]}
        return str(vips[network["Id"]]).partition("/")[0]

    # --- ways ---------------------------------------------------------------------------

    def ways(self, path: Path) -> list[Way]:
        """One for each side."""
        return list({Path.VIP: self._vips, Path.MESH: self._mesh, Path.REMOTE: self._far}[path]())

    def _vips(self) -> Iterator[Way]:
        """Clients and tasks on one node; rules in the client's own network."""
        client, tasks = self.clients[PLAIN], [task.overlay for task in self.tasks[PLAIN]]
        vip = self._vip(PLAIN)
        here = (client.node, client.pid)
        yield Way(Path.VIP, Side.DIRECT, *here, _each(tasks, Side.DIRECT))
        yield self._attached(NEAR)
        yield self._balanced(NEAR, Side.EBPFMESH)
        if self.sockets and FAR in self.nodes:
            yield self._balanced(FAR, Side.SOCKET)
        for side, made in (
            (Side.IPTABLES, rules.iptables("OUTPUT", vip, PORTS[Side.IPTABLES], tasks)),
            (Side.NFTABLES, rules.nftables("output", vip, PORTS[Side.NFTABLES], tasks)),
        ):
            yield Way(Path.VIP, side, *here, _each([vip], side), made, here)
        if self.ipvs:
            yield self._balanced(PLAIN, Side.SWARM)

    def _attached(self, node: str) -> Way:
        """What packets pay that nobody balances, where others are balanced."""
        client, tasks = self.clients[node], [task.overlay for task in self.tasks[node]]
        targets = _each(tasks, Side.ATTACHED)
        return Way(Path.VIP, Side.ATTACHED, client.node, client.pid, targets)

    def _balanced(self, node: str, side: Side) -> Way:
        client = self.clients[node]
        return Way(Path.VIP, side, client.node, client.pid, _each([self._vip(node)], side))

    def _mesh(self) -> Iterator[Way]:
        """The entry node has the tasks: nothing has to make the answers come back to it."""
        return self._outside(Path.MESH, near=NEAR, plain=PLAIN, masquerade=False)

    def _far(self) -> Iterator[Way]:
        """Another node has them."""
        return self._outside(Path.REMOTE, near=FAR, plain=FAR_PLAIN, masquerade=True)

    def _outside(self, path: Path, near: str, plain: str, *, masquerade: bool) -> Iterator[Way]:
        """From the LAN's client, to tasks on `near` by the agents', on `plain` by other means."""
        tasks = [task.gateway for task in self.tasks[plain]]
        entry, by_hand = self.lab.node(NEAR).address, self.lab.node(PLAIN).address
        here = (Place.CLIENT, None)
        yield Way(path, Side.DIRECT, *here, _each(tasks, Side.DIRECT))
        yield Way(path, Side.EBPFMESH, *here, [f"{entry}:{PUBLISHED[near]}"])
        for side, hook, make in (
            (Side.IPTABLES, "PREROUTING", rules.iptables),
            (Side.NFTABLES, "prerouting", rules.nftables),
        ):
            made = make(hook, by_hand, PORTS[side], tasks, masquerade=masquerade)
            yield Way(path, side, *here, _each([by_hand], side), made, (PLAIN, None))
        if self.ipvs:
            yield Way(path, Side.SWARM, *here, [f"{by_hand}:{PUBLISHED[plain]}"])

    @contextmanager
    def laid(self, way: Way) -> Iterator[None]:
        """The rules of a way are there meanwhile, and no others."""
        self._run(way.rules_at, way.rules.add)
        try:
            yield
        finally:
            self._run(way.rules_at, way.rules.delete)

    def _run(self, at: tuple[str, int | None], script: str) -> None:
        if script:
            self.lab.run(at[0], inside(at[1], ["sh", "-ec", script]))


def inside(pid: int | None, argv: Sequence[str]) -> list[str]:
    """The command in the network of a process of that node."""
    return [*([] if pid is None else ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]), *argv]


def _service(node: str) -> str:
    return f"bench-{node}"


def _client(node: str) -> str:
    return f"client-{node}"


def _each(addresses: Sequence[str], side: Side) -> list[str]:
    return [f"{address}:{PORTS[side]}" for address in addresses]
