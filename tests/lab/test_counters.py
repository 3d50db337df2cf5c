# SPDX-License-Identifier: Apache-2.0
"""Status, metrics and the packets themselves agree, to the packet and to the byte."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ebpfmesh.lab.processes import wait_until
from ebpfmesh.status import Traffic

from .traffic import CLIENT
from .world import INGRESS, Task, World, on

IP_UDP = 20 + 8
PAIRS = 1234
SOCKETS = 30
ZERO = Traffic()


class Counted(NamedTuple):
    """Sums over all nodes: what came in for a port, and what was translated."""

    entered: Traffic
    traffic: Traffic
    backends: Traffic


def plus(a: Traffic, b: Traffic) -> Traffic:
    return Traffic(
        packets_to_backend=a.packets_to_backend + b.packets_to_backend,
        packets_to_client=a.packets_to_client + b.packets_to_client,
        bytes_to_backend=a.bytes_to_backend + b.bytes_to_backend,
        bytes_to_client=a.bytes_to_client + b.bytes_to_client,
        connections=a.connections + b.connections,
    )


def status(world: World, service: str, network: str, frontend: str) -> Counted:
    entered = traffic = backends = ZERO
    for node in world.agents.nodes:
        row = world.agents.service(node, service, network)
        assert row is not None
        for found in row.frontends:
            if found.name == frontend:
                entered, traffic = plus(entered, found.entered), plus(traffic, found.traffic)
        for backend in row.backends:
            backends = plus(backends, backend.traffic)
    return Counted(entered, traffic, backends)


def metrics(world: World, prefix: str, service: str, **labels: str) -> Traffic:
    """The same sums from what Prometheus scrapes."""
    found = dict.fromkeys(Traffic.__struct_fields__, 0)
    wanted = {"service": service, **labels}
    for node in world.lab.nodes:
        text = world.lab.run("client", ["curl", "--silent", "--fail", node.metrics_url]).stdout
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if wanted.items() <= sample.labels.items() and sample.name.startswith(prefix):
                    what = sample.name.removeprefix(f"{prefix}_").removesuffix("_total")
                    direction = sample.labels.get("direction")
                    name = f"{what}_{direction}" if direction else what
                    if name in found:
                        found[name] += int(sample.value)
    return Traffic(**found)


@pytest.fixture
def inside(world: World) -> Task:
    network = world.network("overlay1")
    client = world.idle("client", network, "node3")
    publish = ["8080:80", "8080:80/udp"]
    options = on("node1", "node2")
    world.service("vote", replicas=2, networks=[network], publish=publish, options=options)
    world.wait_ready("vote", 2, "node3")
    return client


def test_udp_through_the_mesh(world: World, inside: Task) -> None:
    pairs = world.load.udp(CLIENT, *world.every_node(8080), count=PAIRS, sockets=SOCKETS)
    assert (pairs.lost, pairs.wrong) == (0, 0)
    to_backend = Traffic(
        packets_to_backend=PAIRS,
        bytes_to_backend=PAIRS * IP_UDP + pairs.bytes_out,
        connections=SOCKETS,
    )
    to_client = Traffic(packets_to_client=PAIRS, bytes_to_client=PAIRS * IP_UDP + pairs.bytes_in)
    both = plus(to_backend, to_client)
    assert status(world, "vote", INGRESS, "udp:8080") == Counted(to_backend, both, both)
    labels = {"network": INGRESS, "frontend": "udp:8080"}
    assert metrics(world, "ebpfmesh_entry", "vote", **labels) == to_backend
    assert metrics(world, "ebpfmesh_service", "vote", **labels) == both
    assert metrics(world, "ebpfmesh_backend", "vote", network=INGRESS) == both


def test_udp_through_a_vip(world: World, inside: Task) -> None:
    vip = world.vip("vote", "overlay1")
    # Docker's own way to each task is there; no connection past the VIP is counted.
    past = [f"{task.addresses['overlay1']}:80" for task in world.tasks("vote")]
    world.load.http(inside.place, *past, count=1).assert_none_failed()
    pairs = world.load.udp(inside.place, f"{vip}:80", count=PAIRS, sockets=SOCKETS)
    assert (pairs.lost, pairs.wrong) == (0, 0)
    wanted = Traffic(
        packets_to_backend=PAIRS,
        packets_to_client=PAIRS,
        bytes_to_backend=PAIRS * IP_UDP + pairs.bytes_out,
        bytes_to_client=PAIRS * IP_UDP + pairs.bytes_in,
        connections=SOCKETS,
    )
    assert status(world, "vote", "overlay1", vip) == Counted(ZERO, wanted, wanted)
    labels = {"network": "overlay1", "frontend": vip}
    assert metrics(world, "ebpfmesh_service", "vote", **labels) == wanted
    assert metrics(world, "ebpfmesh_backend", "vote", network="overlay1") == wanted


def test_tcp_through_the_mesh_against_a_capture(world: World, inside: Task, tmp_path: Path) -> None:
    capture = str(tmp_path / "capture")
    tcpdump = ["tcpdump", "-i", "eth0", "-s", "80", "-U", "-w", capture, "tcp", "port", "8080"]
    with world.lab.popen("client", [*tcpdump, "--immediate-mode"]) as process:
        try:
            assert process.stderr is not None
            assert any("listening" in line for line in process.stderr)
            world.load.http(CLIENT, *world.every_node(8080), count=300).assert_none_failed()
            assert wait_until(lambda: all_captured(world, capture), 30, 0.2)
        finally:
            process.send_signal(signal.SIGINT)  # or leaving the block waits for ever
        summary = process.communicate()[1]
    assert "0 packets dropped by kernel" in summary
    out, back = captured(world, capture, "dst"), captured(world, capture, "src")
    to_backend = Traffic(
        packets_to_backend=out.packets, bytes_to_backend=out.bytes, connections=900
    )
    to_client = Traffic(packets_to_client=back.packets, bytes_to_client=back.bytes)
    both = plus(to_backend, to_client)
    assert status(world, "vote", INGRESS, "tcp:8080") == Counted(to_backend, both, both)


def all_captured(world: World, capture: str) -> bool:
    """Whether both ends have closed every connection."""
    return all(captured(world, capture, way).ended == 900 for way in ("dst", "src"))


class Captured(NamedTuple):
    """`ended` counts connections: a FIN may be sent again."""

    packets: int
    bytes: int
    ended: int


def captured(world: World, capture: str, direction: str) -> Captured:
    """Packets from (`src`) or to (`dst`) the published port; bytes from the IP header on."""
    read = ["tcpdump", "-r", capture, "-n", "-v", "tcp", "and", direction, "port", "8080"]
    lines = world.lab.run("client", read, check=False).stdout.splitlines()
    heads = [line for line in lines if ", length " in line and "proto TCP" in line]
    lengths = [int(line.rpartition("length ")[2].rstrip(")")) for line in heads]
    ended = {line.partition(": Flags [F")[0] for line in lines if ": Flags [F" in line}
    return Captured(len(heads), sum(lengths), len(ended))
