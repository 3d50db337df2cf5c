# SPDX-License-Identifier: Apache-2.0
"""VIPs that are balanced at sockets: what holds as ever, and that it is the sockets that do it."""

from __future__ import annotations

from functools import partial

import pytest

from ebpfmesh.lab.processes import wait_until

from ..conftest import Session
from ..world import Task, assert_shares
from .conftest import Steady

KNOWN_TIMEOUT_S = 20
REQUESTS = 300


@pytest.fixture(scope="module")
def led(session: Session, services: Steady) -> Steady:
    session.agents.use(vip_mode="socket")
    for client in (services.near, services.far, *services.tasks):
        assert wait_until(partial(is_led, services, client), KNOWN_TIMEOUT_S)
    return services


def counted(steady: Steady, node: str) -> tuple[int, int]:
    """Connections and packets that the programs of a node have seen of the VIP."""
    row = steady.world.agents.service(node, "vote", "steady")
    assert row is not None
    (vip,) = row.frontends
    traffic = vip.traffic
    return traffic.connections, traffic.packets_to_backend + traffic.packets_to_client


def is_led(steady: Steady, client: Task) -> bool:
    """Whether a request of the client costs the programs at its link no packet to the VIP."""
    _, before = counted(steady, client.node)
    steady.world.load.http(client.place, steady.vip).assert_none_failed()
    return counted(steady, client.node)[1] == before


@pytest.mark.parametrize("client", ["near", "far"])
def test_connections_are_shared_and_no_packet_goes_to_the_vip(led: Steady, client: str) -> None:
    who: Task = getattr(led, client)
    connections, packets = counted(led, who.node)
    seen = led.world.load.http(who.place, led.vip, count=REQUESTS).assert_none_failed()
    assert counted(led, who.node) == (connections + REQUESTS, packets)
    assert_shares(seen.host, led.tasks)
    assert seen.peer == {who.addresses["steady"]: REQUESTS}
    assert seen.asked == {led.vip: REQUESTS}


@pytest.mark.parametrize("connected", [False, True])
def test_udp_loses_nothing(led: Steady, connected: bool) -> None:
    """Connected sockets are balanced at the link."""
    _, packets = counted(led, led.far.node)
    pairs = led.world.load.udp(led.far.place, led.vip, count=2000, connected=connected)
    assert (pairs.lost, pairs.wrong) == (0, 0)
    assert pairs.peer == {led.far.addresses["steady"]: 2000}
    assert pairs.host.keys() == led.hosts
    assert counted(led, led.far.node)[1] - packets == (4000 if connected else 0)


def test_one_source_port_to_the_vip_and_to_its_task(led: Steady) -> None:
    targets = [led.vip, f"{led.tasks[0].addresses['steady']}:80"]
    seen = led.world.load.collide(led.far.place, *targets, source_port=21000, count=50)
    assert seen.assert_none_failed().ok == 50 * 2 * 2


def test_a_task_asks_its_own_vip(led: Steady) -> None:
    task = led.tasks[0]
    seen = led.world.load.http(task.place, led.vip, count=200).assert_none_failed()
    assert_shares(seen.host, led.tasks)
    assert seen.peer == {task.addresses["steady"]: 200}
    pairs = led.world.load.udp(task.place, led.vip, count=500)
    assert (pairs.lost, pairs.wrong) == (0, 0)
