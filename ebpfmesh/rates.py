# SPDX-License-Identifier: Apache-2.0
"""What a node does per second: two statuses of an agent, and the time between them. Pure, no I/O.

Counters live in maps that outlive an agent. One that is lower than before has begun anew, because
its id was given to another: it counts from zero, as Prometheus' ``rate()`` has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeVar

import msgspec

from ebpfmesh.model import Frozen
from ebpfmesh.status import STATUS_VERSION, BackendStatus, ServiceStatus, Status, Traffic


class Rate(Frozen, frozen=True, omit_defaults=False):
    """Per second; `connections` are new flows, bytes count from the IP header on."""

    connections: float = 0.0
    packets_to_backend: float = 0.0
    packets_to_client: float = 0.0
    bytes_to_backend: float = 0.0
    bytes_to_client: float = 0.0

    @property
    def packets(self) -> float:
        """Both directions."""
        return self.packets_to_backend + self.packets_to_client

    @property
    def bytes(self) -> float:
        """Both directions."""
        return self.bytes_to_backend + self.bytes_to_client


class BackendRates(Frozen, frozen=True, omit_defaults=False):
    """A task; `share` is the part (0 to 1) of the new flows of this node that it gets."""

    task: str
    address: str
    node: str
    local: bool
    state: str
    share: float
    rate: Rate


class ServiceRates(Frozen, frozen=True, omit_defaults=False):
    """A service on one network; `entered` is what came in here for its published ports."""

    id: str
    name: str
    network: str
    state: str
    ready: int
    total: int
    flows: int
    rate: Rate
    entered: Rate
    backends: tuple[BackendRates, ...] = ()


class Rates(Frozen, frozen=True, omit_defaults=False):
    """A node's, over `seconds`. Those are 0, and so is every rate, if the agent was restarted."""

    version: int
    node: str
    seconds: float
    services: tuple[ServiceRates, ...]


class Order(StrEnum):
    """What services and their backends are sorted by."""

    PACKETS = "packets"
    BYTES = "bytes"
    CONNECTIONS = "connections"
    FLOWS = "flows"
    NAME = "name"


Key = tuple[str, ...]
Row = TypeVar("Row", ServiceRates, BackendRates)


def between(before: Status, after: Status) -> Rates:
    """Return the rates from one status to a later one of the same agent.

    What is in `before` only has gone; what is in `after` only has come, and counted from zero.
    """
    seconds = max(0.0, after.node.uptime_s - before.node.uptime_s)
    meter = _Meter(_counters(before.services), seconds)
    return Rates(
        version=STATUS_VERSION,
        node=after.node.hostname,
        seconds=seconds,
        services=tuple(meter.service(service) for service in after.services),
    )


def ordered(rates: Rates, by: Order, *, ascending: bool = False) -> Rates:
    """Return the same, sorted: the highest first, names from A to Z; `ascending` turns it round.

    What is equal is in order of name.
    """
    services = [
        msgspec.structs.replace(one, backends=_sorted(one.backends, by, ascending))
        for one in rates.services
    ]
    return msgspec.structs.replace(rates, services=_sorted(services, by, ascending))


def _sorted(rows: Iterable[Row], by: Order, ascending: bool) -> tuple[Row, ...]:
    named = sorted(rows, key=_name, reverse=ascending and by is Order.NAME)
    if by is Order.NAME:
        return tuple(named)
    return tuple(sorted(named, key=lambda row: _weight(row, by), reverse=not ascending))


def _name(row: ServiceRates | BackendRates) -> Key:
    return (row.name, row.network) if isinstance(row, ServiceRates) else (row.task, row.address)


def _weight(row: ServiceRates | BackendRates, by: Order) -> float:
    """What came in counts, too: on an entry node nothing else may be seen of a service."""
    entered = row.entered if isinstance(row, ServiceRates) else Rate()
    match by:
        case Order.BYTES:
            return row.rate.bytes + entered.bytes
        case Order.CONNECTIONS:
            return row.rate.connections + entered.connections
        case Order.FLOWS:
            return row.flows if isinstance(row, ServiceRates) else row.share
    return row.rate.packets + entered.packets


def _counters(services: Iterable[ServiceStatus]) -> dict[Key, Traffic]:
    """Every counter by what it counts."""
    found: dict[Key, Traffic] = {}
    for service in services:
        for frontend in service.frontends:
            found["frontend", service.id, service.network, frontend.name] = frontend.traffic
            found["entry", service.id, service.network, frontend.name] = frontend.entered
        for backend in service.backends:
            found["backend", service.id, service.network, backend.task] = backend.traffic
    return found


class _Meter:
    """Compares counters with those of before."""

    def __init__(self, before: Mapping[Key, Traffic], seconds: float) -> None:
        self._before = before
        self._seconds = seconds

    def service(self, service: ServiceStatus) -> ServiceRates:
        where = (service.id, service.network)
        frontends = service.frontends
        return ServiceRates(
            id=service.id,
            name=service.name,
            network=service.network,
            state=service.state,
            ready=service.ready,
            total=service.total,
            flows=service.flows,
            rate=self._sum((("frontend", *where, f.name), f.traffic) for f in frontends),
            entered=self._sum((("entry", *where, f.name), f.entered) for f in frontends),
            backends=tuple(self._backend(where, backend) for backend in service.backends),
        )

    def _backend(self, where: Key, backend: BackendStatus) -> BackendRates:
        return BackendRates(
            task=backend.task,
            address=backend.address,
            node=backend.node,
            local=backend.local,
            state=backend.state,
            share=backend.share,
            rate=self._sum([(("backend", *where, backend.task), backend.traffic)]),
        )

    def _sum(self, counters: Iterable[tuple[Key, Traffic]]) -> Rate:
        """The rate of several counters together."""
        total = dict.fromkeys(Rate.__struct_fields__, 0.0)
        for key, now in counters:
            for name, grown in _growth(self._before.get(key, Traffic()), now).items():
                total[name] += grown
        if not self._seconds:
            return Rate()
        return Rate(**{name: grown / self._seconds for name, grown in total.items()})


def _growth(before: Traffic, now: Traffic) -> dict[str, int]:
    """By how much each field has grown; from zero if one of them is lower."""
    old, new = msgspec.structs.asdict(before), msgspec.structs.asdict(now)
    if any(new[name] < old[name] for name in new):
        return new
    return {name: new[name] - old[name] for name in new}
