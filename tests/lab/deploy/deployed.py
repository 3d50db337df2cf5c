# SPDX-License-Identifier: Apache-2.0
"""Deployed as an operator would: image, stack, traffic, a rolling update, uninstalled.

One story, told in order: each test goes on where the one before has ended.
"""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from ebpfmesh.lab import images
from ebpfmesh.lab.lab import Lab
from ebpfmesh.lab.plan import CLIENT_ADDRESS
from ebpfmesh.lab.processes import wait_until

from ..traffic import CLIENT, Load, Place
from .conftest import NEXT
from .stack import Stack

REQUESTS = 300
PORT = 8080
SERVICE, NETWORK, ASKS = "vote", "front", "asks"


@pytest.fixture(scope="session")
def load(lab: Lab, stack: Stack) -> Load:
    """With a service that is published, and on a network with a client beside it."""
    manager = lab.manager().name
    lab.docker(manager, "network", "create", "--driver=overlay", NETWORK)
    lab.deploy(SERVICE, replicas=3, networks=[NETWORK], publish=[f"{PORT}:80", f"{PORT}:80/udp"])
    lab.deploy(ASKS, image=images.BUSYBOX, networks=[NETWORK], options=["--endpoint-mode=dnsrr"])
    lab.wait_for_replicas(SERVICE, 3)
    lab.wait_for_replicas(ASKS, 1)
    stack.wait_balanced(SERVICE, "ingress", 3)
    stack.wait_balanced(SERVICE, NETWORK, 3)
    return Load(lab)


@pytest.fixture(scope="session")
def inside(lab: Lab, load: Load) -> Place:
    """A container on the network."""
    (task,) = lab.task_containers(ASKS)
    pid = lab.docker(task.node, "inspect", "--format={{.State.Pid}}", task.container_id)
    return Place(task.node, int(pid))


@pytest.fixture(scope="session")
def vip(lab: Lab, load: Load) -> str:
    manager = lab.manager().name
    network = json.loads(lab.docker(manager, "network", "inspect", NETWORK))[0]["Id"]
    endpoint = json.loads(lab.docker(manager, "service", "inspect", SERVICE))[0]["Endpoint"]
    (found,) = (each["Addr"] for each in endpoint["VirtualIPs"] if each["NetworkID"] == network)
    return f"{found.partition('/')[0]}:80"


@pytest.fixture(scope="session")
def published(lab: Lab, load: Load) -> list[str]:
    return [f"{node.address}:{PORT}" for node in lab.nodes]


def test_every_agent_is_healthy_and_says_so(stack: Stack) -> None:
    for node in stack.nodes:
        assert stack.health(node, stack.container(node)) == "healthy"
        status = stack.status(node)
        assert status.problems == ()
        assert stack.ask(node, "ebpfmesh", "status").startswith("healthy")


def test_the_node_passes_the_check_inside_the_container(stack: Stack) -> None:
    for node in stack.nodes:
        found = json.loads(stack.ask(node, "ebpfmesh", "check", "-o", "json"))
        assert not [line for line in found["checks"] if line["level"] == "failure"]


def test_an_agent_has_the_capabilities_that_are_named_and_no_others(stack: Stack) -> None:
    numbers = {"net_admin": 12, "net_raw": 13, "sys_admin": 21, "sys_nice": 23}
    wanted = sum(1 << number for number in numbers.values())
    for node in stack.nodes:
        text = stack.ask(node, "cat", "/proc/1/status")
        (line,) = (each for each in text.splitlines() if each.startswith("CapEff:"))
        assert int(line.split()[1], 16) == wanted


def test_the_vip_is_balanced(load: Load, inside: Place, vip: str) -> None:
    seen = load.http(inside, vip, count=REQUESTS).assert_none_failed()
    assert len(seen.host) == 3


def test_published_ports_show_tasks_their_clients(load: Load, published: list[str]) -> None:
    for target in published:
        seen = load.http(CLIENT, target, count=REQUESTS).assert_none_failed()
        assert seen.peer == {CLIENT_ADDRESS: REQUESTS}
        assert len(seen.host) == 3
        pairs = load.udp(CLIENT, target, count=REQUESTS)
        assert (pairs.lost, pairs.wrong) == (0, 0)


def test_a_node_asks_itself(load: Load, stack: Stack) -> None:
    for node in stack.nodes:
        seen = load.http(Place(node), f"127.0.0.1:{PORT}", count=REQUESTS).assert_none_failed()
        assert len(seen.host) == 3


def test_tasks_that_come_and_go_are_followed(
    lab: Lab, load: Load, stack: Stack, published: list[str]
) -> None:
    """Their namespaces come up after the agent's container was made."""
    scale = ("service", "scale", "--detach")
    with load.background(CLIENT, *published) as requests:
        for count in (5, 3):
            lab.docker(lab.manager().name, *scale, f"{SERVICE}={count}")
            lab.wait_for_replicas(SERVICE, count)
            stack.wait_balanced(SERVICE, "ingress", count)
        requests.stop().assert_none_failed()


def test_the_kernel_tells_of_a_killed_task(lab: Lab, load: Load, stack: Stack) -> None:
    """Though its process is not to be seen from the agent's container."""
    task = lab.task_containers(SERVICE)[0]
    pid = lab.docker(task.node, "inspect", "--format={{.State.Pid}}", task.container_id)
    lab.run(task.node, ["kill", "-9", pid])

    def told() -> bool:
        return "the kernel: end of task" in stack.ask(task.node, "ebpfmesh", "events", "-o", "json")

    assert wait_until(told, 30, 0.2)
    lab.wait_for_replicas(SERVICE, 3)
    stack.wait_balanced(SERVICE, "ingress", 3)


def test_a_rolling_update_of_the_agents_loses_no_request(
    load: Load, stack: Stack, inside: Place, vip: str, published: list[str]
) -> None:
    before = {stack.container(node) for node in stack.nodes}
    with ExitStack() as running:
        requests = [
            running.enter_context(load.background(CLIENT, *published)),
            running.enter_context(load.background(inside, vip)),
        ]
        held = [
            running.enter_context(load.held(CLIENT, published[0])),
            running.enter_context(load.held(inside, vip)),
        ]
        stack.update(NEXT)
        stack.wait_healthy(than=sorted(before))
        for each in held:
            assert each.ask()["host"] == each.opened["host"]
        for seen in [each.stop().assert_none_failed() for each in requests]:
            print(f"{seen.ok} requests during the update, {seen.failed} failed")
            assert len(seen.host) == 3


def test_without_agents_the_kernel_goes_on(
    load: Load, stack: Stack, inside: Place, vip: str, published: list[str]
) -> None:
    stack.remove()
    load.http(inside, vip, count=REQUESTS).assert_none_failed()
    load.http(CLIENT, *published, count=REQUESTS).assert_none_failed()


def test_after_detaching_nothing_stays(lab: Lab, stack: Stack) -> None:
    before = {node: left_on(lab, node) for node in stack.nodes}
    assert all(
        found["pinned"] and found["qdiscs"] and found["sockets"] for found in before.values()
    )
    printed = stack.detach()
    assert printed.count("maps of layout") == len(stack.nodes)
    for node in stack.nodes:
        assert left_on(lab, node) == {"pinned": "", "qdiscs": "", "xdp": "", "sockets": ""}
        lab.docker(node, "volume", "rm", "ebpfmesh_state")


_QDISCS = """
tc qdisc show | grep clsact
for netns in /var/run/docker/netns/*; do
    nsenter --net=$netns tc qdisc show 2>/dev/null | grep clsact
done
true
"""


def left_on(lab: Lab, node: str) -> dict[str, str]:
    """What a node has of ours: pinned objects, hooks of tc, XDP programs, programs at sockets."""
    looks = {
        "pinned": "find /sys/fs/bpf -mindepth 1 ! -name '*.debug'",  # those are the kernel's own
        "qdiscs": _QDISCS,
        "xdp": "ip link show | grep -w -o 'prog/xdp.*' || true",
        "sockets": "bpftool cgroup show /run/cgroup | grep -o 'sock_[a-z0-9]*' || true",
    }
    return {name: lab.run(node, ["sh", "-c", look]).stdout.strip() for name, look in looks.items()}
