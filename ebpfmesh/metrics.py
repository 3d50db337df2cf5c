# SPDX-License-Identifier: Apache-2.0
"""The status of an agent as Prometheus metrics. Pure: status in, text out.

Labels are bounded by what the Swarm runs, and backends by a setting. A backend is named by its
address on the network: addresses are used again, ids of tasks never are. Container ids and clients
are no labels. What each family means is said here, and docs/metrics.md is made from it.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ebpfmesh.config import Config
from ebpfmesh.model import BackendState, Frozen
from ebpfmesh.status import (
    STATUS_VERSION,
    DatapathStatus,
    HubStatus,
    NodeStatus,
    ServiceStatus,
    Status,
    Traffic,
)
from ebpfmesh.wording import clean

READY = BackendState.READY.name.lower()
UNREACHABLE = "unreachable"
"""The state of a task that runs, but on a node that is down or has no way to it."""

_STATES = tuple(state.name.lower() for state in BackendState)
_UNPROGRAMMED = ("dnsrr", "elsewhere")
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_CONVERGENCE_BUCKETS_S = (
    *(0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25),
    *(0.5, 1.0, 2.5, 5.0, 10.0),
)

Labels = tuple[str, ...]


class SyncTimer:
    """How long it takes to bring the maps in step, and how often that failed."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.count = 0
        self.errors = 0
        self._histogram = Histogram(
            "ebpfmesh_sync_duration_seconds",
            "How long bringing maps and programs in step took.",
            registry=self.registry,
            buckets=_BUCKETS_S,
        )

    def observe(self, seconds: float) -> None:
        """Count one that was done."""
        self.count += 1
        self._histogram.observe(seconds)

    def failed(self) -> None:
        """Count one that was not."""
        self.errors += 1


class ConvergenceTimer:
    """How long after a change the maps of this node have followed it.

    A change has a time of origin, by the clock of whoever saw it first: of this node, of another,
    or of a manager. Where the clocks differ so much that a change seems to come from the future, it
    counts as 0.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._pending: list[int] = []
        self._histogram = Histogram(
            "ebpfmesh_convergence_seconds",
            "From a change, wherever it happened, to the maps of this node.",
            registry=self.registry,
            buckets=_CONVERGENCE_BUCKETS_S,
        )

    def began(self, origin_ns: int) -> None:
        """Note a change that the maps do not follow yet; 0 is one of which nothing is known."""
        if origin_ns and origin_ns not in self._pending:
            self._pending.append(origin_ns)

    def take(self) -> list[int]:
        """Return what is pending, for whoever now makes the maps follow."""
        taken, self._pending = self._pending, []
        return taken

    def put_back(self, origins_ns: Iterable[int]) -> None:
        """Note again what was taken: the maps do not follow it yet."""
        for origin_ns in origins_ns:
            self.began(origin_ns)

    def observe(self, origins_ns: Iterable[int], now_ns: int) -> list[float]:
        """Count these as followed; returns how long that took, in milliseconds."""
        took_s = [max(0, now_ns - origin) / 1e9 for origin in origins_ns]
        for one in took_s:
            self._histogram.observe(one)
        return [round(one * 1e3, 1) for one in took_s]


def render(
    status: Status, *timers: SyncTimer | ConvergenceTimer, backends: int = Config().metrics_backends
) -> bytes:
    """Return the text exposition (version 0.0.4) of a status, and of `timers` after it.

    At most `backends` of the backends are told of one by one.
    """
    registry = CollectorRegistry()
    registry.register(_StatusCollector(status, backends))
    text: bytes = generate_latest(registry)
    return text + b"".join(generate_latest(timer.registry) for timer in timers)


class Family(Frozen, frozen=True):
    """What there is to know of a metric; `kind` is counter, gauge or histogram."""

    name: str
    kind: str
    labels: Labels
    text: str


def families() -> list[Family]:
    """Return every metric that `render` may tell, in its order."""
    registry = CollectorRegistry()
    registry.register(_StatusCollector(_NOTHING, 0))
    registries = (registry, SyncTimer().registry, ConvergenceTimer().registry)
    return [_family(metric) for one in registries for metric in one.collect()]


def _family(metric: Metric) -> Family:
    """A counter's name has ``_total`` behind it, a histogram's has ``_bucket`` with `le`."""
    suffix = {"counter": "_total", "histogram": "_bucket"}.get(metric.type, "")
    labels = ("le",) if suffix == "_bucket" else tuple(getattr(metric, "_labelnames"))  # noqa: B009
    return Family(metric.name + suffix, metric.type, labels, metric.documentation)


_NOTHING = Status(
    version=STATUS_VERSION,
    problems=(),
    node=NodeStatus("", "", "", 0.0, "", ""),
    datapath=DatapathStatus("", "", "", 0, 0, 0, 0),
    hub=HubStatus("", False, "", 0.0, 0, None),
    maps=(),
    services=(),
    drops={},
    handbacks={},
    notes=(),
    syncs=0,
    sync_errors=0,
)


class _StatusCollector(Collector):
    """The families of one status, made when they are asked for."""

    def __init__(self, status: Status, backends: int) -> None:
        self._status = status
        self._backends = backends

    def collect(self) -> Iterator[Metric]:
        yield from _agent(self._status)
        yield from _hub(self._status)
        yield from _reasons(self._status)
        yield from _maps(self._status)
        yield from _services(self._status.services)
        yield from _frontends(self._status.services)
        yield from _backends(self._status.services, self._backends)


# --- families ---------------------------------------------------------------------------


def _agent(status: Status) -> Iterator[Metric]:
    build = (status.node.agent_version, platform.python_version())
    yield _gauge(
        "ebpfmesh_build_info",
        "Always 1; what runs is in the labels.",
        ("version", "python"),
        {build: 1},
    )
    yield _gauge(
        "ebpfmesh_healthy", "1 if the agent has no problem.", (), {(): not status.problems}
    )
    yield _gauge(
        "ebpfmesh_uptime_seconds", "Since the agent was started.", (), {(): status.node.uptime_s}
    )
    yield _gauge(
        "ebpfmesh_programs",
        "Places that have a program attached.",
        (),
        {(): status.datapath.programs},
    )
    yield _gauge(
        "ebpfmesh_nic",
        "Always 1, for each NIC that is served; the mode of XDP there.",
        ("device", "xdp"),
        {(clean(nic.name), nic.xdp): 1 for nic in status.datapath.nics},
    )
    yield _gauge(
        "ebpfmesh_takeover_seconds_left",
        "For how long connections that are not known are left to the kernel; 0 mostly.",
        (),
        {(): status.datapath.takeover_left_s},
    )
    yield _gauge(
        "ebpfmesh_giving_back",
        "1 while new flows are left to the kernel.",
        (),
        {(): status.datapath.mode == "giving_back"},
    )
    yield _counter(
        "ebpfmesh_syncs",
        "Times that maps and programs were brought in step.",
        (),
        {(): status.syncs},
    )
    yield _counter("ebpfmesh_sync_errors", "Times that this failed.", (), {(): status.sync_errors})


def _hub(status: Status) -> Iterator[Metric]:
    hub = status.hub
    yield _gauge(
        "ebpfmesh_hub_connected", "1 if this agent follows a hub.", (), {(): hub.connected}
    )
    ages: dict[Labels, float] = {} if hub.age_s is None else {(): hub.age_s}
    yield _gauge(
        "ebpfmesh_hub_state_age_seconds", "Since the Swarm has confirmed the state.", (), ages
    )
    yield _gauge(
        "ebpfmesh_nodes_unreachable",
        "Nodes that no hub hears: their tasks get nothing that others can take.",
        (),
        {(): len(status.unreachable)},
    )


def _reasons(status: Status) -> Iterator[Metric]:
    yield _counter(
        "ebpfmesh_drops",
        "Packets that were dropped.",
        ("reason",),
        {(reason,): count for reason, count in status.drops.items()},
    )
    yield _counter(
        "ebpfmesh_handbacks",
        "Packets that were left to the kernel.",
        ("reason",),
        {(reason,): count for reason, count in status.handbacks.items()},
    )
    yield _counter(
        "ebpfmesh_retries",
        "Flows that got another backend before they were lost.",
        ("reason",),
        {(reason,): count for reason, count in status.retries.items()},
    )


def _maps(status: Status) -> Iterator[Metric]:
    used: dict[Labels, float] = {(m.name,): m.entries for m in status.maps}
    room: dict[Labels, float] = {(m.name,): m.max_entries for m in status.maps}
    yield _gauge("ebpfmesh_map_entries", "Entries in a map.", ("map",), used)
    yield _gauge("ebpfmesh_map_max_entries", "Entries that a map has room for.", ("map",), room)


def _services(services: Iterable[ServiceStatus]) -> Iterator[Metric]:
    """Only of what is programmed on this node: elsewhere nothing is known of it."""
    here = [service for service in services if service.state not in _UNPROGRAMMED]
    backends: Counter[Labels] = Counter()
    flows: Counter[Labels] = Counter()
    avoided: Counter[Labels] = Counter()
    for service in here:
        name = _name(service)
        flows[name] += service.flows
        avoided[name] += sum(backend.avoided for backend in service.backends)
        for state, count in backend_states(service).items():
            backends[*name, state] += count
    yield _gauge(
        "ebpfmesh_service_backends",
        "Backends by state; unreachable: it runs, on a node that is down or has no way to it.",
        ("service", "network", "state"),
        backends,
    )
    yield _gauge(
        "ebpfmesh_service_backends_avoided",
        "Backends that get no new flows, as they have left connections unanswered.",
        ("service", "network"),
        avoided,
    )
    yield _gauge("ebpfmesh_flows", "Flows that this node remembers.", ("service", "network"), flows)


def backend_states(service: ServiceStatus) -> dict[str, int]:
    """Count the backends by state; ready are those that get new flows."""
    found = Counter(backend.state for backend in service.backends)
    states = {state: found[state] for state in _STATES}
    states[READY] = service.ready
    states[UNREACHABLE] = max(0, found[READY] - service.ready)
    return states


def _name(service: ServiceStatus) -> tuple[str, str]:
    """The service and its network; the exposition may be read on a terminal, too."""
    return clean(service.name), clean(service.network)


def _frontends(services: Iterable[ServiceStatus]) -> Iterator[Metric]:
    translated, entered = _Tally(), _Tally()
    for service in services:
        for frontend in service.frontends:
            labels = (*_name(service), frontend.name)
            translated.add(labels, frontend.traffic)
            if frontend.kind == "port":
                entered.add(labels, frontend.entered)
    names = ("service", "network", "frontend")
    yield from translated.families("ebpfmesh_service", names, "translated by this node")
    came_in = "that came in here for a published port; answers are not seen"
    yield from entered.families("ebpfmesh_entry", names, came_in)


def _backends(services: Iterable[ServiceStatus], most: int) -> Iterator[Metric]:
    tally = _Tally()
    for service in services:
        for backend in service.backends:
            tally.add((*_name(service), backend.address), backend.traffic)
    names = ("service", "network", "backend")
    left_out = tally.keep(most)
    yield from tally.families("ebpfmesh_backend", names, "translated by this node")
    yield _gauge(
        "ebpfmesh_backends_left_out",
        "Backends that have no series of their own here: more than `metrics_backends`.",
        (),
        {(): left_out},
    )


class _Tally:
    """Traffic by labels. What has the same labels is added up: a series must not occur twice."""

    def __init__(self) -> None:
        self.packets: Counter[Labels] = Counter()
        self.bytes: Counter[Labels] = Counter()
        self.connections: Counter[Labels] = Counter()

    def add(self, labels: Labels, traffic: Traffic) -> None:
        self.packets[*labels, "to_backend"] += traffic.packets_to_backend
        self.packets[*labels, "to_client"] += traffic.packets_to_client
        self.bytes[*labels, "to_backend"] += traffic.bytes_to_backend
        self.bytes[*labels, "to_client"] += traffic.bytes_to_client
        self.connections[labels] += traffic.connections

    def keep(self, most: int) -> int:
        """Keep `most` of the series, those of what was never used last; return how many went."""
        ordered = sorted(self.connections, key=lambda key: (not self._used(key), key))
        for labels in ordered[most:]:
            del self.connections[labels]
            for direction in ("to_backend", "to_client"):
                del self.packets[*labels, direction]
                del self.bytes[*labels, direction]
        return len(ordered[most:])

    def _used(self, labels: Labels) -> bool:
        return any(self.packets[*labels, way] for way in ("to_backend", "to_client"))

    def families(self, prefix: str, names: Labels, what: str) -> Iterator[Metric]:
        both = (*names, "direction")
        yield _counter(f"{prefix}_packets", f"Packets {what}.", both, self.packets)
        yield _counter(
            f"{prefix}_bytes", f"Bytes, from the IP header on, {what}.", both, self.bytes
        )
        yield _counter(f"{prefix}_connections", f"New flows {what}.", names, self.connections)


def _counter(name: str, text: str, labels: Labels, values: Mapping[Labels, float]) -> Metric:
    """The family `name`; samples get ``_total`` behind it."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, text: str, labels: Labels, values: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
