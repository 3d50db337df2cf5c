# SPDX-License-Identifier: Apache-2.0
"""What a service asks for by its labels, from `docker service update` to the packets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ebpfmesh.lab.plan import CLIENT_ADDRESS
from ebpfmesh.lab.processes import wait_until
from ebpfmesh.status import PolicyStatus

from .conftest import Session, world_in
from .traffic import CLIENT, Place
from .world import INGRESS, World, on

NODES = ["node1", "node2", "node3"]
SECOND = "192.0.2.101"
TIMEOUT_S = 30
TIMED_OUT = 28  # of curl


@pytest.fixture(scope="module")
def served(session: Session) -> Iterator[World]:
    """Three tasks on two nodes."""
    session.agents.use()
    with world_in(session) as world:
        world.service("vote", replicas=3, publish=["8080:80"], options=on("node1", "node2"))
        yield world


@pytest.fixture
def vote(served: World) -> Iterator[World]:
    """Without a label before each test."""
    yield served
    label(served, remove=("scheduler", "affinity", "prefer", "allow"))


def label(world: World, *add: str, remove: tuple[str, ...] = (), **policy: Any) -> None:
    """Wait until every node follows, and balances to all that it did before."""
    options = [f"--label-add=ebpfmesh.{one}" for one in add]
    world.update("vote", *options, *(f"--label-rm=ebpfmesh.{one}" for one in remove))
    wanted = PolicyStatus(**policy)

    def followed() -> bool:
        rows = [world.agents.service(node, "vote", INGRESS) for node in NODES]
        return all(row is not None and row.policy == wanted for row in rows)

    assert wait_until(followed, TIMEOUT_S, 0.1)


def test_schedulers_affinity_and_locality(vote: World) -> None:
    mesh = vote.every_node(8080)
    hosts = {task.host: task.node for task in vote.tasks("vote")}

    label(vote, "scheduler=rr", scheduler="rr")
    for target in mesh:
        seen = vote.load.http(CLIENT, target, count=90).assert_none_failed()
        assert seen.host == dict.fromkeys(hosts, 30)

    label(vote, "affinity=client-ip", remove=("scheduler",), affinity="client-ip")
    assert len(vote.load.http(CLIENT, *mesh, count=60).assert_none_failed().host) == 1

    label(vote, "prefer=local", remove=("affinity",), prefer="local")
    for node, target in zip(NODES, mesh, strict=True):
        seen = vote.load.http(CLIENT, target, count=90).assert_none_failed()
        local = {host for host, where in hosts.items() if where == node}
        assert seen.host.keys() == (local or hosts.keys())


@pytest.fixture
def second_address(vote: World) -> Iterator[str]:
    change = ["ip", "address", "add", f"{SECOND}/24", "dev", "eth0"]
    vote.lab.run("client", change)
    yield SECOND
    vote.lab.run("client", ["del" if word == "add" else word for word in change])


def test_only_those_who_are_allowed(vote: World, second_address: str) -> None:
    mesh = vote.every_node(8080)
    label(vote, f"allow={CLIENT_ADDRESS}", allow=(f"{CLIENT_ADDRESS}/32",))
    for target in mesh:
        assert ask(vote, CLIENT_ADDRESS, target) == 0
        assert ask(vote, second_address, target, patience_s=2) == TIMED_OUT
    for node in NODES:
        vote.load.http(Place(node), "127.0.0.1:8080", *mesh, count=10).assert_none_failed()
    dropped = [vote.agents.status(node).drops.get("not_allowed", 0) for node in NODES]
    assert min(dropped) > 0

    label(vote, remove=("allow",))
    assert [ask(vote, second_address, target) for target in mesh] == [0, 0, 0]


def ask(world: World, source: str, target: str, patience_s: int = 20) -> int:
    """How curl ends; what the task sees as its client is checked, too."""
    curl = ["curl", "-sS", "--interface", source, "--max-time", str(patience_s)]
    done = world.lab.run("client", [*curl, f"http://{target}/"], check=False)
    assert done.returncode or json.loads(done.stdout)["peer"] == source
    return done.returncode


def test_a_wrong_label_is_shown_and_costs_nothing_else(vote: World) -> None:
    label(vote, "scheduler=fastest", "prefer=local", prefer="local")
    for node in NODES:
        notes = vote.agents.status(node).notes
        (text,) = {note.text for note in notes if note.subject == "vote"}
        assert "ebpfmesh.scheduler='fastest'" in text
    vote.load.http(CLIENT, *vote.every_node(8080), count=20).assert_none_failed()
