# SPDX-License-Identifier: Apache-2.0
"""How numbers, spans and names that others chose are written for people. Pure, no I/O."""

from __future__ import annotations

_KILO = 1000
_KIBI = 1024
_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86400
_FRACTIONS = 10  # below that a rate has a decimal


def clean(text: str) -> str:
    """A name that somebody chose, without what a terminal would obey."""
    return "".join(char for char in text if char.isprintable())


def count(number: float) -> str:
    """``999``, ``1.2k``, ``34.5M``: three or four significant digits."""
    return _scaled(number, _KILO, ("", "k", "M", "G", "T", "P"))


def size(number: float) -> str:
    """``999B``, ``1.2KiB``, ``34.5MiB``."""
    return _scaled(number, _KIBI, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))


def percent(share: float) -> str:
    """``33.3%`` of a part from 0 to 1; ``-`` of none."""
    return f"{share:.1%}" if share else "-"


def per_second(number: float) -> str:
    """``0``, ``0.3``, ``12``, ``1.2k``."""
    return f"{number:.1f}" if 0 < number < _FRACTIONS else count(number)


def _scaled(number: float, step: int, units: tuple[str, ...]) -> str:
    value = float(number)
    for unit in units[:-1]:
        if value < step:
            return f"{value:.0f}{unit}" if unit == units[0] else f"{value:.1f}{unit}"
        value /= step
    return f"{value:.1f}{units[-1]}"


def span(seconds: float) -> str:
    """``4s``, ``2m 5s``, ``3h 7m``, ``8d 2h``: two units at most."""
    whole = int(seconds)
    if whole < _MINUTE_S:
        return f"{whole}s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S}m {whole % _MINUTE_S}s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S}h {whole % _HOUR_S // _MINUTE_S}m"
    return f"{whole // _DAY_S}d {whole % _DAY_S // _HOUR_S}h"
