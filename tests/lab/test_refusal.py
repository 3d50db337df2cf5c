# SPDX-License-Identifier: Apache-2.0
"""Services without tasks, and tasks that are gone: clients are told, none is left to wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from ebpfmesh.lab.processes import wait_until

from .corners import Kept
from .traffic import CLIENT, Place
from .world import INGRESS, Task, World, on

NODES = ["node1", "node2", "node3"]
REFUSED = {"ConnectionRefusedError"}
RESET = "ConnectionResetError"
# What Linux calls a reset of a connection that the other end had closed before.
RESET_AFTER_END = "BrokenPipeError"
TIMEOUT_S = 60
SOCKETS = 24  # to each frontend: all of them meet the same of two tasks once in 8 million times


class Vote(NamedTuple):
    """Two tasks; inside, a client beside one of them, and one on a node without any."""

    world: World
    vip: str
    near: Task
    far: Task

    @property
    def mesh(self) -> list[str]:
        return self.world.every_node(8080)

    def wait_ready(self, count: int) -> None:
        self.world.agents.wait_ready("vote", INGRESS, count)
        self.world.agents.wait_ready("vote", "overlay1", count, ["node1", "node3"])

    def wait_draining(self) -> None:
        """Wait until one task of two gets no new flows any more, wherever one may ask."""
        assert wait_until(lambda: all(map(self._drains, NODES)), TIMEOUT_S, 0.1)

    def _drains(self, node: str) -> bool:
        networks = [INGRESS] + ["overlay1"] * (node != "node2")
        rows = [self.world.agents.service(node, "vote", network) for network in networks]
        return all(row is not None and (row.ready, row.total) == (1, 2) for row in rows)


@pytest.fixture
def vote(world: World) -> Iterator[Vote]:
    network = world.network("overlay1")
    near, far = world.idle("near", network, "node1"), world.idle("far", network, "node3")
    # The signal to stop means nothing to it: until it is killed, it drains.
    stop = ["--stop-signal=SIGCONT", "--stop-grace-period=120s", "--restart-condition=none"]
    world.service(
        "vote",
        replicas=2,
        networks=[network],
        publish=["8080:80", "8080:80/udp"],
        options=[*on("node1", "node2"), *stop],
    )
    world.wait_ready("vote", 2, "node1", "node3")
    yield Vote(world, f"{world.vip('vote', network)}:80", near, far)
    for task in world.tasks("vote"):
        world.lab.docker(task.node, "kill", task.container)


def test_no_tasks_at_all(vote: Vote) -> None:
    world = vote.world
    dying = world.tasks("vote")
    world.scale("vote", 0)
    for task in dying:
        world.lab.docker(task.node, "kill", task.container)
    vote.wait_ready(0)
    ways = [(CLIENT, vote.mesh), (vote.near.place, [vote.vip]), (vote.far.place, [vote.vip])]
    ways += [(Place(node), ["127.0.0.1:8080", *vote.mesh]) for node in NODES]
    ways += [(vote.near.place, vote.mesh), (vote.far.place, vote.mesh)]
    for place, targets in ways:
        found = world.corners.refused(place, *targets, count=3)
        assert found.tcp.keys() == found.udp.keys() == REFUSED, (place, found)


class Sockets(NamedTuple):
    """To all frontends of the service, from outside and from inside."""

    tcp: list[Kept]
    udp: list[Kept]
    again: list[Kept]

    def assert_only_lost(self, dead: str, survivors: set[str]) -> None:
        """Connections to the dead task are reset, its datagrams go to another; no other changes."""
        for kept in self.tcp:
            says = [RESET if host == RESET_AFTER_END else host for host in kept.says()]
            assert says == [RESET if host == dead else host for host in kept.opened]
        for kept in self.udp:
            for before, now in zip(kept.opened, kept.says(), strict=True):
                assert now in survivors
                assert before in {now, dead}

    def assert_ports_are_free(self, dead: str, survivor: str) -> None:
        """A client that has forgotten its connection to the dead task connects at once."""
        for kept in self.again:
            now = [survivor if host == dead else host for host in kept.opened]
            assert kept.begun_again(dead) == now


@pytest.fixture
def sockets(vote: Vote) -> Iterator[Sockets]:
    ways = [(CLIENT, vote.mesh), (vote.near.place, [vote.vip]), (vote.far.place, [vote.vip])]
    with ExitStack() as stack:
        tcp, udp, again = (
            [
                stack.enter_context(
                    vote.world.corners.kept(
                        place, *targets, count=SOCKETS // len(targets), udp=datagrams
                    )
                )
                for place, targets in ways
            ]
            for datagrams in (False, True, False)
        )
        hosts = {task.host for task in vote.world.tasks("vote")}
        assert all(set(kept.opened) == hosts for kept in (*tcp, *udp, *again))
        yield Sockets(tcp, udp, again)


def test_a_task_that_vanishes(vote: Vote, sockets: Sockets) -> None:
    """Without a word: neither it nor its kernel can say any more that it is over."""
    dead, survivor = vote.world.tasks("vote")
    cut = (
        "for link in $(ip -o link | grep -o 'eth[0-9]*' | sort -u); do ip link set $link down; done"
    )
    vote.world.lab.run(dead.node, dead.place.argv(["sh", "-c", cut]))
    vote.world.lab.docker(dead.node, "kill", dead.container)
    vote.wait_ready(1)
    sockets.assert_only_lost(dead.host, {survivor.host})
    sockets.assert_ports_are_free(dead.host, survivor.host)


def test_a_task_that_drains_and_ends(vote: Vote, sockets: Sockets) -> None:
    tasks = {task.host: task for task in vote.world.tasks("vote")}
    vote.world.scale("vote", 1)
    vote.wait_draining()
    for kept in (*sockets.tcp, *sockets.udp):
        assert kept.says() == kept.opened
    (survivor,) = vote.world.tasks("vote")
    (dead,) = (task for host, task in tasks.items() if host != survivor.host)
    vote.world.lab.docker(dead.node, "kill", dead.container)
    vote.wait_ready(1)
    sockets.assert_only_lost(dead.host, {survivor.host})
