# SPDX-License-Identifier: Apache-2.0
"""A service under load on four nodes, asked by every way in; `World` with what changes need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, reduce
from operator import add

from ebpfmesh.lab.lab import Lab, Node
from ebpfmesh.lab.processes import wait_until

from ..agents import Agents
from ..loops import Loops, Report, Running
from ..traffic import CLIENT, Place
from ..world import INGRESS, World

NODES, MANAGERS = 4, 3
NETWORK = "changes"
SERVICE, PORT, OTHER_PORT = "vote", 8080, 8081
CHECKED, CHECKED_PORT = "checked", 8090
HEALTH = (
    "--health-cmd=/bin/echo-server check",
    "--health-interval=1s",
    "--health-timeout=20s",
    "--health-retries=1",
)
PORTS = {SERVICE: PORT, CHECKED: CHECKED_PORT}
REPLICAS = 4
CLIENTS = 32
MODES = ("keep", "once", "udp", "udp-kept")
SETTLE_TIMEOUT_S = 150

# Kept connections are asked every 0.1 s: in this time each hears that it shall end. Held ones are
# asked every 2 s, and a client may have to wait for the CPU: they hear it afterwards.
LINGER_MS, IDLE_MS = 1500, 6000
COMMAND = (
    *("--http", "80", "--http", "81", "--udp", "80"),
    *("--linger-ms", str(LINGER_MS), "--idle-ms", str(IDLE_MS)),
)


class Load:
    """Clients everywhere."""

    def __init__(self, running: Sequence[Running]) -> None:
        self._running = running

    def stop(self) -> Report:
        return reduce(add, [running.stop() for running in self._running])


class Scene:
    """The service, its clients, and what has been done to it so far."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.agents = Agents(lab)
        self.world = World(lab, self.agents)
        self.replicas = REPLICAS
        """Of either service."""
        self.harmed = False
        self.orphans: set[str] = set()
        """Tasks that live on without their dockerd."""
        self.timeline: list[tuple[float, str]] = []
        self._loops = Loops(lab)

    def build(self) -> None:
        """A service that is ready as soon as it runs, and one with a health check."""
        network = self.world.network(NETWORK, "--attachable")
        how = ["--update-order=start-first", "--update-delay=0s", "--restart-delay=0s"]
        for name, options in ((SERVICE, how), (CHECKED, [*how, *HEALTH])):
            self.world.service(
                name,
                *COMMAND,
                replicas=self.replicas,
                networks=[network],
                publish=[f"{PORTS[name]}:80", f"{PORTS[name]}:80/udp"],
                options=options,
            )

    # --- look ---------------------------------------------------------------------------

    def note(self, what: str) -> float:
        """Keeps it for those who look for causes; the time."""
        now_s = time.monotonic()
        self.timeline.append((now_s, what))
        return now_s

    def hosts(self, service: str = SERVICE) -> dict[str, str]:
        """The running tasks' names, and their nodes."""
        return {task.container_id[:12]: task.node for task in self.lab.task_containers(service)}

    def vips(self) -> list[str]:
        return [self.world.vip(service, NETWORK) for service in PORTS]

    def living(self) -> list[Node]:
        """The nodes whose agents run."""
        return [node for node in self.lab.nodes if node.agent_pid is not None]

    # --- wait ---------------------------------------------------------------------------

    def settle(
        self,
        count: int,
        *,
        service: str = SERVICE,
        nodes: Sequence[str] | None = None,
        alone: bool = True,
    ) -> None:
        """Wait until so many tasks run, and these nodes have them and, if `alone`, no others."""
        self.lab.wait_for_replicas(service, count, SETTLE_TIMEOUT_S)
        names = [node.name for node in self.living()] if nodes is None else nodes
        self.agents.wait_ready(
            service, INGRESS, count, names, alone=alone, within_s=SETTLE_TIMEOUT_S
        )

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        assert wait_until(condition, SETTLE_TIMEOUT_S, 0.1), what

    def reaches_all(self, place: Place) -> bool:
        """Whether a container reaches every task by its own address, past every balancer."""
        tasks = [task for name in PORTS for task in self.world.tasks(name)]
        targets = [f"{task.addresses[NETWORK]}:80" for task in tasks]
        return self.world.load.http(place, *targets).failed == 0

    # --- ask ----------------------------------------------------------------------------

    @contextmanager
    def load(
        self,
        inside: Sequence[str],
        *,
        services: Sequence[str] = (SERVICE,),
        modes: Sequence[str] = MODES,
        held: int = 0,
        timeout_s: float,
    ) -> Iterator[Load]:
        """Clients of each mode by every node's port, and as many by the VIP on these nodes."""
        vips = [f"{self.world.vip(service, NETWORK)}:80" for service in services]
        mesh = [target for service in services for target in self.world.every_node(PORTS[service])]
        with ExitStack() as stack:
            places = [stack.enter_context(self._inside(node)) for node in inside]
            for place in places:
                self.wait(partial(self.reaches_all, place), f"{place} does not reach every task")
            for service in services:
                self.agents.wait_ready(service, NETWORK, self.replicas, inside)
            outside = self._loops.running(
                CLIENT, *mesh, modes=modes, clients=CLIENTS, held=held // 2, timeout_s=timeout_s
            )
            share = max(1, len(places))
            loops = [
                self._loops.running(
                    place,
                    *vips,
                    modes=modes,
                    clients=CLIENTS // share,
                    held=held // 2 // share,
                    timeout_s=timeout_s,
                )
                for place in places
            ]
            yield Load([stack.enter_context(running) for running in (outside, *loops)])

    @contextmanager
    def _inside(self, node: str) -> Iterator[Place]:
        """A container on the service's network, not of the Swarm: nothing moves it."""
        made = self.world.container(node, f"inside-{node}", f"--network={NETWORK}")
        try:
            yield made.place
        finally:
            self.world.remove_container(made)
