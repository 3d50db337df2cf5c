# SPDX-License-Identifier: Apache-2.0
"""What changes have cost, as a table in Markdown. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Sequence

from .rows import Result, Row

HEAD = ("change under load", "allowed", "times", "requests", "failed", "of them allowed", "slowest")


def markdown(results: Sequence[tuple[Row, Sequence[Result]]]) -> str:
    """One row for each change, however often it was made."""
    rows = [HEAD, tuple("---" for _ in HEAD), *(_row(row, found) for row, found in results)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _row(row: Row, found: Sequence[Result]) -> tuple[str, ...]:
    totals = [result.report.total for result in found]
    failed = sum(total.failed for total in totals)
    beyond = sum(len(result.beyond) for result in found)
    return (
        row.name,
        row.allowed,
        str(len(found)),
        str(sum(total.ok + total.failed for total in totals)),
        str(failed),
        str(failed - beyond),
        f"{max(total.slowest_s for total in totals):.2f} s",
    )
