# SPDX-License-Identifier: Apache-2.0
"""What a bench has found: figures, each from several rounds, and where they come from. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import TypeVar

import msgspec

Param = str | int
Side = TypeVar("Side", bound=str)
Found = TypeVar("Found")


class Machine(msgspec.Struct, frozen=True):
    """Where and when a bench ran; `load` is the load average as it began, `notes` what ran beside.

    `commit` ends in ``+`` if the checkout had changes of its own.
    """

    kernel: str
    cpu: str
    cpus: int
    commit: str
    command: str
    date: str
    load: float = 0.0
    notes: tuple[str, ...] = ()


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """One quantity, measured `rounds` times, in `unit`; `params` tell of what.

    `at_most` and `at_least` are the target, if it has one.
    """

    name: str
    unit: str
    rounds: tuple[float, ...]
    params: dict[str, Param] = {}
    at_most: float | None = None
    at_least: float | None = None

    @property
    def median(self) -> float:
        """The figure."""
        return median(self.rounds)

    @property
    def least(self) -> float:
        """The lowest round."""
        return min(self.rounds)

    @property
    def most(self) -> float:
        """The highest round."""
        return max(self.rounds)

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None without one."""
        if self.at_most is not None:
            return self.median <= self.at_most
        if self.at_least is not None:
            return self.median >= self.at_least
        return None


class Result(msgspec.Struct, frozen=True):
    """All that one run of a bench has found."""

    bench: str
    machine: Machine
    figures: tuple[Figure, ...]

    def select(self, name: str, **params: Param) -> list[Figure]:
        """The figures of that name that have these parameters."""
        wanted = params.items()
        return [f for f in self.figures if f.name == name and wanted <= f.params.items()]


def interleaved(
    sides: Mapping[Side, Callable[[], Found]], rounds: int
) -> dict[Side, tuple[Found, ...]]:
    """Measure A B A B ..., so that what the machine does meanwhile falls on every side alike.

    Every second round goes the other way round: no side always follows the same one.
    """
    found: dict[Side, list[Found]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(sides[name]())
    return {name: tuple(values) for name, values in found.items()}


def differences(rounds: Sequence[float], floors: Sequence[float]) -> tuple[float, ...]:
    """What each round took above the floor of the same round."""
    return tuple(a - b for a, b in zip(rounds, floors, strict=True))


def ratios(rounds: Sequence[float], bases: Sequence[float]) -> tuple[float, ...]:
    """Each round over the base of the same round."""
    return tuple(a / b for a, b in zip(rounds, bases, strict=True))


def to_json(result: Result) -> bytes:
    """The result, for programs; `from_json` reads it back. Medians are there for people."""
    raw = msgspec.to_builtins(result)
    for figure, values in zip(result.figures, raw["figures"], strict=True):
        values["median"] = figure.median
    return msgspec.json.format(msgspec.json.encode(raw), indent=1) + b"\n"


def from_json(text: bytes) -> Result:
    """The reverse of `to_json`."""
    return msgspec.json.decode(text, type=Result)


def to_markdown(result: Result) -> str:
    """The result, for people: where it comes from, and a table for each kind of figure."""
    machine = result.machine
    head = [
        f"# bench-{result.bench}",
        "",
        f"- kernel {machine.kernel}, {machine.cpus} x {machine.cpu}",
        f"- commit {machine.commit}, {machine.date}, load average {machine.load:.1f} at the start",
        f"- `{machine.command}`",
        *(f"- {note}" for note in machine.notes),
    ]
    kinds = dict.fromkeys((f.name, tuple(f.params)) for f in result.figures)
    tables = (
        _table(name, [f for f in result.figures if (f.name, tuple(f.params)) == (name, params)])
        for name, params in kinds
    )
    return "\n".join([*head, *(line for table in tables for line in ("", *table))]) + "\n"


def _table(name: str, figures: Sequence[Figure]) -> Iterable[str]:
    """One table; a column for the target only where there is one."""
    params = list(figures[0].params)
    targets = any(f.met is not None for f in figures)
    heads = [*params, f"median, {figures[0].unit}", "least to most", "rounds"]
    heads += ["target", ""] if targets else []
    yield f"## {name}"
    yield ""
    yield _row(heads)
    yield _row(["---"] * len(params) + ["---:"] * (len(heads) - len(params)))
    for figure in figures:
        cells = [str(figure.params[param]) for param in params]
        spread = f"{number(figure.least)} to {number(figure.most)}"
        cells += [number(figure.median), spread, str(len(figure.rounds))]
        yield _row(cells + (_verdict(figure) if targets else []))


def _verdict(figure: Figure) -> list[str]:
    if figure.met is None:
        return ["", ""]
    bound = figure.at_most if figure.at_most is not None else figure.at_least
    assert bound is not None
    sign = "<=" if figure.at_most is not None else ">="
    return [f"{sign} {number(bound)}", "met" if figure.met else "**missed**"]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def number(value: float) -> str:
    """Three significant digits, without an exponent; whole numbers in full."""
    if value == int(value) or abs(value) >= 1000:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.3g}"
