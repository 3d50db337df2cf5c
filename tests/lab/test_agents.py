# SPDX-License-Identifier: Apache-2.0
"""An agent may die, restart or be taken off: what is attached goes on working."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from ebpfmesh.lab.lab import Node
from ebpfmesh.lab.processes import wait_until

from .changes.judge import BUSY
from .conftest import Session, world_in
from .loops import Loops
from .traffic import CLIENT, Held
from .world import Task, World, on

NODES = ["node1", "node2", "node3"]
PIN_DIR = "/sys/fs/bpf/ebpfmesh"

_libc = ctypes.CDLL(None, use_errno=True)
_PIDFD_GETFD = 438  # pidfd_getfd(2), of the same number everywhere
_SIOCGSKNS = 0x894C  # a descriptor of the namespace of a socket


class Vote(NamedTuple):
    vip: str
    inside: Task


@pytest.fixture(scope="module")
def network(session: Session) -> Iterator[str]:
    """Two tasks with a VIP and a port; a client inside, on the node without a task."""
    session.agents.use()
    with world_in(session) as world:
        network = world.network("overlay1")
        world.idle("client", network, "node3")
        world.service(
            "vote",
            replicas=2,
            networks=[network],
            publish=["8080:80", "8080:80/udp"],
            options=on("node1", "node2"),
        )
        yield network


@pytest.fixture
def vote(world: World, network: str) -> Vote:
    """Before each test all agents run, and know of both tasks."""
    world.wait_ready("vote", 2, "node3")
    (inside,) = world.tasks("client")
    return Vote(f"{world.vip('vote', network)}:80", inside)


def maps(world: World, node: str) -> dict[str, object]:
    """What a node's maps hold of ids: frontends, pools and backends."""
    pins = world.lab.run(node, ["sh", "-c", f"ls -d {PIN_DIR}/*"]).stdout.split()
    assert len(pins) == 1
    return {
        name: sorted(json.loads(world.lab.run(node, dump(f"{pins[0]}/{name}")).stdout), key=str)
        for name in ("frontends", "pools", "backends")
    }


def dump(pin: str) -> list[str]:
    return ["bpftool", "--json", "map", "dump", "pinned", pin]


def test_killing_each_agent_in_turn_fails_no_request(world: World, vote: Vote) -> None:
    mesh = world.every_node(8080)
    before = {node: maps(world, node) for node in NODES}
    with ExitStack() as stack:
        held: list[Held] = [
            stack.enter_context(world.load.held(place, target))
            for place, target in [(vote.inside.place, vote.vip), *((CLIENT, t) for t in mesh)]
        ]
        outside = stack.enter_context(world.load.background(CLIENT, *mesh))
        inside = stack.enter_context(world.load.background(vote.inside.place, vote.vip))
        for node in NODES:
            world.agents.kill_and_start(node)
        world.wait_ready("vote", 2, "node3")
        assert len(outside.stop().assert_none_failed().host) == 2
        assert len(inside.stop().assert_none_failed().host) == 2
        for connection in held:
            assert connection.ask()["host"] == connection.opened["host"]
    assert {node: maps(world, node) for node in NODES} == before


def test_moving_to_maps_of_another_size_in_turn_resets_no_connection(
    world: World, vote: Vote
) -> None:
    mesh = world.every_node(8080)
    before = {node: maps(world, node)["frontends"] for node in NODES}
    other = {"max_flows": "131072"}
    with ExitStack() as stack:
        kept = [
            stack.enter_context(world.corners.kept(place, target, count=100))
            for place, target in [(vote.inside.place, vote.vip), *((CLIENT, t) for t in mesh)]
        ]
        outside = stack.enter_context(world.load.background(CLIENT, *mesh))
        inside = stack.enter_context(world.load.background(vote.inside.place, vote.vip))
        for node in NODES:
            world.lab.stop_agent(node)
            world.lab.start_agent(node, {"EBPFMESH_MAX_FLOWS": other["max_flows"]})
            assert '"maps.moved"' in world.lab.node(node).agent_log.read_text()
            for connections in kept:
                assert connections.says() == connections.opened
        assert len(outside.stop().assert_none_failed().host) == 2
        assert len(inside.stop().assert_none_failed().host) == 2
    assert {node: maps(world, node)["frontends"] for node in NODES} == before
    world.agents.use(**other)  # so that the next test puts it back


def test_without_any_agent_all_goes_on(world: World, vote: Vote) -> None:
    for node in NODES:
        world.lab.kill_agent(node)
    world.load.http(CLIENT, *world.every_node(8080), count=200).assert_none_failed()
    world.load.http(vote.inside.place, vote.vip, count=200).assert_none_failed()
    pairs = world.load.udp(CLIENT, *world.every_node(8080), count=600)
    assert (pairs.lost, pairs.wrong) == (0, 0)


def test_datagrams_find_another_task_though_no_agent_says_that_theirs_has_ended(
    world: World, vote: Vote
) -> None:
    """The node's programs see by themselves that its link has gone.

    Most sockets rest while the task ends: its kernel has no word for them.
    """
    (victim,) = (task for task in world.tasks("vote") if task.node == "node1")
    node1 = world.lab.node("node1").address
    world.lab.kill_agent("node1")
    loops, modes = Loops(world.lab), ("udp", "udp-kept")
    with loops.running(
        CLIENT, f"{node1}:8080", modes=modes, clients=32, pause_ms=1500, timeout_s=BUSY.answer_s
    ) as load:
        world.lab.docker("node1", "rm", "--force", victim.container)
        world.wait_replaced("vote", {victim.host}, 2)
        total = load.stop().total
    assert total.ok > 0
    assert total.failed == 0, total


def test_detach_leaves_nothing_and_an_agent_serves_again(world: World, vote: Vote) -> None:
    node = world.lab.node("node2")
    world.lab.stop_agent(node.name)
    env = {"EBPFMESH_CGROUP": str(node.cgroup)}
    detach = [sys.executable, "-m", "ebpfmesh", "detach"]
    world.lab.run(node.name, detach, env=env)
    assert programs(world, node) == []
    world.agents.start(node.name)
    world.wait_ready("vote", 2)
    assert len(programs(world, node)) > 0
    world.load.http(CLIENT, *world.every_node(8080), count=100).assert_none_failed()
    world.load.http(vote.inside.place, vote.vip, count=100).assert_none_failed()


def programs(world: World, node: Node) -> list[str]:
    """Whatever of ours is on a node: pins, programs of links, programs of its cgroup."""
    look = f"""
    ls {PIN_DIR}
    for netns in /proc/self/ns/net /var/run/docker/netns/*-*; do
        nsenter --net=$netns true 2>/dev/null || continue
        nsenter --net=$netns ip -detail link | grep prog/xdp
        for link in $(nsenter --net=$netns ip -o link | grep -o 'v*eth[0-9a-f]*' | sort -u); do
            nsenter --net=$netns tc filter show dev $link ingress | grep ebpfmesh
            nsenter --net=$netns tc filter show dev $link egress | grep ebpfmesh
        done
    done
    bpftool cgroup show {node.cgroup} | grep -i sock
    true
    """
    return world.lab.run(node.name, ["sh", "-c", look]).stdout.splitlines()


def test_an_agent_that_starts_before_its_dockerd(world: World, vote: Vote) -> None:
    """On a node without containers: of an overlay in use, a dockerd that restarts may lose its
    VXLAN device, agents or not (moby/libnetwork#1765)."""
    world.scale("client", 0)
    world.wait_network_left("overlay1", "node3")
    world.lab.stop_agent("node3")
    world.lab.stop_docker("node3")
    world.load.http(CLIENT, *world.every_node(8080), count=100).assert_none_failed()
    with ThreadPoolExecutor(1) as executor:
        starting = executor.submit(world.agents.start, "node3")
        world.lab.start_docker("node3")
        starting.result()
    world.scale("client", 1)
    world.lab.wait_for_replicas("client", 1)
    world.wait_ready("vote", 2, "node3")
    world.load.http(CLIENT, *world.every_node(8080), count=100).assert_none_failed()
    inside = world.tasks("client")[0].place
    world.load.http(inside, vote.vip, count=100).assert_none_failed()


def test_no_agent_keeps_a_namespace_alive(world: World, vote: Vote) -> None:
    """Its sockets are in its own: dockerd could not make again what another one still holds."""
    for name in NODES:
        own = world.lab.run(name, ["stat", "-L", "-c", "%i", "/proc/self/ns/net"]).stdout
        pid = world.lab.node(name).agent_pid
        assert pid is not None

        def at_home(pid: int = pid, own: int = int(own)) -> bool:
            return namespaces_of(pid) == {own}

        assert wait_until(at_home, 10, 0.1), namespaces_of(pid)


def namespaces_of(pid: int) -> set[int]:
    """The network namespaces that descriptors of a process keep alive."""
    found = set()
    process = os.pidfd_open(pid)
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            fd = _libc.syscall(_PIDFD_GETFD, process, int(entry.name), 0)
            if fd < 0:
                continue  # closed meanwhile
            try:
                found |= _namespace_of(fd)
            finally:
                os.close(fd)
    finally:
        os.close(process)
    return found


def _namespace_of(fd: int) -> set[int]:
    if str(Path(f"/proc/self/fd/{fd}").readlink()).startswith("net:"):
        return {os.fstat(fd).st_ino}
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return set()
    namespace = fcntl.ioctl(fd, _SIOCGSKNS)
    try:
        return {os.fstat(namespace).st_ino}
    finally:
        os.close(namespace)
