# SPDX-License-Identifier: Apache-2.0
"""The table of changes: how often each is made."""

from __future__ import annotations

from tests.lab.changes.rows import full_rows


def test_updates_are_made_five_times_and_all_else_once() -> None:
    often = {row.name for row in full_rows() if row.times == 5}
    assert often == {"update, one task at once", "update, two tasks at once"}
    assert {row.times for row in full_rows() if row.name not in often} == {1}
