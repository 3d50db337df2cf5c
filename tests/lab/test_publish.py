# SPDX-License-Identifier: Apache-2.0
"""Ports come and go; one VIP has many; a service has a port and a VIP at once."""

from __future__ import annotations

from ebpfmesh.lab.plan import CLIENT_ADDRESS
from ebpfmesh.lab.processes import wait_until

from .traffic import CLIENT
from .world import INGRESS, World

TIMEOUT_S = 30


def frontends(world: World, service: str, node: str) -> set[str]:
    """The names of what the node balances for the service's published ports."""
    row = world.agents.service(node, service, INGRESS)
    return {frontend.name for frontend in row.frontends} if row else set()


def wait_published(world: World, service: str, names: set[str]) -> None:
    def reached() -> bool:
        return all(frontends(world, service, n) == names for n in world.agents.nodes)

    assert wait_until(reached, TIMEOUT_S, 0.1)


def test_a_port_is_added_and_removed(world: World) -> None:
    network = world.network("overlay1")
    world.service("vote", replicas=2, networks=[network])
    targets = world.every_node(8080)
    assert_refused(world, targets)

    world.update("vote", "--publish-add=8080:80")
    world.wait_ready("vote", 2)
    wait_published(world, "vote", {"tcp:8080"})
    seen = world.load.http(CLIENT, *targets, count=20).assert_none_failed()
    assert seen.peer == {CLIENT_ADDRESS: 60}

    world.update("vote", "--publish-rm=80")
    wait_published(world, "vote", set())
    assert_refused(world, targets)


def assert_refused(world: World, targets: list[str]) -> None:
    seen = world.load.http(CLIENT, *targets, count=3)
    assert (seen.ok, seen.failed) == (0, 9)
    assert all(error.startswith("ConnectionRefusedError") for error in seen.errors), seen.errors


def test_a_port_given_by_the_swarm(world: World) -> None:
    world.service("vote", replicas=2, publish=["80"])
    ports = world.inspect("service", "inspect", "vote")["Endpoint"]["Ports"]
    port = int(ports[0]["PublishedPort"])
    assert 30000 <= port <= 32767
    world.load.http(CLIENT, *world.every_node(port), count=20).assert_none_failed()


def test_vip_and_port_of_one_service_work_at_once(world: World) -> None:
    network = world.network("overlay1")
    client = world.idle("client", network, "node3")
    world.service("vote", replicas=2, networks=[network], publish=["8080:80"])
    world.wait_ready("vote", 2, "node3")
    vip = world.vip("vote", network)
    assert vip != world.vip("vote", INGRESS)
    with world.load.background(CLIENT, *world.every_node(8080)) as outside:
        inside = world.load.http(client.place, f"{vip}:80", count=500).assert_none_failed()
        assert outside.stop().assert_none_failed().peer.keys() == {CLIENT_ADDRESS}
    assert inside.peer == {client.addresses[network]: 500}


def test_every_port_of_a_vip_is_balanced(world: World) -> None:
    network = world.network("overlay1")
    client = world.idle("client", network, "node1")
    ports = (80, 443, 6379, 9000)
    serve = [argument for port in ports for argument in ("--http", str(port), "--udp", str(port))]
    world.service("many", *serve, replicas=2, networks=[network])
    world.wait_ready("many", 2, "node1")
    targets = [f"{world.vip('many', network)}:{port}" for port in ports]
    seen = world.load.http(client.place, *targets, count=50).assert_none_failed()
    assert seen.local_port == {str(port): 50 for port in ports}
    assert len(seen.host) == 2
    pairs = world.load.udp(client.place, *targets, count=400, sockets=40)
    assert (pairs.lost, pairs.wrong) == (0, 0)


def test_two_protocols_on_one_port(world: World) -> None:
    """They may even belong to two services."""
    world.service("web", replicas=1, publish=["8080:80/tcp"])
    world.service("names", replicas=1, publish=["8080:80/udp"])
    targets = world.every_node(8080)
    assert world.load.http(CLIENT, *targets, count=20).assert_none_failed().host.keys() == {
        task.host for task in world.tasks("web")
    }
    pairs = world.load.udp(CLIENT, *targets, count=60)
    assert (pairs.lost, pairs.wrong) == (0, 0)
    assert pairs.host.keys() == {task.host for task in world.tasks("names")}
