# SPDX-License-Identifier: Apache-2.0
"""Docker's own VIPs and mesh beside ebpfmesh's, on real dockerds; runs in the guest."""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path as FilePath

import msgspec

from bench.ipvs.network import run
from bench.lab import programs
from bench.lab.__main__ import Bench, Cpus
from bench.lab.figures import (
    CONNECTIONS,
    DATAGRAMS,
    REQUESTS,
    Path,
    Report,
    Side,
    Workload,
    troubles,
)
from bench.lab.scene import Scene, Way
from bench.plot import Plot
from bench.result import Figure, Param, differences, interleaved, ratios
from ebpfmesh.lab import cgroup
from ebpfmesh.lab.lab import Lab

_BALANCED = (Side.EBPFMESH, Side.SWARM)
SIDES = (Side.DIRECT, *_BALANCED)
# Compiled where that takes seconds; they lie beside the sources.
PROGRAMS = ("serve", "load")
SERVE, LOAD = (FilePath(__file__).resolve().parents[2] / name for name in PROGRAMS)
NODES = 2  # one has an agent, the other one is as Docker leaves it
PAUSE_S = 0.5  # after each run: managers take a node for down whose heartbeats are missing
PATHS = (Path.MESH, Path.VIP)
WORKLOADS = (CONNECTIONS, REQUESTS, DATAGRAMS)
TAKEN, ADDED = "instructions, the whole guest", "added to direct"
OF_SWARM = "added, over what Docker's own adds"
OVER_DIRECT, OVER_SWARM = "rate, over direct", "rate, over Docker's own"
_UNIT = "instructions"
_SECOND = 1_000_000_000  # of the guest's clock, in instructions
AT_LEAST = 2.5  # connections and datagrams through the mesh, over Docker's own

PLOTS = (
    Plot(
        "over-swarm",
        "Per instruction, ebpfmesh over Docker's own",
        OVER_SWARM,
        x="work",
        lines="path",
        bars=True,
    ),
)

Rounds = Mapping[Side, Sequence[Report]]


def figures(path: Path, workload: Workload, rounds: Rounds) -> Iterator[Figure]:
    """What one of the work took, and how many there can be; each side beside the others. Pure."""
    params: dict[str, Param] = {"path": path, "work": workload.name}
    rates = {side: tuple(map(workload.amount, found)) for side, found in rounds.items()}
    taken = {side: tuple(_SECOND / rate for rate in values) for side, values in rates.items()}
    for side, values in taken.items():
        yield Figure(TAKEN, _UNIT, values, {**params, "side": side})
    added = {side: differences(taken[side], taken[Side.DIRECT]) for side in _BALANCED}
    for side, values in added.items():
        yield Figure(ADDED, _UNIT, values, {**params, "side": side})
    yield Figure(OF_SWARM, "times", ratios(added[Side.EBPFMESH], added[Side.SWARM]), params)
    for side in _BALANCED:
        over = ratios(rates[side], rates[Side.DIRECT])
        yield Figure(OVER_DIRECT, "times", over, {**params, "side": side})
    aim = AT_LEAST if path is not Path.VIP and workload is not REQUESTS else None
    over = ratios(rates[Side.EBPFMESH], rates[Side.SWARM])
    yield Figure(OVER_SWARM, "times", over, params, at_least=aim)


def _say(text: str) -> None:
    print(f"guest: {text}, up {time.monotonic():.1f} s", flush=True)


class _Runs:
    """Runs workloads while no dockerd and no agent does anything: no packet needs them."""

    def __init__(self, bench: Bench, lab: Lab) -> None:
        self._bench = bench
        self._lab = lab

    def of(self, way: Way, workload: Workload) -> Callable[[], Report]:
        def run_once() -> Report:
            with self._daemons_stopped():
                return self._bench.run(way, workload, Cpus.one())

        return run_once

    @contextmanager
    def _daemons_stopped(self) -> Iterator[None]:
        groups = [cgroup.of_daemons(node.name) / "cgroup.procs" for node in self._lab.nodes]
        daemons = [int(pid) for group in groups for pid in group.read_text().split()]
        _send(daemons, signal.SIGSTOP)
        try:
            yield
        finally:
            _send(daemons, signal.SIGCONT)
            time.sleep(PAUSE_S)


def _send(processes: Sequence[int], what: signal.Signals) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):  # what a daemon has started may end by itself
            os.kill(pid, what)


def _measure(bench: Bench, scene: Scene, rounds: int) -> Iterator[Figure]:
    single = _Runs(bench, scene.lab)
    for path in PATHS:
        ways = {way.side: way for way in scene.ways(path) if way.side in SIDES}
        for workload in WORKLOADS:
            runs = {side: single.of(ways[side], workload) for side in SIDES}
            interleaved(runs, 1)  # the first one finds nothing prepared
            found = interleaved(runs, rounds)
            failed = {side: [r.failed + r.lost for r in reports] for side, reports in found.items()}
            _say(f"{path}, {workload.name}: failed or lost {failed}")
            yield from figures(path, workload, found)
            yield from troubles(path, workload, found)


def main() -> None:
    """Brings a Swarm up, and measures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, required=True)
    options.add_argument("--seconds", type=float, required=True, help="of each single run")
    options.add_argument("to", type=FilePath)
    given = options.parse_args()
    run("modprobe", "ip_vs_rr")
    lab = Lab.up(nodes=NODES, agents=False, progress=_say)
    programs.load_image(lab, SERVE)
    scene = Scene(lab)
    _say("services and an agent")
    scene.build()
    _say("ready")
    bench = Bench(scene, LOAD, given.rounds, given.seconds)
    given.to.write_bytes(msgspec.json.encode(list(_measure(bench, scene, given.rounds))))


if __name__ == "__main__":
    main()
