# SPDX-License-Identifier: Apache-2.0
"""Where results go: JSON for programs, Markdown and SVG for people."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.machine import ROOT, this_machine
from bench.plot import Plot, draw
from bench.result import Figure, Machine, Result, to_json, to_markdown

RESULTS = ROOT / "bench" / "results"


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every bench has."""
    options = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=5, help="how often each side is measured")
    options.add_argument("--quick", action="store_true", help="tiny: to see that the bench works")
    options.add_argument("--out", type=Path, default=RESULTS, help="directory of the results")
    options.add_argument("--note", action="append", default=[], help="what else ran; may repeat")
    return options


def say(figure: Figure) -> None:
    """One line for a figure as soon as it is there."""
    params = " ".join(f"{key}={value}" for key, value in figure.params.items())
    spread = f"({figure.least:.4g} to {figure.most:.4g})"
    print(f"{figure.name} {params}: {figure.median:.4g} {figure.unit} {spread}", flush=True)


def began(notes: Sequence[str]) -> Machine:
    """Call this before anything is measured: the load average is that of then."""
    return this_machine(notes)


def save(
    bench: str, machine: Machine, figures: Sequence[Figure], plots: Sequence[Plot], to: Path
) -> None:
    """Write ``<bench>.json``, ``.md`` and one SVG per plot."""
    to.mkdir(parents=True, exist_ok=True)
    result = Result(bench, machine, tuple(figures))
    (to / f"{bench}.json").write_bytes(to_json(result))
    (to / f"{bench}.md").write_text(to_markdown(result))
    for plot in plots:
        draw(plot, result, to / f"{bench}-{plot.slug}.svg")
    print(f"results: {to / bench}.md", file=sys.stderr)
