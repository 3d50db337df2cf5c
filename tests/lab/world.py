# SPDX-License-Identifier: Apache-2.0
"""What a test makes in the lab's Swarm, and takes away again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence, Set
from typing import Any, NamedTuple

from ebpfmesh.lab import images
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.lab import Lab
from ebpfmesh.lab.processes import wait_until
from ebpfmesh.lab.services import TaskContainer

from .agents import Agents
from .corners import Corners
from .traffic import Load, Place

GONE_TIMEOUT_S = 60
REPLACED_TIMEOUT_S = 90

_OFFLOADS_OFF = """
for link in $(ip -o link | grep -o "$0[0-9]*" | sort -u); do
    ethtool -K $link tx off tso off gso off gro off
done
"""
# Of a namespace that has gone the file remains for a while.
_OVERLAYS_OFF = """
for netns in /var/run/docker/netns/*-*; do
    nsenter --net=$netns true 2>/dev/null || continue
    nsenter --net=$netns sh -c "$0" veth
done
"""
INGRESS = "ingress"


def on(*nodes: str) -> list[str]:
    """Options that keep a service's tasks to these nodes."""
    others = {"node1", "node2", "node3"} - set(nodes)
    return [f"--constraint=node.hostname!={node}" for node in sorted(others)]


class Task(NamedTuple):
    """A running task, as a place to send from and as an address to send to."""

    node: str
    container: str
    place: Place
    addresses: dict[str, str]

    @property
    def host(self) -> str:
        """The name that its echo server answers with."""
        return self.container[:12]


def assert_shares(answers: dict[str, int], tasks: list[Task]) -> None:
    """Every task has between 0.7 and 1.3 of its share."""
    share = sum(answers.values()) / len(tasks)
    assert answers.keys() == {task.host for task in tasks}
    assert all(0.7 * share <= count <= 1.3 * share for count in answers.values()), answers


class World:
    """A scope of services, networks and containers; `clear` ends it."""

    def __init__(self, lab: Lab, agents: Agents) -> None:
        self.lab = lab
        self.agents = agents
        self.load = Load(lab)
        self.corners = Corners(lab)
        self._services: list[str] = []
        self._networks: list[str] = []
        self._containers: list[tuple[str, str]] = []

    # --- make ---------------------------------------------------------------------------

    def network(self, name: str, *options: str) -> str:
        command = ("network", "create", "--driver=overlay", *options, name)
        self.lab.docker(self.manager, *command)
        self._networks.append(name)
        return name

    def service(
        self,
        name: str,
        *command: str,
        image: str = images.ECHO,
        replicas: int = 1,
        networks: Sequence[str] = (),
        publish: Sequence[str] = (),
        options: Sequence[str] = (),
        wait: bool = True,
    ) -> str:
        """Deploy; with `wait`, return when every node concerned balances to all tasks."""
        self._services.append(name)
        self.lab.deploy(
            name,
            *command,
            image=image,
            replicas=replicas,
            networks=networks,
            publish=publish,
            options=options,
        )
        if wait:
            self.wait_ready(name, replicas)
        return name

    def idle(self, name: str, network: str, node: str) -> Task:
        """A service of one container that only waits: a client inside a network."""
        options = [*on(node), "--endpoint-mode=dnsrr"]
        self.service(name, image=images.BUSYBOX, networks=[network], options=options, wait=False)
        self.lab.wait_for_replicas(name, 1)
        return self.tasks(name)[0]

    def container(self, node: str, name: str, *options: str) -> Task:
        """A plain container, not of the Swarm."""
        command = ("run", "--detach", "--name", name, *options, images.BUSYBOX)
        container = self.lab.docker(node, *command)
        self._containers.append((node, container))
        return Task(node, container, self.place(node, container), {})

    def remove_container(self, task: Task) -> None:
        """What `container` has made."""
        self.lab.docker(task.node, "rm", "--force", task.container)
        self._containers.remove((task.node, task.container))

    # --- look ---------------------------------------------------------------------------

    @property
    def manager(self) -> str:
        return self.lab.manager().name

    def inspect(self, *what: str) -> Any:
        return json.loads(self.lab.docker(self.manager, *what))[0]

    def vip(self, service: str, network: str) -> str:
        wanted = self.inspect("network", "inspect", network)["Id"]
        endpoint = self.inspect("service", "inspect", service)["Endpoint"]
        vips = {vip["NetworkID"]: vip["Addr"] for vip in endpoint["VirtualIPs"]}
        return str(vips[wanted]).partition("/")[0]

    def place(self, node: str, container: str) -> Place:
        pid = self.lab.docker(node, "inspect", "--format={{.State.Pid}}", container)
        return Place(node, int(pid))

    def tasks(self, service: str) -> list[Task]:
        return [self._task(task) for task in self.lab.task_containers(service)]

    def _task(self, task: TaskContainer) -> Task:
        place = self.place(task.node, task.container_id)
        return Task(task.node, task.container_id, place, task.addresses)

    def address(self, node: str) -> str:
        return self.lab.node(node).address

    def every_node(self, port: int) -> list[str]:
        return [f"{node.address}:{port}" for node in self.lab.nodes]

    # --- wait ---------------------------------------------------------------------------

    def wait_ready(self, service: str, count: int, *also: str) -> None:
        """Wait until the tasks run and every node concerned has them all.

        For a published port that is all nodes, for a VIP those with a task of the service, and
        those named in `also`.
        """
        self.lab.wait_for_replicas(service, count)
        spec = self.inspect("service", "inspect", service)["Spec"]
        if spec["EndpointSpec"]["Mode"] != "vip":
            return
        if spec["EndpointSpec"].get("Ports"):
            self.agents.wait_ready(service, INGRESS, count)
        tasks = self.lab.task_containers(service)
        nodes = {task.node for task in tasks} | set(also)
        for network in {name for task in tasks for name in task.addresses} - {INGRESS}:
            self.agents.wait_ready(service, network, count, sorted(nodes))

    def wait_replaced(self, service: str, hosts: Set[str], count: int) -> None:
        """Wait until none of these tasks runs any more, and so many others do."""

        def replaced() -> bool:
            found = {task.container_id[:12] for task in self.lab.task_containers(service)}
            return len(found) == count and found.isdisjoint(hosts)

        assert wait_until(replaced, REPLACED_TIMEOUT_S, 0.2), f"{service} still has {hosts}"

    def wait_network_left(self, network: str, node: str) -> None:
        """Wait until a node has dropped a network that no container of it is on any more."""

        def left() -> bool:
            return not self._has_network(node, network)

        assert wait_until(left, GONE_TIMEOUT_S, 0.1), f"{node} still has {network}"

    # --- change -------------------------------------------------------------------------

    def update(self, service: str, *options: str) -> None:
        command = ("service", "update", "--detach", "--quiet", "--no-resolve-image")
        self.lab.docker(self.manager, *command, *options, service)

    def scale(self, service: str, count: int) -> None:
        self.lab.docker(self.manager, "service", "scale", "--detach", f"{service}={count}")

    def turn_offloads_off(self, *tasks: Task) -> None:
        """In the tasks, and on their links' other ends in the overlay networks."""
        for task in tasks:
            self.lab.run(task.node, task.place.argv(["sh", "-c", _OFFLOADS_OFF, "eth"]))
        for node in {task.node for task in tasks}:
            self.lab.run(node, ["sh", "-c", _OVERLAYS_OFF, _OFFLOADS_OFF])

    # --- take away ----------------------------------------------------------------------

    def clear(self) -> None:
        if self._services:
            self.lab.docker(self.manager, "service", "rm", *self._services)
        for node, container in self._containers:
            self.lab.docker(node, "rm", "--force", container)
        self.agents.start_missing()
        self.agents.wait_gone(self._services)
        for network in self._networks:
            self._remove_network(network)
        for made in (self._services, self._containers, self._networks):
            made.clear()

    def _remove_network(self, network: str) -> None:
        """It cannot go before its last task has; then each node still has to hear of it."""
        left: list[str] = []

        def removed() -> bool:
            left[:] = [node for node in self.agents.nodes if self._has_network(node, network)]
            with contextlib.suppress(LabError):
                self.lab.docker(self.manager, "network", "rm", network)
            return not left

        assert wait_until(removed, GONE_TIMEOUT_S, 0.2), f"{left} still have {network}"

    def _has_network(self, node: str, network: str) -> bool:
        return network in self.lab.docker(node, "network", "ls", "--format={{.Name}}").split()
