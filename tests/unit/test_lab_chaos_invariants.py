# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tests.lab.changes.chaos.invariants import TRIES, late, miscounted
from tests.lab.loops import Mode, Moved, Report, Seen

LEFT_S = 50.0
BOUND_S = 1.0


def report(*, moved: int = 0, failed: int = 0, reused: int = 0, opened_s: float = 0.0) -> Report:
    return Report(
        began_s=0,
        lasted_s=100,
        modes={
            "once": Mode(ok=8, opened=8, failed=failed),
            "udp": Mode(ok=9, opened=2, reused=reused),
        },
        failures=[],
        closed=[],
        moved=[Moved(1.0, "udp-kept", "192.0.2.11:8080", 1, "a", "b")] * moved,
        hosts={"a": Seen(17, 10, 0.0, 99.0, opened_s)},
    )


def test_new_flows_end_when_a_task_has_left() -> None:
    assert (
        list(late(report(opened_s=LEFT_S + BOUND_S), {"a": LEFT_S, "never seen": 1.0}, BOUND_S))
        == []
    )
    (found,) = late(report(opened_s=LEFT_S + BOUND_S + 0.5), {"a": LEFT_S}, BOUND_S)
    assert found == "a got a new flow 1.50 s after it had left at 50.00 s"


@pytest.mark.parametrize(
    ("away", "until_s"),
    [
        ([], LEFT_S + BOUND_S),
        ([(40.0, 49.0), (60.0, 70.0)], LEFT_S + BOUND_S),
        ([(40.0, 52.0)], 52.0 + BOUND_S),
        ([(52.5, 54.0), (49.0, 52.0)], 54.0 + BOUND_S),
    ],
)
def test_an_agent_that_is_away_does_not_hear_of_it(
    away: list[tuple[float, float]], until_s: float
) -> None:
    assert not list(late(report(opened_s=until_s), {"a": LEFT_S}, BOUND_S, away))
    assert list(late(report(opened_s=until_s + 0.1), {"a": LEFT_S}, BOUND_S, away))


@pytest.mark.parametrize(
    ("counted", "of", "right"),
    [
        (10, {}, True),
        (9, {}, False),
        (11, {}, False),
        (12, {"moved": 2}, True),
        (13, {"moved": 2}, False),
        (9, {"reused": 1}, True),
        (8, {"reused": 1}, False),
        (10 + TRIES, {"failed": 1}, True),
        (11 + TRIES, {"failed": 1}, False),
    ],
)
def test_every_flow_is_counted(counted: int, of: dict[str, int], right: bool) -> None:
    assert (list(miscounted(report(**of), counted)) == []) is right
