# SPDX-License-Identifier: Apache-2.0
"""Paths in the lab: direct, through ebpfmesh, and through DNAT by iptables or nftables."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path as FilePath
from typing import NamedTuple

import msgspec

from bench.lab import figures, programs
from bench.lab.figures import LATENCY, REQUESTS, THROUGHPUT, Path, Report, Side, Workload
from bench.lab.scene import NODES, Scene, Way, inside
from bench.node import need_root
from bench.plot import Plot
from bench.result import Figure, interleaved
from bench.store import began, parser, save, say
from ebpfmesh.lab.lab import Lab
from ebpfmesh.lab.processes import run

QUICK_SECONDS = 0.3
CALIBRATIONS = 3
MOST_TIMEOUT_S = 60.0

PLOTS = (
    *(
        Plot(
            slug,
            f"{path}: throughput over direct",
            figures.OVER_DIRECT,
            x="workload",
            lines="side",
            where={"path": path},
            bars=True,
        )
        for slug, path in (("vip", Path.VIP), ("mesh", Path.MESH), ("remote", Path.REMOTE))
    ),
    Plot(
        "latency",
        f"{Path.VIP}: latency at half load",
        LATENCY.name,
        x="percentile",
        lines="side",
        where={"path": Path.VIP},
        log=True,
        bars=True,
    ),
)


class Cpus(NamedTuple):
    """Where the client runs, and where the servers do."""

    client: int
    servers: int

    @classmethod
    def one(cls) -> Cpus:
        """Both on one: what any part of a way costs is missing elsewhere, none of it hides."""
        cpu = max(os.sched_getaffinity(0))
        return cls(cpu, cpu)

    @classmethod
    def two(cls) -> Cpus:
        """One for each, where there are so many."""
        cpus = os.sched_getaffinity(0)
        return cls(min(cpus), max(cpus))


class Bench:
    """Runs workloads on the ways of a scene."""

    def __init__(self, scene: Scene, load: FilePath, rounds: int, seconds: float) -> None:
        self._scene = scene
        self._load = load
        self._rounds = rounds
        self._seconds = seconds

    def figures(self, path: Path) -> Iterator[Figure]:
        """Of all workloads on one path."""
        ways = {way.side: way for way in self._scene.ways(path)}
        self._keep_servers_on(Cpus.one().servers)
        for workload in THROUGHPUT:
            found = self._measure(ways, workload, Cpus.one())
            yield from figures.throughput(path, workload, found)
            yield from figures.troubles(path, workload, found)
        self._keep_servers_on(Cpus.two().servers)
        direct = ways[Side.DIRECT]
        most = [self.run(direct, REQUESTS, Cpus.two()) for _ in range(CALIBRATIONS)]
        rate = figures.half(most)
        found = self._measure(ways, LATENCY, Cpus.two(), rate)
        yield from figures.latency(path, rate, found)
        yield from figures.troubles(path, LATENCY, found)

    def _measure(
        self, ways: dict[Side, Way], workload: Workload, cpus: Cpus, rate: int = 0
    ) -> dict[Side, tuple[Report, ...]]:
        runs = {side: partial(self.run, way, workload, cpus, rate) for side, way in ways.items()}
        return interleaved(runs, self._rounds)

    def run(self, way: Way, workload: Workload, cpus: Cpus, rate: int = 0) -> Report:
        """One run of a workload on one way."""
        how = [workload.mode, str(workload.clients), f"{self._seconds:g}", str(rate)]
        argv = ["taskset", "--cpu-list", str(cpus.client), str(self._load), *how, *way.targets]
        with self._scene.laid(way):
            done = self._scene.lab.run(
                way.place, inside(way.pid, argv), timeout_s=MOST_TIMEOUT_S + self._seconds
            )
        return msgspec.json.decode(done.stdout, type=Report)

    def _keep_servers_on(self, cpu: int) -> None:
        for tasks in self._scene.tasks.values():
            for task in tasks:
                os.sched_setaffinity(task.pid, {cpu})


def tools() -> list[str]:
    """What balances by hand, and its version: kept with the results."""
    versions = (run([name, "--version"]).strip() for name in ("iptables", "nft"))
    return [", ".join(versions)]


def main() -> None:
    """Brings a lab up, measures, takes it down."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=1.2, help="of each single run")
    options.add_argument(
        "--path", action="append", choices=list(Path), help="only that one; may repeat"
    )
    given = options.parse_args()
    rounds, seconds = (1, QUICK_SECONDS) if given.quick else (given.rounds, given.seconds)
    need_root()
    # SIGTERM, like Ctrl-C, must not leave the lab behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine = began([*given.note, *tools()])
    measured: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="ebpfmesh-bench-") as directory:
        server, load = (programs.build(name, FilePath(directory)) for name in ("serve", "load"))
        lab = Lab.up(nodes=len(NODES), agents=False)
        try:
            programs.load_image(lab, server)
            scene = Scene(lab)
            scene.build()
            bench = Bench(scene, load, rounds, seconds)
            for path in given.path or Path:
                for figure in bench.figures(Path(path)):
                    say(figure)
                    measured.append(figure)
        finally:
            lab.down()
    drawn = [plot for plot in PLOTS if plot.where["path"] in (given.path or list(Path))]
    save("lab", machine, figures.in_order(measured), drawn, given.out)
    missed = [figure for figure in measured if figure.met is False]
    for figure in missed:
        print("missed: ", end="", file=sys.stderr)
        say(figure)


if __name__ == "__main__":
    main()
