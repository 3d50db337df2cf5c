# SPDX-License-Identifier: Apache-2.0
"""A test is marked by the directory it lies in: tests/bpf is ``bpf``, tests/lab is ``lab``.

Of each failure the cause is said once more at the end, whole: what shows a part of a long output
shows that.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_MARKED = frozenset({"bpf", "lab"})
_LONGEST_CAUSE = 1500


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        stage = item.path.relative_to(_TESTS).parts[0]
        if stage in _MARKED:
            item.add_marker(stage)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("failed", "error"):
        for report in terminalreporter.getreports(outcome):
            terminalreporter.write_line(f"{report.nodeid} failed:\n{_cause(report)}")


def _cause(report: pytest.TestReport) -> str:
    """What its last line would say, if that were not cut."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr)[:_LONGEST_CAUSE]
