# SPDX-License-Identifier: Apache-2.0
"""Lookup tables: how long they take, how even they are, what moves when a backend comes or goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from bench.machine import no_collections
from bench.node import bench_node
from bench.plot import Plot
from bench.result import Figure, Param
from bench.store import began, parser, save, say
from bench.swarm import Size, local_view, mesh, task_id, vtep, without
from ebpfmesh.desired import desired_state
from ebpfmesh.maglev import Table, build_table, permutation, shares

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


def build_ms(count: int, size: int, *, warm: bool) -> float:
    """CPU time of one table; `warm`: a change, the other backends' permutations are known."""
    backends = names(count)
    permutation.cache_clear()
    if warm:
        for name in backends:
            permutation(name, size)
    with no_collections():
        start = time.process_time()
        build(backends, size)
        return (time.process_time() - start) * 1e3


def moved(before: Table, after: Table, old: list[str], new: list[str]) -> float:
    """The part of the slots that changed hands between backends which both tables have."""
    owners, heirs = np.array(sorted(old))[before], np.array(sorted(new))[after]
    kept = np.array(sorted(set(old) & set(new)))
    return float(((owners != heirs) & np.isin(owners, kept) & np.isin(heirs, kept)).mean())


def speed(rounds: int, most: int) -> Iterator[Figure]:
    """Time to build."""
    for size in SIZES:
        for count in (n for n in BACKENDS if n <= most):
            for kind in ("first", "again"):
                rounds_ms = tuple(
                    build_ms(count, size, warm=kind == "again") for _ in range(rounds)
                )
                params = {"backends": count, "slots": size, "permutations": kind}
                target = TARGETS.get((count, size)) if kind == "again" else None
                yield Figure("build", "ms of CPU", rounds_ms, params, at_most=target)


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


def path(rounds: int, most: int) -> Iterator[Figure]:
    """From a state in which a task is gone to its table swapped in the kernel's map."""
    with bench_node(vtep(0)) as node:
        for count in (n for n in BACKENDS if n <= most):
            size = Size(services=1, tasks=count, nodes=10, networks=1, publishing=0)
            state = mesh(size)
            local = local_view(state, size)
            sync = partial(node.reconciler.sync, whole=True)
            sync(desired_state(state, local))
            took: list[float] = []
            for number in range(rounds):
                state = without(state, task_id(number))
                with no_collections():
                    start = time.perf_counter()
                    sync(desired_state(state, local))
                    took.append((time.perf_counter() - start) * 1e3)
            params: dict[str, Param] = {
                "backends": count,
                "slots": node.reconciler.maps.maglev_size,
            }
            yield Figure("task gone to table swapped", "ms", tuple(took), params)


PLOTS = (
    Plot(
        "build",
        "Time to build a lookup table, known backends",
        "build",
        x="slots",
        lines="backends",
        where={"permutations": "again"},
        log=True,
    ),
)


def main() -> None:
    """Run the bench."""
    options = parser(__doc__)
    given = options.parse_args()
    machine = began(given.note)
    most = 100 if given.quick else max(BACKENDS)
    figures: list[Figure] = []
    for part in (speed(given.rounds, most), evenness(most), path(given.rounds, most)):
        for figure in part:
            say(figure)
            figures.append(figure)
        save("maglev", machine, figures, PLOTS, given.out)


if __name__ == "__main__":
    main()
