# SPDX-License-Identifier: Apache-2.0
"""One service for all faults, with no task on the manager: that one may be lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ebpfmesh.lab.processes import wait_until

from ..conftest import Session, world_in
from ..corners import Kept
from ..traffic import CLIENT, Place
from ..world import INGRESS, Task, World, on

MANAGER = "node1"
NETWORK = "faults"
SERVICE = "vote"
TIMEOUT_S = 60


class Ground:
    """Two tasks, one on each worker, with a VIP and a port; a client inside, on node2."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lab, self.agents = world.lab, world.agents
        network = world.network(NETWORK)
        self.inside = world.idle("inside", network, "node2")
        world.service(
            SERVICE,
            replicas=2,
            networks=[network],
            publish=["8080:80"],
            options=[*on("node2", "node3"), "--restart-delay=0s"],
        )
        self.settle()
        self.vip = f"{world.vip(SERVICE, network)}:80"
        self.mesh = world.every_node(8080)
        assert {task.node for task in self.tasks()} == {"node2", "node3"}

    @property
    def ways(self) -> list[tuple[Place, list[str]]]:
        """Each place to ask from, and what to ask there."""
        return [(CLIENT, self.mesh), (self.inside.place, [self.vip])]

    def tasks(self) -> list[Task]:
        return self.world.tasks(SERVICE)

    def settle(self) -> None:
        """Wait until both tasks run and every node has them."""
        self.world.wait_ready(SERVICE, 2, "node2")

    # --- what is served -----------------------------------------------------------------

    @contextmanager
    def kept(self, count: int = 20) -> Iterator[list[Kept]]:
        """Open connections by every way."""
        with ExitStack() as stack:
            yield [
                stack.enter_context(self.world.corners.kept(place, *targets, count=count))
                for place, targets in self.ways
            ]

    def assert_served(self, *hosts: str) -> None:
        """What begins is answered, by every way; by these tasks, or by both."""
        wanted = set(hosts) or {task.host for task in self.tasks()}
        for place, targets in self.ways:
            seen = self.world.load.http(place, *targets, count=90).assert_none_failed()
            assert seen.host.keys() == wanted, targets

    # --- what is said -------------------------------------------------------------------

    def problems(self, node: str) -> tuple[str, ...]:
        return self.agents.status(node).problems

    def wait_problem(self, node: str, words: str) -> None:
        """Wait until `status` is degraded, for this reason."""

        def said() -> bool:
            return any(words in problem for problem in self.problems(node))

        assert wait_until(said, TIMEOUT_S, 0.1), f"{node}: {self.problems(node)}, not: {words}"

    def wait_healthy(self, *nodes: str) -> None:
        for node in nodes or self.agents.nodes:

            def healthy(node: str = node) -> bool:
                return not self.problems(node)

            assert wait_until(healthy, TIMEOUT_S, 0.1), f"{node}: {self.problems(node)}"

    def log(self, node: str) -> str:
        return self.lab.node(node).agent_log.read_text()

    def wait_logged(self, node: str, words: str, since: str = "") -> None:
        """Wait until a node's log has these words, after what it had."""

        def said() -> bool:
            return words in self.log(node)[len(since) :]

        assert wait_until(said, TIMEOUT_S, 0.1), f"{node} has not said: {words}"

    def ready(self, node: str) -> dict[str, int]:
        """How many tasks get flows of the published port here, by their nodes."""
        row = self.agents.service(node, SERVICE, INGRESS)
        found = [b.node for b in row.backends if b.state == "ready"] if row else []
        return {name: found.count(name) for name in found}


def assert_all_open(kept: list[Kept]) -> None:
    for connections in kept:
        assert connections.says() == connections.opened


@pytest.fixture(scope="package")
def made(session: Session) -> Iterator[Ground]:
    session.agents.use()
    with world_in(session) as world:
        yield Ground(world)


@pytest.fixture
def ground(session: Session, made: Ground) -> Iterator[Ground]:
    session.agents.use()
    made.settle()
    yield made
    for node in made.lab.nodes:
        if node.pid is None:
            made.lab.start_docker(node.name)
