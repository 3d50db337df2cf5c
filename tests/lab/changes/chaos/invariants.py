# SPDX-License-Identifier: Apache-2.0
"""What must hold whatever is done; which failures are excused, `judge` says. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...loops import Report

TRIES = 10
"""A request that is slow or fails may begin so many flows: what is sent again, one each."""


def late(
    report: Report,
    left_s: Mapping[str, float],
    bound_s: float,
    away: Sequence[tuple[float, float]] = (),
) -> Iterator[str]:
    """New flows that a task got when it should not have any more.

    `away`: from when until when some agent was not there: its node goes by what it knew until then.
    """
    for host, since_s in left_s.items():
        seen = report.hosts.get(host)
        until_s = _known_everywhere(since_s, bound_s, away)
        if seen is not None and seen.last_opened_s > until_s:
            yield (
                f"{host} got a new flow {seen.last_opened_s - since_s:.2f} s after it had left"
                f" at {since_s - report.began_s:.2f} s"
            )


def _known_everywhere(since_s: float, bound_s: float, away: Sequence[tuple[float, float]]) -> float:
    until_s = since_s + bound_s
    for from_s, back_s in sorted(away):
        if from_s <= until_s and back_s > since_s:
            until_s = max(until_s, back_s + bound_s)
    return until_s


def miscounted(report: Report, counted: int) -> Iterator[str]:
    """What was opened and answered is counted once; datagrams that move are counted again.

    A new socket of datagrams with the port of one before it may be the same flow.
    """
    total = report.total
    least = total.opened - total.reused
    most = total.opened + len(report.moved) + TRIES * (total.failed + total.slow)
    if not least <= counted <= most:
        yield f"{counted} new flows were counted, {least} at least, {most} at most"
