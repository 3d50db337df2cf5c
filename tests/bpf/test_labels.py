# SPDX-License-Identifier: Apache-2.0
"""From the labels of a service to what happens to a packet, by way of the agent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from scapy.layers.l2 import Ether

from ebpfmesh.agent.census import count
from ebpfmesh.agent.reconcile import Reconciler
from ebpfmesh.agent.report import MapReader
from ebpfmesh.datapath.attach import Attacher
from ebpfmesh.datapath.counters import Counters
from ebpfmesh.datapath.datapath import Datapath
from ebpfmesh.datapath.discover import Device
from ebpfmesh.desired import desired_state
from ebpfmesh.ids import Ids
from ebpfmesh.model import (
    BackendState,
    Desired,
    EndpointMode,
    Gateway,
    LocalTask,
    LocalView,
    MeshState,
    Network,
    Port,
    Protocol,
    Service,
    Task,
)
from ebpfmesh.model import Node as SwarmNode
from ebpfmesh.status import PolicyStatus, ServiceStatus

from .conftest import MakeNode
from .net import CLIENT, FROM_CLIENT, NODE_A, NODE_B, NODE_C, PUBLISHED, STRANGER, docker_mac, tcp
from .node import XDP_DROP, XDP_PASS, XDP_TX, Node
from .sandbox import ifindex

ROOM = 128
ENTRY = f"{NODE_A}:{PUBLISHED}"
VTEPS = {"a": NODE_A, "b": NODE_B, "c": NODE_C}
# One task on each node; on the ingress network it has the last byte 20, 21, 22.
TASKS = {f"t{name}": (name, f"10.0.0.{20 + i}") for i, name in enumerate(VTEPS)}
HERE, THERE, ELSEWHERE = (address for _, address in TASKS.values())

_ports = itertools.count(1024)


class Agent:
    """The part of an agent that knows maps, on node a, where one of the tasks is."""

    def __init__(self, node: Node, bpffs: Path) -> None:
        self.node = node
        self._bpffs = bpffs
        self.start()

    def start(self) -> None:
        ids = Ids(max_frontends=ROOM, max_services=ROOM, max_backends=ROOM)
        self.reconciler = Reconciler(self.node.maps, cast(Attacher, None), ids)
        self.reconciler.adopt()

    def labelled(
        self,
        labels: dict[str, str],
        here: BackendState = BackendState.READY,
        others: BackendState = BackendState.READY,
    ) -> int:
        """Brings the maps in step with a Swarm whose service has these labels."""
        gateway = Gateway("172.18.0.5", docker_mac("172.18.0.5"), ifindex("gw0"))
        container = LocalTask("ta", "c", here, gateway)
        self.mesh = MeshState(
            version=1,
            nodes={name: SwarmNode(name, name, vtep, vtep) for name, vtep in VTEPS.items()},
            networks={"net0": Network("net0", "ingress", 4096, ingress=True)},
            services={"s": _service(labels)},
            tasks={
                task: Task(task, "s", name, here if name == "a" else others, {"net0": address})
                for task, (name, address) in TASKS.items()
            },
        )
        local = LocalView("a", NODE_A, "nic0", frozenset({NODE_A}), {"ta": container})
        return self.reconciler.sync(desired_state(self.mesh, local), whole=True)

    def stop(self) -> None:
        self.reconciler.sync(Desired(), whole=True)

    def status(self) -> ServiceStatus:
        module = self.node.module
        device = Device("nic0", ifindex("nic0"), 1500)
        maps, counters = self.node.maps, Counters(module)
        datapath = Datapath(module, maps, counters, device, 0, self._bpffs, "")
        (row,) = MapReader(self.mesh, self.reconciler, datapath, "a", count(module)).services()
        return row

    def entered(self, source: str = CLIENT) -> str:
        """The task that a new connection is given."""
        result = self.node.nic_xdp(tcp(f"{source}:{next(_ports)}", ENTRY, macs=FROM_CLIENT))
        if result.verdict == XDP_PASS and result.metadata:
            return HERE
        assert result.verdict == XDP_TX
        mac = Ether(result.data[50:]).dst
        return next(address for _, address in TASKS.values() if docker_mac(address) == mac)


def _service(labels: dict[str, str]) -> Service:
    port = Port(Protocol.TCP, PUBLISHED, 80)
    return Service("s", "web", EndpointMode.VIP, {}, (port,), labels)


@pytest.fixture
def agent(make_node: MakeNode, bpffs: Path) -> Iterator[Agent]:
    node = make_node(NODE_A, MAX_SERVICES=ROOM)
    running = Agent(node, bpffs)
    yield running
    running.stop()
    node.clear()


def test_label_is_followed_when_it_comes_and_when_it_goes(agent: Agent) -> None:
    agent.labelled({})
    agent.labelled({"ebpfmesh.scheduler": "rr"})
    order = [agent.entered() for _ in range(9)]
    assert sorted(order[:3]) == [HERE, THERE, ELSEWHERE]
    assert order == order[:3] * 3
    agent.labelled({"ebpfmesh.affinity": "client-ip"})
    assert len({agent.entered() for _ in range(20)}) == 1
    agent.labelled({})
    assert len({agent.entered() for _ in range(50)}) == 3


def test_wrong_label_balances_as_if_it_were_not_there(agent: Agent) -> None:
    agent.labelled({"ebpfmesh.scheduler": "fastest"})
    assert len({agent.entered() for _ in range(50)}) == 3


@pytest.mark.parametrize("scheduler", ["maglev", "random", "rr", "least-conn"])
def test_local_task_is_preferred_until_it_is_not_ready(agent: Agent, scheduler: str) -> None:
    labels = {"ebpfmesh.prefer": "local", "ebpfmesh.scheduler": scheduler}
    agent.labelled(labels)
    assert {agent.entered() for _ in range(20)} == {HERE}
    agent.labelled(labels, BackendState.DRAINING)
    assert {agent.entered() for _ in range(50)} == {THERE, ELSEWHERE}
    agent.labelled(labels)
    assert {agent.entered() for _ in range(20)} == {HERE}


def test_open_connection_keeps_its_task_when_a_local_one_is_preferred(agent: Agent) -> None:
    agent.labelled({"ebpfmesh.scheduler": "rr"})
    packets = [tcp(f"{CLIENT}:{port}", ENTRY, macs=FROM_CLIENT) for port in range(500, 503)]
    before = [agent.node.nic_xdp(packet) for packet in packets]
    agent.labelled({"ebpfmesh.prefer": "local"})
    assert [agent.node.nic_xdp(packet) for packet in packets] == before
    assert {result.verdict for result in before} == {XDP_TX, XDP_PASS}


def test_list_of_clients_comes_changes_and_goes(agent: Agent) -> None:
    packet = tcp(f"{STRANGER}:4000", ENTRY, macs=FROM_CLIENT)

    def verdict() -> int:
        agent.node.forget("entries")
        return agent.node.nic_xdp(packet).verdict

    agent.labelled({"ebpfmesh.scheduler": "rr"})
    assert verdict() != XDP_DROP
    agent.labelled({"ebpfmesh.allow": "192.0.2.100"})
    assert verdict() == XDP_DROP
    agent.labelled({"ebpfmesh.allow": "192.0.2.100,192.0.2.64/26"})
    assert verdict() != XDP_DROP
    agent.labelled({"ebpfmesh.allow": "192.0.2.100,192.0.2.64/2x"})
    assert verdict() == XDP_DROP
    agent.labelled({"ebpfmesh.allow": ""})
    assert verdict() == XDP_DROP
    agent.labelled({})
    assert verdict() != XDP_DROP
    assert agent.node.maps.allowed() == {}


def test_restarted_agent_finds_what_the_maps_hold(agent: Agent) -> None:
    labels = {"ebpfmesh.scheduler": "rr", "ebpfmesh.allow": "192.0.2.0/24,2001:db8::/32"}
    agent.labelled(labels)
    before = [agent.entered() for _ in range(2)]
    agent.start()
    frontends = agent.reconciler.actual.frontends
    allowed = agent.reconciler.actual.allowed
    assert agent.labelled(labels) == 2  # the table, which cannot be read back, and its size
    assert (agent.reconciler.actual.frontends, agent.reconciler.actual.allowed) == (
        frontends,
        allowed,
    )
    assert sorted([*before, agent.entered()]) == [HERE, THERE, ELSEWHERE]
    agent.start()
    agent.labelled({"ebpfmesh.allow": "198.51.100.0/24"})
    (networks,) = agent.node.maps.allowed().values()
    assert networks == {"198.51.100.0/24"}


def test_status_tells_the_policy(agent: Agent) -> None:
    agent.labelled({"ebpfmesh.prefer": "local", "ebpfmesh.allow": "192.0.2.7,x"})
    row = agent.status()
    assert row.policy == PolicyStatus("maglev", "", "local", ("192.0.2.7/32",))
    assert (row.state, row.ready, row.total, row.chosen) == ("ok", 3, 3, 1)
    agent.labelled({})
    assert (agent.status().policy, agent.status().chosen) == (PolicyStatus(), 3)


STARTING = BackendState.STARTING


def test_task_that_starts_gets_connections_only_where_nobody_is_ready(agent: Agent) -> None:
    agent.labelled({}, here=STARTING)
    assert {agent.entered() for _ in range(50)} == {THERE, ELSEWHERE}
    row = agent.status()
    assert (row.state, row.ready, row.total, row.chosen) == ("degraded", 2, 3, 2)
    agent.labelled({}, here=STARTING, others=STARTING)
    assert {agent.entered() for _ in range(50)} == {HERE, THERE, ELSEWHERE}
    row = agent.status()
    assert (row.state, row.ready, row.chosen) == ("degraded", 0, 3)
    assert [backend.state for backend in row.backends] == ["starting"] * 3


def test_agent_that_starts_again_finds_who_was_ready(agent: Agent) -> None:
    agent.labelled({}, here=STARTING)
    agent.start()
    assert agent.reconciler.ready_tasks() == {"tb", "tc"}
    assert {agent.entered() for _ in range(50)} == {THERE, ELSEWHERE}


@pytest.mark.parametrize("state", [BackendState.DRAINING, BackendState.STOPPING])
def test_agent_that_starts_again_finds_who_leaves(agent: Agent, state: BackendState) -> None:
    agent.labelled({}, here=state)
    agent.start()
    backends = agent.reconciler.actual.backends.values()
    found = {backend.key.task_id: backend.state for backend in backends}
    assert found == {"ta": state, "tb": BackendState.READY, "tc": BackendState.READY}
