# SPDX-License-Identifier: Apache-2.0
"""A test is marked by the directory it lies in: tests/bpf is ``bpf``, tests/lab is ``lab``."""

from __future__ import annotations

from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_MARKED = frozenset({"bpf", "lab"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        stage = item.path.relative_to(_TESTS).parts[0]
        if stage in _MARKED:
            item.add_marker(stage)
