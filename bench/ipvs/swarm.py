# SPDX-License-Identifier: Apache-2.0
"""Docker's own VIPs and mesh beside ebpfmesh's, on real dockerds; runs in the guest."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from bench.ipvs.network import run
from bench.lab import programs
from bench.lab.__main__ import Bench, Cpus
from bench.lab.figures import CONNECTIONS, DATAGRAMS, REQUESTS, Report, Side, Workload
from bench.lab.figures import Path as Way
from bench.lab.scene import NODES, Scene
from bench.plot import Plot
from bench.result import Figure, Param, interleaved, ratios
from ebpfmesh.lab.lab import Lab

SIDES = (Side.DIRECT, Side.EBPFMESH, Side.SWARM)
WORKLOADS = (CONNECTIONS, REQUESTS, DATAGRAMS)
OVER_DIRECT, OVER_SWARM = "rate, over direct", "rate, over Docker's own"
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


def figures(way: Way, workload: Workload, rounds: Rounds) -> Iterator[Figure]:
    """What a second carries whose nanoseconds are instructions; each side beside others. Pure."""
    params: dict[str, Param] = {"path": way, "work": workload.name}
    rates = {side: tuple(map(workload.amount, found)) for side, found in rounds.items()}
    for side, values in rates.items():
        yield Figure("per 1,000,000,000 instructions", "", values, {**params, "side": side})
    for side in (Side.EBPFMESH, Side.SWARM):
        over = ratios(rates[side], rates[Side.DIRECT])
        yield Figure(OVER_DIRECT, "times", over, {**params, "side": side})
    aim = AT_LEAST if way is not Way.VIP and workload is not REQUESTS else None
    over = ratios(rates[Side.EBPFMESH], rates[Side.SWARM])
    yield Figure(OVER_SWARM, "times", over, params, at_least=aim)


def _say(text: str) -> None:
    print(f"guest: {text}, up {time.monotonic():.1f} s", flush=True)


def _measure(bench: Bench, scene: Scene, rounds: int) -> Iterator[Figure]:
    for path in Way:
        ways = {way.side: way for way in scene.ways(path) if way.side in SIDES}
        for workload in WORKLOADS:
            runs = {side: partial(bench.run, ways[side], workload, Cpus.one()) for side in SIDES}
            interleaved(runs, 1)  # the first one finds nothing prepared
            found = interleaved(runs, rounds)
            failed = {side: [r.failed + r.lost for r in reports] for side, reports in found.items()}
            _say(f"{path}, {workload.name}: failed or lost {failed}")
            yield from figures(path, workload, found)


def main() -> None:
    """Brings a Swarm up, two of its four nodes with agents, and measures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, required=True)
    options.add_argument("--seconds", type=float, required=True, help="of each single run")
    options.add_argument("to", type=Path)
    given = options.parse_args()
    run("modprobe", "ip_vs_rr")
    with tempfile.TemporaryDirectory(prefix="ebpfmesh-bench-") as directory:
        server, load = (programs.build(name, Path(directory)) for name in ("serve", "load"))
        lab = Lab.up(nodes=NODES, agents=False, progress=_say)
        programs.load_image(lab, server)
        scene = Scene(lab)
        _say("services and agents")
        scene.build()
        _say("ready")
        bench = Bench(scene, load, given.rounds, given.seconds)
        measured = []
        for figure in _measure(bench, scene, given.rounds):
            measured.append(figure)
            given.to.write_bytes(msgspec.json.encode(measured))


if __name__ == "__main__":
    main()
