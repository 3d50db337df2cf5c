# SPDX-License-Identifier: Apache-2.0
"""How long a change of tasks takes to reach the maps of each node, on the lab's Swarm."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from statistics import median, quantiles

import msgspec

from bench.result import Figure, Param
from bench.store import began, parser, save, say
from ebpfmesh.lab import images
from ebpfmesh.lab.lab import Lab
from ebpfmesh.lab.processes import wait_until
from ebpfmesh.lab.unix_http import get_json

SERVICE, NETWORK = "changing", "bench"
NODES = 3
FEW, MANY = 2, 6
REST_S = 3.0
TIMEOUT_S = 60.0
MEDIAN_MS, P99_MS = 50.0, 250.0


class Synced(msgspec.Struct, frozen=True):
    """A line of an agent's log; `after_ms`: how old the changes were that the maps then had."""

    event: str = ""
    after_ms: tuple[float, ...] = ()


class Followed:
    """Reads what the agents' logs say from now on."""

    def __init__(self, lab: Lab) -> None:
        self._logs = {node.name: Path(node.agent_log) for node in lab.nodes}
        self._at = {name: log.stat().st_size for name, log in self._logs.items()}

    def since(self) -> dict[str, list[float]]:
        """Milliseconds by node, of each change that was followed since the last call."""
        return {name: list(self._read(name)) for name in self._logs}

    def _read(self, name: str) -> Iterator[float]:
        with self._logs[name].open("rb") as log:
            log.seek(self._at[name])
            lines = log.read().splitlines(keepends=True)
        for line in lines:
            if not line.endswith(b"\n"):
                break
            self._at[name] += len(line)
            if line.startswith(b"{"):
                yield from msgspec.json.decode(line, type=Synced).after_ms


def one_round(lab: Lab, followed: Followed, changes: int) -> dict[str, list[float]]:
    """Tasks come and go, half of the changes each."""
    followed.since()
    found: dict[str, list[float]] = {node.name: [] for node in lab.nodes}
    for _ in range(changes // (2 * (MANY - FEW))):
        for count in (MANY, FEW):
            lab.docker("node1", "service", "scale", "--detach", f"{SERVICE}={count}")
            _settle(lab, count)
            for name, took_ms in followed.since().items():
                found[name] += took_ms
    return found


def _settle(lab: Lab, count: int) -> None:
    """Wait until every node has so many tasks and no more, and a while longer: they end late."""

    def settled() -> bool:
        rows = [s for n in lab.nodes for s in get_json(n.agent_socket, "/status")["services"]]
        mine = [s for s in rows if s["name"] == SERVICE and s["state"] != "elsewhere"]
        return len(mine) >= NODES and all(s["ready"] == s["total"] == count for s in mine)

    if not wait_until(settled, TIMEOUT_S, 0.2):
        raise SystemExit(f"the nodes do not agree on {count} tasks")
    time.sleep(REST_S if count == FEW else 0.0)


def p99(values: list[float]) -> float:
    """The 99th percentile."""
    return quantiles(values, n=100, method="inclusive")[98]


def _of(found: dict[str, list[float]], name: str) -> list[float]:
    """What one node has found, or all of them."""
    return found[name] if name in found else list(chain.from_iterable(found.values()))


def figures(rounds: list[dict[str, list[float]]]) -> Iterator[Figure]:
    """For each node and for all: median, 99th percentile, and the longest."""
    for name in (*rounds[0], "all"):
        parts = [
            one[name] if name in one else list(chain.from_iterable(one.values())) for one in rounds
        ]
        params: dict[str, Param] = {"node": name, "followed": sum(map(len, parts))}
        yield Figure("median", "ms", tuple(map(median, parts)), params, at_most=MEDIAN_MS)
        yield Figure("p99", "ms", tuple(map(p99, parts)), params, at_most=P99_MS)
        yield Figure("longest", "ms", tuple(map(max, parts)), params)


def main() -> None:
    """Brings a lab up, measures, takes it down."""
    options = parser(__doc__)
    options.add_argument("--changes", type=int, default=200, help="tasks that come or go, in all")
    given = options.parse_args()
    rounds, changes = (1, 2 * (MANY - FEW)) if given.quick else (given.rounds, given.changes)
    machine = began(given.note)
    lab = Lab.up(nodes=NODES)
    try:
        lab.docker("node1", "network", "create", "--driver=overlay", "--attachable", NETWORK)
        lab.deploy(
            SERVICE, image=images.ECHO, replicas=FEW, networks=[NETWORK], publish=["8080:80"]
        )
        _settle(lab, FEW)
        followed = Followed(lab)
        found = [one_round(lab, followed, changes // rounds) for _ in range(rounds)]
    finally:
        lab.down()
    measured = list(figures(found))
    for figure in measured:
        say(figure)
    save("convergence", machine, measured, (), given.out)
    missed = [figure.name for figure in measured if figure.met is False]
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
