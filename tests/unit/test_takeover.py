# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ebpfmesh.takeover import Mode, RunSettings, given_back, seconds_left, served

S = 10**9
DAY = 86400 * S


def test_fresh_maps_begin_with_a_grace_period() -> None:
    now = served(RunSettings(), DAY, 600, relieved=False)
    assert now == RunSettings(Mode.SERVING, DAY, DAY + 600 * S)
    assert seconds_left(now, DAY + 200 * S) == 400
    assert seconds_left(now, DAY + 601 * S) == 0


def test_restarted_agent_changes_nothing() -> None:
    before = RunSettings(Mode.SERVING, 5 * S, 9 * S)
    assert served(before, DAY, 600, relieved=False) == before


@pytest.mark.parametrize(("grace_s", "relieved"), [(0, False), (600, True)])
def test_no_grace_period(grace_s: float, relieved: bool) -> None:
    now = served(RunSettings(), DAY, grace_s, relieved=relieved)
    assert (now.mode, seconds_left(now, DAY)) == (Mode.SERVING, 0)


def test_after_a_boot_nothing_is_older_than_it() -> None:
    assert seconds_left(served(RunSettings(), 20 * S, 600, relieved=False), 20 * S) == 20


def test_who_serves_again_leaves_to_the_kernel_what_it_was_given() -> None:
    giving = given_back(RunSettings(Mode.SERVING, S, 2 * S), DAY)
    assert giving == RunSettings(Mode.GIVING_BACK, DAY, 0)
    assert seconds_left(giving, DAY) == 0
    again = served(giving, DAY + S, 600, relieved=False)
    assert seconds_left(again, DAY + S) == 600


def test_giving_back_twice_began_once() -> None:
    giving = given_back(RunSettings(), DAY)
    assert given_back(giving, DAY + S) == giving
