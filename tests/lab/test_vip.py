# SPDX-License-Identifier: Apache-2.0
"""Service VIPs inside overlay networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from .conftest import Session, world_in
from .traffic import MB
from .world import Task, World, assert_shares, on

REQUESTS = 1000
PAIRS = 10_000


class Overlay(NamedTuple):
    vip: str
    tasks: list[Task]
    client: Task


@pytest.fixture(scope="module")
def overlay(session: Session) -> Iterator[Overlay]:
    """`vote` on two nodes; a client on one of these."""
    session.agents.use()
    with world_in(session) as world:
        network = world.network("overlay1")
        client = world.idle("client", network, "node2")
        world.service("vote", replicas=2, networks=[network], options=on("node1", "node2"))
        yield Overlay(world.vip("vote", network), world.tasks("vote"), client)


def test_the_name_is_the_vip_and_both_tasks_answer(world: World, overlay: Overlay) -> None:
    client = overlay.client
    found = world.lab.container_run(client.node, client.container, ["dig", "+short", "vote"])
    assert found.stdout.split() == [overlay.vip]
    url = ["curl", "--silent", "--fail", "http://vote/"]
    answers = [
        world.lab.container_run(client.node, client.container, url).stdout for _ in range(25)
    ]
    for task in overlay.tasks:
        assert any(task.host in answer for answer in answers)


def test_requests_are_shared_and_the_task_sees_the_client(world: World, overlay: Overlay) -> None:
    seen = world.load.http(overlay.client.place, f"{overlay.vip}:80", count=REQUESTS)
    seen.assert_none_failed()
    assert seen.ok == REQUESTS
    assert seen.peer == {overlay.client.addresses["overlay1"]: REQUESTS}
    assert_shares(seen.host, overlay.tasks)


def test_ping_of_the_vip(world: World, overlay: Overlay) -> None:
    ping = ["busybox", "ping", "-c", "3", overlay.vip]
    output = world.lab.container_run(overlay.client.node, overlay.client.container, ping).stdout
    assert output.count(f"64 bytes from {overlay.vip}:") == 3


@pytest.mark.parametrize("connected", [False, True])
def test_udp_loses_nothing(world: World, overlay: Overlay, connected: bool) -> None:
    target = f"{overlay.vip}:80"
    pairs = world.load.udp(overlay.client.place, target, count=PAIRS, connected=connected)
    assert (pairs.lost, pairs.wrong) == (0, 0)
    assert pairs.peer == {overlay.client.addresses["overlay1"]: PAIRS}
    assert pairs.host.keys() == {task.host for task in overlay.tasks}


@pytest.mark.parametrize("vip_first", [True, False])
def test_one_source_port_to_the_vip_and_to_its_task(
    world: World, overlay: Overlay, vip_first: bool
) -> None:
    for port, task in enumerate(overlay.tasks):
        targets = [f"{overlay.vip}:80", f"{task.addresses['overlay1']}:80"]
        if not vip_first:
            targets.reverse()
        first = 20000 + 1000 * port + 2000 * vip_first
        seen = world.load.collide(overlay.client.place, *targets, source_port=first, count=100)
        assert seen.assert_none_failed().ok == 100 * 2 * 2


def test_a_task_asks_its_own_vip(world: World, overlay: Overlay) -> None:
    task = overlay.tasks[0]
    seen = world.load.http(task.place, f"{overlay.vip}:80", count=200).assert_none_failed()
    assert_shares(seen.host, overlay.tasks)
    assert seen.peer.keys() == {task.addresses["overlay1"], overlay.vip}
    pairs = world.load.udp(task.place, f"{overlay.vip}:80", count=1000)
    assert (pairs.lost, pairs.wrong) == (0, 0)


def test_an_address_of_a_task_is_left_alone(world: World, overlay: Overlay) -> None:
    for task in overlay.tasks:
        target = f"{task.addresses['overlay1']}:80"
        seen = world.load.http(overlay.client.place, target, count=50).assert_none_failed()
        assert seen.host == {task.host: 50}


@pytest.mark.parametrize("offload", ["on", "off"])
def test_bulk_is_intact(world: World, overlay: Overlay, offload: str) -> None:
    """The last one: offloads stay off."""
    if offload == "off":
        world.turn_offloads_off(overlay.client, *overlay.tasks)
    met: set[str] = set()
    for _ in range(20):
        answer = world.load.bulk(overlay.client.place, f"{overlay.vip}:80", 50 * MB)
        answer.assert_intact(50 * MB)
        met.add(answer.host)
        if len(met) == len(overlay.tasks):
            break
    assert met == {task.host for task in overlay.tasks}
