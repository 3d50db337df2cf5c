# SPDX-License-Identifier: Apache-2.0
"""How things are printed, for people and for programs."""

from __future__ import annotations

import os
import re
import sys
from typing import IO, Any

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.table import Table

from ebpfmesh.config import ConfigError
from ebpfmesh.status import STATUS_VERSION
from ebpfmesh.wording import clean, count, per_second, percent, size, span

__all__ = [
    "clean",
    "console",
    "count",
    "per_second",
    "percent",
    "seconds",
    "show",
    "show_json",
    "show_list",
    "size",
    "span",
    "style_of",
    "table",
]

_UNLIMITED = 10_000  # columns, where no terminal sets a limit
_MINUTE_S = 60
_HOUR_S = 3600

_COLOURS = {
    "ok": "green",
    "healthy": "green",
    "ready": "green",
    "degraded": "yellow",
    "starting": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "warning": "yellow",
    "down": "red",
    "gone": "red",
    "error": "red",
    "failure": "red",
    "elsewhere": "dim",
    "dnsrr": "dim",
}


def console(file: IO[str] | None = None) -> Console:
    """A console that takes text as it is, and cuts nothing off where there is no terminal."""
    file = file or sys.stdout
    terminal = file.isatty()
    return Console(
        file=file,
        markup=False,
        emoji=False,
        highlight=False,
        force_terminal=terminal,
        no_color=not terminal or "NO_COLOR" in os.environ,
        width=None if terminal else _UNLIMITED,
        soft_wrap=not terminal,
    )


class _Table(Table):
    """Its cells come from the agent: names that others chose are among them."""

    def add_row(self, *cells: RenderableType | None, **more: Any) -> None:
        super().add_row(*(clean(one) if isinstance(one, str) else one for one in cells), **more)


def table(*headings: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table; columns in `numbers` are aligned to the right."""
    made = _Table(box=None, header_style="bold", pad_edge=False, show_edge=False)
    for heading in headings:
        side = "right" if heading in numbers else "left"
        made.add_column(heading, overflow="fold", justify=side)  # type: ignore[arg-type]
    return made


def show(thing: Table | str) -> None:
    """Print for people."""
    console().print(thing)


def show_json(value: object) -> None:
    """Print for programs: one line, which a terminal shows as it is, too."""
    text = msgspec.json.encode(value).decode()
    typer.echo(text if text.isprintable() else "".join(map(_escaped, text)))


def _escaped(char: str) -> str:
    """A character of JSON's strings; all others are printable."""
    if char.isprintable():
        return char
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def show_list(name: str, rows: object) -> None:
    """Print a list for programs: one line, an object that says of which version it is."""
    show_json({"version": STATUS_VERSION, name: rows})


def style_of(state: str) -> str:
    """The colour of a state."""
    return _COLOURS.get(state, "")


def seconds(written: str) -> float:
    """The seconds in ``30s``, ``5m``, ``1h`` or ``30``. Raises ConfigError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", written.strip())
    if found is None:
        raise ConfigError(f"{written!r} is no time; allowed: a number and s, m or h, as in 30s")
    return float(found[1]) * {"": 1, "s": 1, "m": _MINUTE_S, "h": _HOUR_S}[found[2]]
