# SPDX-License-Identifier: Apache-2.0
"""A node's programs come, and go, while connections are open: none is lost either way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ebpfmesh.lab.plan import CLIENT_ADDRESS

from . import by_hand
from .corners import Kept
from .traffic import CLIENT, Place
from .world import Task, World, on

NODE = "node1"
COUNT = 200
TIMEOUT_S = 60


class Ways:
    """The two ways into a service on one node, and what stands by hand behind each."""

    def __init__(self, world: World) -> None:
        network = world.network("overlay1")
        self.world = world
        self.inside = world.idle("inside", network, NODE)
        nodes = on(NODE, "node2")
        world.service("vote", replicas=2, networks=[network], publish=["8080:80"], options=nodes)
        world.wait_ready("vote", 2, NODE)
        self.tasks = {task.node: task for task in world.tasks("vote")}
        assert self.tasks.keys() == {NODE, "node2"}
        self.network, self.vip = network, world.vip("vote", network)
        self.mesh = f"{world.address(NODE)}:8080"
        self.ways: list[tuple[Place, str, Task, str]] = [
            (CLIENT, self.mesh, self.tasks[NODE], CLIENT_ADDRESS),
            (self.inside.place, f"{self.vip}:80", self.tasks["node2"], self.inside_address),
        ]

    @property
    def inside_address(self) -> str:
        return self.inside.addresses[self.network]

    @contextmanager
    def by_hand(self) -> Iterator[None]:
        with (
            by_hand.published_port(self.world, NODE, 8080, self.tasks[NODE]),
            by_hand.vip(self.world, NODE, self.network, self.vip, self.tasks["node2"]),
        ):
            yield

    @contextmanager
    def kept(self) -> Iterator[list[Kept]]:
        """So many open connections by each way."""
        with ExitStack() as stack:
            corners = self.world.corners
            yield [
                stack.enter_context(corners.kept(place, target, count=COUNT))
                for place, target, _, _ in self.ways
            ]

    def assert_balanced(self) -> None:
        """What begins goes to every task, which sees the client's own address."""
        for place, target, _, address in self.ways:
            seen = self.world.load.http(place, target, count=60).assert_none_failed()
            assert seen.host.keys() == {task.host for task in self.tasks.values()}
            assert seen.peer == {address: 60}

    def assert_served_by_hand(self) -> None:
        """What begins goes to the one task that stands behind each way."""
        for place, target, task, _ in self.ways:
            seen = self.world.load.http(place, target, count=60).assert_none_failed()
            assert seen.host == {task.host: 60}


def assert_all_open(kept: list[Kept]) -> None:
    for connections in kept:
        assert connections.says() == connections.opened


class Detach:
    """The command, on a node whose agent has been stopped."""

    def __init__(self, world: World) -> None:
        world.lab.stop_agent(NODE)
        self._lab = world.lab
        self._argv = [sys.executable, "-m", "ebpfmesh", "detach"]
        self._env = {"EBPFMESH_CGROUP": str(world.lab.node(NODE).cgroup)}

    def at_once(self) -> None:
        self._lab.run(NODE, self._argv, env=self._env)

    def drain(self) -> subprocess.Popen[str]:
        return self._lab.popen(NODE, [*self._argv, f"--drain={TIMEOUT_S}s"], env=self._env)


@pytest.mark.timeout(300)  # three times programs of a node are compiled
def test_taking_over_and_giving_back_with_open_connections(world: World) -> None:
    ways = Ways(world)
    Detach(world).at_once()
    with ways.by_hand():
        ways.assert_served_by_hand()
        with ways.kept() as kept:
            world.agents.start(NODE)
            world.wait_ready("vote", 2, NODE)
            assert_all_open(kept)
            ways.assert_balanced()
            assert_all_open(kept)
        with ExitStack() as stack:
            kept = stack.enter_context(ways.kept())
            with Detach(world).drain() as draining:
                assert draining.stdout is not None
                assert "flows left" in draining.stdout.readline()
                ways.assert_served_by_hand()
                assert_all_open(kept)
                assert draining.poll() is None
                stack.close()
                output, _ = draining.communicate(timeout=2 * TIMEOUT_S)
                assert "0 flows left" in output
            assert draining.returncode == 0
        ways.assert_served_by_hand()
