# SPDX-License-Identifier: Apache-2.0
"""Changes under load, each in a short form; `make test-changes` takes all the time it needs."""

from __future__ import annotations

import pytest

from .judge import BUSY
from .rows import Row, measure, short_rows
from .scene import Scene


@pytest.mark.timeout(300)
@pytest.mark.parametrize("row", short_rows(), ids=lambda row: row.name)
def test_change_under_load(scene: Scene, row: Row) -> None:
    result = measure(scene, row, BUSY)
    print(result.describe())
    assert not result.beyond, result.describe()
    assert result.report.total.ok > 0
