# SPDX-License-Identifier: Apache-2.0
"""The node that the programs run on: services, backends, and other people's flows."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench import kernel, swarm
from bench.node import BenchNode
from bench.swarm import Size
from ebpfmesh.datapath.maps import address_to_int
from ebpfmesh.desired import desired_state, mac_of
from ebpfmesh.model import Endpoint, EndpointKey, LocalView, MeshState
from tests.bpf.net import NODE_A, NODE_B, NODE_C
from tests.bpf.sandbox import ifindex

MAX_FLOWS = 1_300_000  # an LRU map makes room before it is quite full
NETWORK = 1
CLIENT = "10.1.200.7"  # a container on the overlay network; no task nor VIP has the address
_BENCHMARKS = np.uint32(0xC6120000)  # 198.18.0.0/15: RFC 2544
_FLOW_MAPS = ("flows", "replies", "entries")
_AT_ONCE = 1 << 17  # flows
_ESTABLISHED = 1 << 3 | 1 << 7  # answered, established: enum flow_flags


@dataclass(frozen=True)
class Scenario:
    """How much there is besides the packet that is measured."""

    services: int = 1
    backends: int = 10
    flows: int = 0

    @property
    def params(self) -> dict[str, str | int]:
        """For figures."""
        return {"services": self.services, "backends": self.backends, "flows": self.flows}


class Furnished:
    """A node with the maps of one scenario after the other.

    Service 0 is the one that is asked, through its VIP and, on other nodes, its published port. The
    last service has one task, on this node: it is there for what is delivered.
    """

    def __init__(self, node: BenchNode) -> None:
        self.module = node.module
        self._reconciler = node.reconciler
        self.size = Size()

    def furnish(self, scenario: Scenario) -> None:
        """Makes the maps so."""
        others = 10 * (scenario.services - 1)
        publishing = 1 if scenario.services == 1 else 5
        tasks = scenario.backends + others + 1
        self.size = Size(scenario.services + 1, tasks, 3, 1, publishing)
        state = self._state(scenario)
        local = self._local(state)
        desired = msgspec.structs.replace(desired_state(state, local), attachments=frozenset())
        self._reconciler.sync(desired, whole=True)
        self.forget_flows()
        self._fill(scenario.flows)

    def forget_flows(self) -> None:
        """Empties the maps of flows: another scenario's may have the tuples of this one's."""
        for kind in _FLOW_MAPS:
            for name in (kind, f"transient_{kind}"):
                table = self.module.table(name)
                kernel.drain(table.map_fd, ctypes.sizeof(table.Key), ctypes.sizeof(table.Leaf))

    def _state(self, scenario: Scenario) -> MeshState:
        """Tasks go to service 0 until it has its backends, then ten to each of the others."""
        state = swarm.mesh(self.size)
        vteps = dict(zip(map(swarm.node_id, range(3)), (NODE_A, NODE_B, NODE_C), strict=True))
        nodes = {
            key: msgspec.structs.replace(node, vtep=vteps[key]) for key, node in state.nodes.items()
        }
        ingress, overlay = swarm.network_id(0), swarm.network_id(NETWORK)
        tasks = {}
        for number in range(self.size.tasks):
            beyond = number - scenario.backends
            service = 0 if beyond < 0 else 1 + beyond // 10
            last = service == self.size.services - 1
            task = state.tasks[swarm.task_id(number)]
            tasks[task.id] = msgspec.structs.replace(
                task,
                service_id=swarm.service_id(service),
                node_id=swarm.node_id(0 if last else 1 + number % 2),
                addresses={
                    overlay: swarm.task_address(number, NETWORK),
                    ingress: swarm.task_address(number, 0),
                },
            )
        return msgspec.structs.replace(state, nodes=nodes, tasks=tasks)

    def _local(self, state: MeshState) -> LocalView:
        local = swarm.local_view(state, self.size, ifindex=ifindex("gw0"))
        place = EndpointKey(swarm.vni(NETWORK), ifindex("gw0"))
        (mine,) = local.tasks.values()
        assert mine.gateway is not None
        gateway = EndpointKey(0, ifindex("gw0"))
        return msgspec.structs.replace(
            local,
            vtep=NODE_A,
            addresses=frozenset({NODE_A}),
            endpoints={
                place: Endpoint(CLIENT, mac_of(CLIENT)),
                gateway: Endpoint(mine.gateway.address, mine.gateway.mac),
            },
        )

    # --- whom the packets are for -------------------------------------------------------

    @property
    def vip(self) -> str:
        """The VIP of service 0."""
        return swarm.vip(0, NETWORK)

    @property
    def port(self) -> int:
        """The published port of service 0: no task of it is here."""
        return swarm.FIRST_PORT

    @property
    def local_port(self) -> int:
        """The published port of the service whose task is here."""
        return swarm.FIRST_PORT + self.size.services - 1

    @property
    def local_task(self) -> str:
        """The address of that task on the ingress network."""
        return swarm.task_address(self.size.tasks - 1, 0)

    @property
    def gateway(self) -> str:
        """The address of that task on docker_gwbridge."""
        (task,) = (b for b in self._reconciler.actual.backends.values() if b.gateway)
        assert task.gateway is not None
        return task.gateway.address

    # --- other people's flows -----------------------------------------------------------

    def _fill(self, count: int) -> None:
        """Adds established flows, of clients that ask nothing now."""
        for name in _FLOW_MAPS:
            table = self.module.table(name)
            for numbers in parts(count):
                keys = np.zeros(len(numbers), dtype=np.dtype(table.Key))
                values = np.zeros(len(numbers), dtype=np.dtype(table.Leaf))
                others(keys, numbers)
                values["seen_ns"] = time.monotonic_ns()
                values["backend"] = values["frontend"] = 1
                values["flags"] = _ESTABLISHED
                kernel.fill(table.map_fd, keys, values)


def parts(count: int, most: int = _AT_ONCE) -> Iterator[NDArray[np.uint32]]:
    """The numbers below `count`, at most so many at once: a million flows need no memory twice."""
    for start in range(0, count, most):
        yield np.arange(start, min(start + most, count), dtype=np.uint32)


def others(keys: NDArray[Any], numbers: NDArray[np.uint32]) -> None:
    """Writes the keys of these flows, TCP."""
    where = keys["t"]
    where["saddr"] = (_BENCHMARKS + (numbers >> 14)).byteswap()
    where["daddr"] = address_to_int(NODE_A)
    where["sport"] = numbers & 0x3FFF
    where["dport"] = 1
    keys["protocol"] = 6
