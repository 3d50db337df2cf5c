# SPDX-License-Identifier: Apache-2.0
"""What the rounds of a workload come to: figures, and their ratios over direct. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from statistics import median

import msgspec

from bench.result import Figure, Param, ratios


class Path(StrEnum):
    """Where the client and the tasks are."""

    VIP = "VIP"
    MESH = "mesh, local task"
    REMOTE = "mesh, remote task"


class Side(StrEnum):
    """What lies between them."""

    DIRECT = "direct"
    ATTACHED = "direct, programs attached"
    EBPFMESH = "ebpfmesh"
    SOCKET = "ebpfmesh, socket"
    IPTABLES = "iptables"
    NFTABLES = "nftables"
    SWARM = "Docker's own"


class Report(msgspec.Struct, frozen=True):
    """What `load` has counted in so many seconds; times are in microseconds."""

    done: int
    bytes: int
    lost: int
    failed: int
    seconds: float
    p50_us: float = 0.0
    p90_us: float = 0.0
    p99_us: float = 0.0
    p999_us: float = 0.0

    @property
    def rate(self) -> float:
        """Done per second."""
        return self.done / self.seconds

    @property
    def gbit(self) -> float:
        """Gbit per second."""
        return self.bytes * 8 / self.seconds / 1e9


class Workload(msgspec.Struct, frozen=True):
    """What `load` does: its mode, with so many sockets; `amount` is the figure."""

    name: str
    mode: str
    clients: int
    unit: str
    amount: Callable[[Report], float]


CONNECTIONS = Workload("connections", "once", 32, "per second", lambda r: r.rate)
REQUESTS = Workload("kept requests", "keep", 32, "per second", lambda r: r.rate)
DOWN = Workload("bulk to client", "down", 4, "Gbit/s", lambda r: r.gbit)
UP = Workload("bulk to task", "up", 4, "Gbit/s", lambda r: r.gbit)
DATAGRAMS = Workload("datagrams", "udp", 16, "per second", lambda r: r.rate)
THROUGHPUT = (CONNECTIONS, REQUESTS, DOWN, UP, DATAGRAMS)
LATENCY = Workload("latency", "paced", 32, "us", lambda r: r.p50_us)

PERCENTILES: Mapping[str, Callable[[Report], float]] = {
    "50": lambda r: r.p50_us,
    "90": lambda r: r.p90_us,
    "99": lambda r: r.p99_us,
    "99.9": lambda r: r.p999_us,
}

TARGETS: Mapping[tuple[Path, Side, str], float] = {
    (Path.VIP, Side.EBPFMESH, REQUESTS.name): 0.97,
    (Path.VIP, Side.SOCKET, REQUESTS.name): 0.97,
    (Path.VIP, Side.EBPFMESH, CONNECTIONS.name): 0.93,
    (Path.VIP, Side.SOCKET, CONNECTIONS.name): 0.98,
    (Path.VIP, Side.EBPFMESH, DOWN.name): 0.97,
    (Path.VIP, Side.SOCKET, DOWN.name): 0.97,
    (Path.VIP, Side.EBPFMESH, UP.name): 0.97,
    (Path.VIP, Side.SOCKET, UP.name): 0.97,
    (Path.MESH, Side.EBPFMESH, CONNECTIONS.name): 0.95,
}
OVER_DIRECT, LATENCY_OVER_DIRECT = "over direct", "latency over direct"

Rounds = Mapping[Side, Sequence[Report]]


def throughput(path: Path, workload: Workload, rounds: Rounds) -> Iterator[Figure]:
    """How much each side carries, and each one's ratio to direct, round by round."""
    amounts = {side: tuple(map(workload.amount, found)) for side, found in rounds.items()}
    for side, values in amounts.items():
        params: dict[str, Param] = {"path": path, "side": side}
        yield Figure(workload.name, workload.unit, values, params)
    for side in (side for side in amounts if side is not Side.DIRECT):
        target = TARGETS.get((path, side, workload.name))
        over = ratios(amounts[side], amounts[Side.DIRECT])
        params = {"path": path, "workload": workload.name, "side": side}
        yield Figure(OVER_DIRECT, "ratio", over, params, at_least=target)


def latency(path: Path, rate: int, rounds: Rounds) -> Iterator[Figure]:
    """Percentiles by side at so many requests a second, and their ratios to direct."""
    for percentile, of in PERCENTILES.items():
        times = {side: tuple(map(of, found)) for side, found in rounds.items()}
        for side, values in times.items():
            params: dict[str, Param] = {
                "path": path,
                "requests/s": rate,
                "percentile": percentile,
                "side": side,
            }
            yield Figure(LATENCY.name, LATENCY.unit, values, params)
        for side in (side for side in times if side is not Side.DIRECT):
            params = {"path": path, "percentile": percentile, "side": side}
            over = ratios(times[side], times[Side.DIRECT])
            yield Figure(LATENCY_OVER_DIRECT, "ratio", over, params)


def troubles(path: Path, workload: Workload, rounds: Rounds) -> Iterator[Figure]:
    """What failed or was lost, where anything was: a fast path that loses is none."""
    for side, found in rounds.items():
        for name, values in (
            ("failed", tuple(float(r.failed) for r in found)),
            ("lost datagrams", tuple(float(r.lost) for r in found)),
        ):
            if any(values):
                params: dict[str, Param] = {"path": path, "workload": workload.name, "side": side}
                yield Figure(name, "in a run", values, params)


def half(direct: Sequence[Report]) -> int:
    """Half of the requests a second that direct carries."""
    return round(median(r.rate for r in direct) / 2)


def in_order(figures: Sequence[Figure]) -> list[Figure]:
    """Ratios first, they are what is asked for; the rest as measured."""
    kinds = (OVER_DIRECT, LATENCY_OVER_DIRECT)
    return sorted(figures, key=lambda f: kinds.index(f.name) if f.name in kinds else len(kinds))
