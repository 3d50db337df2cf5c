# SPDX-License-Identifier: Apache-2.0
"""Tasks that say nothing, and nodes that do not know yet: another backend serves, none is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from ebpfmesh.lab.processes import wait_until

from .traffic import CLIENT, Place
from .world import INGRESS, Task, World, on

TIMEOUT_S = 60
COUNT = 12  # to each target: some of them choose the silent task
LINKS_DOWN = (
    "for link in $(ip -o link | grep -o 'eth[0-9]*' | sort -u); do ip link set $link down; done"
)


class Pair(NamedTuple):
    """One task on node1, one on node2; inside, a client beside the first, and one on node3."""

    world: World
    vip: str
    near: Task
    far: Task

    @property
    def ways(self) -> list[tuple[Place, list[str]]]:
        return [
            (CLIENT, self.world.every_node(8080)),
            (self.near.place, [self.vip]),
            (self.far.place, [self.vip]),
        ]

    def retries(self, reason: str, node: str) -> int:
        return self.world.agents.status(node).retries.get(reason, 0)

    def ready(self, node: str) -> int:
        row = self.world.agents.service(node, "pair", INGRESS)
        assert row is not None
        return row.ready


@pytest.fixture
def pair(world: World) -> Pair:
    network = world.network("overlay1")
    near, far = world.idle("near", network, "node1"), world.idle("far", network, "node3")
    world.service(
        "pair",
        replicas=2,
        networks=[network],
        publish=["8080:80"],
        options=[*on("node1", "node2"), "--restart-condition=none", "--stop-grace-period=1s"],
    )
    world.wait_ready("pair", 2, "node1", "node3")
    return Pair(world, f"{world.vip('pair', network)}:80", near, far)


def avoided(pair: Pair, node: str) -> list[str]:
    """The nodes of the backends that containers of `node` are kept from."""
    row = pair.world.agents.service(node, "pair", "overlay1")
    assert row is not None
    return [backend.node for backend in row.backends if backend.avoided]


def silence(pair: Pair) -> Task:
    """Cuts the task of node2 from every network, while it runs on, and returns the other."""
    survivor, silent = sorted(pair.world.tasks("pair"), key=lambda task: task.node)
    pair.world.lab.run(silent.node, silent.place.argv(["sh", "-c", LINKS_DOWN]))
    return survivor


def test_a_task_that_answers_nothing(pair: Pair) -> None:
    """No node can know but from its silence."""
    world, survivor = pair.world, silence(pair)
    for place, targets in pair.ways:
        answers = world.load.http(place, *targets, count=COUNT).assert_none_failed()
        assert answers.host.keys() == {survivor.host}
    assert all(pair.retries("no_answer", node) > 0 for node in ("node1", "node3"))


def test_one_that_is_silent_for_long_is_avoided(pair: Pair) -> None:
    silence(pair)
    while not (found := avoided(pair, "node3")):
        pair.world.load.http(pair.far.place, pair.vip, count=1).assert_none_failed()
    assert found == ["node2"]


@contextmanager
def frozen_agent(world: World, node: str) -> Iterator[None]:
    """It stands still, and hears nothing; its programs go on."""
    pid = world.lab.node(node).agent_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_an_entry_node_that_has_not_heard_of_a_tasks_end(pair: Pair) -> None:
    """The node of the task that has gone gives its connections to another."""
    world = pair.world
    gone, survivor = sorted(world.tasks("pair"), key=lambda task: task.node, reverse=True)
    with frozen_agent(world, "node3"):
        world.lab.docker(gone.node, "kill", gone.container)
        world.agents.wait_ready("pair", INGRESS, 1, [gone.node])
        target = f"{world.address('node3')}:8080"
        answers = world.load.http(CLIENT, target, count=COUNT * 4).assert_none_failed()
    assert answers.host == {survivor.host: COUNT * 4}
    assert pair.retries("second_chance", gone.node) > 0
    assert wait_until(lambda: pair.ready("node3") == 1, TIMEOUT_S, 0.1)
