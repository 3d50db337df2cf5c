# SPDX-License-Identifier: Apache-2.0
"""Plots of results, as SVG."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any

from bench.result import Figure, Param, Result

_NARROW = 14  # characters of a name, where several share the width


@dataclass(frozen=True)
class Plot:
    """Which figures to draw: those named `figure` that have `where`, `x` across.

    One line for each value of `lines`, or with `bars` one bar of each group. Without `lines`, bars.
    """

    slug: str
    title: str
    figure: str
    x: str
    lines: str = ""
    where: dict[str, Param] = field(default_factory=dict)
    log: bool = False
    bars: bool = False


Series = dict[str, list[Figure]]


def series(plot: Plot, result: Result) -> Series:
    """The figures of each line, in order of `x`. Pure."""
    found: Series = {}
    for figure in result.select(plot.figure, **plot.where):
        name = str(figure.params.get(plot.lines, "")) if plot.lines else ""
        found.setdefault(name, []).append(figure)
    if plot.lines and not plot.bars:
        for figures in found.values():
            figures.sort(key=lambda f: _order(f.params[plot.x]))
    return found


def _order(value: Param) -> tuple[int, str]:
    return (value, "") if isinstance(value, int) else (0, value)


def draw(plot: Plot, result: Result, to: Path) -> None:
    """Write the plot; the same result gives the same file."""
    import matplotlib as mpl  # noqa: PLC0415 - only benches need it

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    settings = {"svg.hashsalt": "ebpfmesh", "svg.fonttype": "none", "font.size": 9}
    with mpl.rc_context(settings):
        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        drawn = _groups if plot.lines and plot.bars else _lines if plot.lines else _bars
        unit = drawn(axes, plot, series(plot, result))
        axes.set_title(plot.title)
        axes.set_xlabel(plot.x)
        axes.set_ylabel(unit)
        axes.grid(visible=True, alpha=0.3)
        figure.savefig(to, metadata={"Date": None})
        plt.close(figure)


def _spread(figures: list[Figure]) -> list[list[float]]:
    return [[f.median - f.least for f in figures], [f.most - f.median for f in figures]]


def _lines(axes: Any, plot: Plot, found: Series) -> str:
    unit = ""
    for name, figures in found.items():
        across = [str(f.params[plot.x]) for f in figures]
        heights = [f.median for f in figures]
        axes.errorbar(across, heights, _spread(figures), label=name, marker="o", capsize=3)
        unit = figures[0].unit
    if plot.log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.legend(title=plot.lines, fontsize=8)
    return unit


def _groups(axes: Any, plot: Plot, found: Series) -> str:
    across = list(dict.fromkeys(str(f.params[plot.x]) for fs in found.values() for f in fs))
    width = 0.8 / len(found)
    unit = ""
    for number, (name, figures) in enumerate(found.items()):
        at = [across.index(str(f.params[plot.x])) + number * width for f in figures]
        heights = [f.median for f in figures]
        axes.bar(at, heights, width, yerr=_spread(figures), label=name, capsize=2)
        unit = figures[0].unit
    middles = [n + (len(found) - 1) * width / 2 for n in range(len(across))]
    axes.set_xticks(middles, [fill(each, _NARROW) for each in across])
    if plot.log:
        axes.set_yscale("log")
    axes.legend(title=plot.lines, fontsize=8)
    return unit


def _bars(axes: Any, plot: Plot, found: Series) -> str:
    (figures,) = found.values()
    across = [str(f.params[plot.x]) for f in figures]
    axes.bar(across, [f.median for f in figures], yerr=_spread(figures), capsize=3)
    for tick in axes.get_xticklabels():
        tick.set(rotation=30, ha="right")
    return figures[0].unit
