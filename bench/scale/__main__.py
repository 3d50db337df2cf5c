# SPDX-License-Identifier: Apache-2.0
"""A Swarm of 1,000 services and 10,000 tasks on 100 nodes: what it costs hub and agents."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.node import bench_node
from bench.plot import Plot
from bench.result import Figure
from bench.scale.child import dockerd
from bench.scale.fanout import fan_out
from bench.scale.stages import Stages, one_task, resized
from bench.store import began, parser, save, say
from bench.swarm import Size, vtep

LARGE = Size(large=1000)
SMALL = Size(services=20, tasks=200, nodes=10, networks=4, large=40)
# Milliseconds of CPU.
FIRST_TARGET, CHANGE_TARGET = 2000.0, 15.0
_AGENT, _HUB = "agent", "hub"


def collect(rounds: list[dict[str, float]], what: str) -> Iterator[Figure]:
    """One figure for each step, and the sums."""
    for step in rounds[0]:
        times = tuple(one[step] for one in rounds)
        yield Figure("step", "ms of CPU", times, {"what": what, "step": step})
    for who in (_HUB, _AGENT, ""):
        sums = tuple(sum(t for s, t in one.items() if s.startswith(who)) for one in rounds)
        target = None
        if who == _AGENT and what == "one changed task":
            target = CHANGE_TARGET
        if not who and what == "first sync":
            target = FIRST_TARGET
        params: dict[str, str | int] = {"what": what, "where": who or "hub and agent"}
        yield Figure("in all", "ms of CPU", sums, params, at_most=target)


def stages(docker: Path, size: Size, rounds: int) -> Iterator[Figure]:
    """First sync, one changed task, one large service resized."""
    with bench_node(vtep(0)) as node:
        whole = Stages(docker, size, node)
        yield from collect([whole.first() for _ in range(rounds)], "first sync")
        yield Figure("whole state on the wire", "bytes", (whole.frame_bytes,))
        small: list[Callable[[], None]] = [
            one_task(docker, size, size.large + number) for number in range(rounds)
        ]
        yield from collect([whole.changed(tell) for tell in small], "one changed task")
        yield Figure("one changed task on the wire", "bytes", (whole.frame_bytes,))
        by = max(1, size.large // 10)
        both = [resized(docker, size, by, up=number % 2 == 0) for number in range(2 * rounds)]
        what = f"a service of {size.large} backends resized by {by}"
        yield from collect([whole.changed(tell) for tell in both], what)


PLOTS = (
    Plot("first", "First sync", "step", x="step", where={"what": "first sync"}),
    Plot("change", "One changed task", "step", x="step", where={"what": "one changed task"}),
)


def main() -> None:
    """Run the bench."""
    options = parser(__doc__)
    given = options.parse_args()
    machine = began(given.note)
    size = SMALL if given.quick else LARGE
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="ebpfmesh-bench-") as home:
        docker = Path(home) / "docker.sock"
        with dockerd(docker, size):
            parts = (
                stages(docker, size, given.rounds),
                fan_out(docker, Path(home), size, given.rounds),
            )
            for part in parts:
                for figure in part:
                    say(figure)
                    figures.append(figure)
                save("scale", machine, figures, PLOTS, given.out)


if __name__ == "__main__":
    main()
