# SPDX-License-Identifier: Apache-2.0
"""A small Swarm as an agent would tell of it: its counters grow with time."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import msgspec

from ebpfmesh.changes import Change
from ebpfmesh.status import (
    STATUS_VERSION,
    BackendStatus,
    DatapathStatus,
    FrontendStatus,
    HubStatus,
    MapStatus,
    NicStatus,
    NodeStatus,
    NoteStatus,
    ServiceStatus,
    Status,
    Traffic,
)

NODES = ("node1", "node2", "node3")


class Service(NamedTuple):
    """What one is like; each task has a state."""

    name: str
    network: str
    frontends: tuple[str, ...]
    rate: float
    states: tuple[str, ...] = ("ready", "ready", "ready")
    state: str = "ok"
    mode: str = "vip"


SERVICES = (
    Service("shop_api", "shop", ("10.0.1.4",), 640.0),
    Service("shop_cache", "shop", (), 0.0, (), "dnsrr", "dnsrr"),
    Service("shop_db", "shop", ("10.0.1.9",), 85.0, ("ready",)),
    Service(
        "shop_web",
        "ingress",
        ("tcp:443", "tcp:80"),
        210.0,
        ("ready", "ready", "draining"),
        "degraded",
    ),
    Service("shop_web", "shop", ("10.0.1.2",), 4.5, ("ready", "ready", "draining"), "degraded"),
    Service("resolver", "ingress", ("udp:53",), 1900.0, ("ready", "ready")),
    Service("backup", "ops", (), 0.0, (), "elsewhere"),
    Service("reports", "shop", ("10.0.1.14",), 0.0, ("starting", "gone"), "down"),
)
DROPS = {"no_backend": 17, "not_allowed": 40213, "too_big": 0, "backend_gone": 3}
HANDBACKS = {"no_frontend": 81234567, "not_ipv4": 4120, "vlan": 0}
CHANGES = (
    Change(
        "backend.state",
        {
            "service": "shop_web",
            "network": "ingress",
            "task": "k4v5tq2w8v0x",
            "address": "10.0.0.21",
            "node": "node3",
            "state": "draining",
            "was": "ready",
        },
        1.7635e9 + 32,
        "the Swarm's state 39845888",
        0.018,
    ),
    Change(
        "backend.added",
        {
            "service": "shop_web",
            "network": "ingress",
            "task": "p9d2m4c7h1aa",
            "address": "10.0.0.24",
            "node": "node1",
        },
        1.7635e9 + 30,
        "dockerd: start of task p9d2m4c7h1aa",
        0.041,
    ),
    Change("hub.following", {"hub": "192.0.2.12:7380"}, 1.7635e9),
)


class FakeAgent:
    """As `Answers`: the same Swarm, some time later at each look."""

    def __init__(self, name: str = "") -> None:
        """`name` is put in the place of every name, if there is one."""
        self._began = time.monotonic()
        self._name = name
        self.problems: tuple[str, ...] = ()

    def is_ready(self) -> bool:
        return True

    def changes(self) -> tuple[Change, ...]:
        return CHANGES

    async def metrics(self) -> bytes:
        return b""

    async def status(self) -> Status:
        await asyncio.sleep(0)
        seconds = time.monotonic() - self._began + 3600
        status = a_status(seconds, self.problems)
        if not self._name:
            return status
        services = tuple(
            msgspec.structs.replace(one, name=self._name, network=self._name)
            for one in status.services
        )
        return msgspec.structs.replace(status, services=services)


def a_status(seconds: float, problems: tuple[str, ...] = ()) -> Status:
    return Status(
        version=STATUS_VERSION,
        problems=problems,
        node=NodeStatus("n1", "node1", "192.0.2.11", seconds + 90_000, "0.1.0", "28.5.1"),
        datapath=DatapathStatus(
            "eth0",
            "native",
            "tunnel",
            31,
            16381,
            2,
            15461121,
            (NicStatus("eth0", "native"), NicStatus("eth1", "off")),
        ),
        hub=HubStatus("hub", True, "192.0.2.11:7380", seconds, 39845888, 0.4),
        maps=(MapStatus("flows", 26214, 262144),),
        services=tuple(a_service(one, seconds) for one in SERVICES),
        drops=DROPS,
        handbacks=HANDBACKS,
        retries={"second_chance": 5},
        notes=(NoteStatus("warning", "backup", "a task has no docker_gwbridge endpoint"),),
        syncs=310,
        sync_errors=0,
    )


def a_service(one: Service, seconds: float) -> ServiceStatus:
    ready = sum(state == "ready" for state in one.states)
    flows = one.rate * seconds
    share = 1 / ready if ready else 0.0
    backends = tuple(
        BackendStatus(
            task=f"task{number}",
            address=f"10.0.1.{20 + number}",
            node=NODES[number % len(NODES)],
            local=number == 0,
            state=state,
            traffic=traffic(flows * share if state == "ready" else 0.0),
            share=share if state == "ready" else 0.0,
        )
        for number, state in enumerate(one.states)
    )
    return ServiceStatus(
        id=f"id-of-{one.name}",
        name=one.name,
        network=one.network,
        vni=4096 + len(one.network),
        mode=one.mode,
        state=one.state,
        ready=ready,
        total=len(one.states),
        flows=int(one.rate * 4),
        frontends=tuple(
            FrontendStatus(
                name, "port" if ":" in name else "vip", 0, traffic(flows), traffic(flows)
            )
            for name in one.frontends
        ),
        backends=backends,
        chosen=ready,
    )


def traffic(flows: float) -> Traffic:
    return Traffic(
        packets_to_backend=int(flows * 9),
        packets_to_client=int(flows * 12),
        bytes_to_backend=int(flows * 1400),
        bytes_to_client=int(flows * 15_000),
        connections=int(flows),
    )
