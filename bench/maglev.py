# SPDX-License-Identifier: Apache-2.0
"""Lookup tables: how long they take, how even they are, what moves when a backend comes or goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from bench.gone import path
from bench.machine import no_collections
from bench.plot import Plot
from bench.result import Figure, interleaved
from bench.store import began, parser, save, say
from bench.swarm import task_id
from ebpfmesh.agent.reconcile import Build
from ebpfmesh.datapath.filler import Filler
from ebpfmesh.maglev import Table, build_table, equal_table, permutation, shares

BACKENDS = (10, 100, 1000, 10_000)
SIZES = (4093, 16381, 65537, 131071)
# Milliseconds, by backends and slots.
TARGETS = {(1000, 16381): 10.0, (1000, 65537): 40.0}


def names(count: int, first: int = 0) -> list[str]:
    """As many ids of tasks."""
    return [task_id(number) for number in range(first, first + count)]


def build(backends: list[str], size: int) -> Table:
    """A table in which all backends weigh the same."""
    table = build_table(dict.fromkeys(backends, 1), size)
    assert table is not None
    return table


def build_ms(by: Build, count: int, size: int, *, warm: bool) -> float:
    """CPU time of one table; `warm`: a change, the other backends' permutations are known."""
    backends = tuple(sorted(names(count)))
    permutation.cache_clear()
    if warm:
        for name in backends:
            permutation(name, size)
    with no_collections():
        start = time.process_time()
        by(backends, size)
        return (time.process_time() - start) * 1e3


def moved(before: Table, after: Table, old: list[str], new: list[str]) -> float:
    """The part of the slots that changed hands between backends which both tables have."""
    owners, heirs = np.array(sorted(old))[before], np.array(sorted(new))[after]
    kept = np.array(sorted(set(old) & set(new)))
    return float(((owners != heirs) & np.isin(owners, kept) & np.isin(heirs, kept)).mean())


def speed(rounds: int, most: int) -> Iterator[Figure]:
    """Time to build: by the kernel, as an agent does, and by Python alone, in turns."""
    builders: dict[str, Build] = {"kernel": Filler().table, "Python": equal_table}
    for size in SIZES:
        for count in (n for n in BACKENDS if n <= most):
            for kind in ("first", "again"):
                sides = {
                    name: partial(build_ms, by, count, size, warm=kind == "again")
                    for name, by in builders.items()
                }
                for name, found in interleaved(sides, rounds).items():
                    params = {"backends": count, "slots": size, "permutations": kind, "by": name}
                    wanted = name == "kernel" and kind == "again"
                    target = TARGETS.get((count, size)) if wanted else None
                    yield Figure("build", "ms of CPU", found, params, at_most=target)


def evenness(most: int) -> Iterator[Figure]:
    """The largest and the smallest share, over the mean; what moves. They are exact: one round."""
    for size in SIZES:
        for count in (n for n in BACKENDS if n <= min(most, size)):
            params = {"backends": count, "slots": size}
            backends = names(count)
            table = build(backends, size)
            part = shares(table, count) * count
            yield Figure("largest share over the mean", "", (float(part.max()),), dict(params))
            yield Figure("smallest share over the mean", "", (float(part.min()),), dict(params))
            fewer, more = backends[1:], [*backends, *names(1, count)]
            left = moved(table, build(fewer, size), backends, fewer)
            came = moved(table, build(more, size), backends, more)
            yield Figure("slots that move, one backend leaves", "%", (100 * left,), dict(params))
            yield Figure("slots that move, one backend comes", "%", (100 * came,), dict(params))


PLOTS = (
    Plot(
        "build",
        "Time to build a lookup table, known backends",
        "build",
        x="slots",
        lines="backends",
        where={"permutations": "again", "by": "kernel"},
        log=True,
    ),
)


def main() -> None:
    """Run the bench."""
    options = parser(__doc__)
    options.add_argument("--path", action="store_true", help="only from a task gone to its table")
    given = options.parse_args()
    machine = began(given.note)
    most = 100 if given.quick else max(BACKENDS)
    figures: list[Figure] = []
    ways = path(given.rounds, [count for count in BACKENDS if count <= most])
    for part in (ways,) if given.path else (speed(given.rounds, most), evenness(most), ways):
        for figure in part:
            say(figure)
            figures.append(figure)
        if given.path:
            save("maglev-path", machine, figures, (), given.out)
        else:
            save("maglev", machine, figures, PLOTS, given.out)


if __name__ == "__main__":
    main()
