# SPDX-License-Identifier: Apache-2.0
"""Which failures a change may cause: what is in flight at its end, what nobody could know yet."""

from __future__ import annotations

import pytest

from tests.lab.changes.judge import Absence, Bounds, Cut, Death, Isolation, Marks, inexcusable
from tests.lab.loops import End, Failure, Report

BOUNDS = Bounds()
AT_S = 100.0
BEFORE, AFTER = AT_S - 0.01, AT_S + 0.01
LATE = AT_S + BOUNDS.kill_s + 0.01
NODE4, NODE1 = "192.0.2.14:8080", "192.0.2.11:8080"


def failure(
    asked_s: float,
    *,
    took_s: float = 0.02,
    host: str = "dead",
    mode: str = "keep",
    stage: str = "answer",
    target: str = NODE1,
) -> Failure:
    return Failure(asked_s + took_s, mode, target, 1234, host, "reset", stage, took_s)


def judged(*failures: Failure, marks: Marks, closed: tuple[End, ...] = ()) -> list[Failure]:
    return inexcusable(Report(0, 200, {}, list(failures), list(closed), [], {}), marks, BOUNDS)


def test_nothing_is_excused_without_a_reason() -> None:
    found = [failure(BEFORE), failure(AFTER, stage="connect")]
    assert judged(*found, marks=Marks(left={"dead"})) == found


KILLED = Marks(killed={"dead": Death(AT_S, AT_S)})


@pytest.mark.parametrize(
    "excused",
    [
        failure(BEFORE),
        failure(AFTER),
        failure(AFTER, host="other", stage="connect"),
        failure(AFTER, host="other", mode="once"),
        failure(AFTER, host="other", mode="udp", took_s=5.0),
        failure(LATE, mode="hold"),
    ],
)
def test_what_was_in_flight_at_a_killed_task(excused: Failure) -> None:
    assert judged(excused, marks=KILLED) == []


@pytest.mark.parametrize(
    "told",
    [
        failure(LATE),
        failure(LATE, mode="hold", host="other"),
        failure(LATE, stage="connect"),
        failure(BEFORE, took_s=0.001),  # over before it was killed
        failure(AFTER, host="other"),  # on a connection to somebody else
    ],
)
def test_what_killing_a_task_does_not_excuse(told: Failure) -> None:
    assert judged(told, marks=KILLED) == [told]


CUT = Marks(cut={"dead": Cut(AT_S, AT_S + 10)}, isolated=[Isolation("192.0.2.14", AT_S, AT_S + 10)])


def test_a_cut_off_node_is_not_asked_for_longer_than_the_bound() -> None:
    late = failure(AT_S + BOUNDS.cut_s + 0.1)
    by_its_own_port = failure(AT_S + BOUNDS.cut_s + 0.1, target=NODE4)
    before = failure(AT_S - 1)
    back = failure(AT_S + 11, target=NODE4)
    found = judged(before, failure(AT_S + 1), late, by_its_own_port, back, marks=CUT)
    assert found == [before, late, back]


@pytest.mark.parametrize(
    ("asked_s", "host", "excused"),
    [(9.9, "dead", True), (10.1, "dead", False), (9.9, "other", False)],
)
def test_a_held_connection_to_a_task_that_is_cut_off(
    asked_s: float, host: str, excused: bool
) -> None:
    asked = failure(AT_S + asked_s, host=host, mode="hold")
    assert (judged(asked, marks=CUT) == []) is excused


def test_who_stays_closes_no_held_connection() -> None:
    ends = (End(AT_S, "hold", NODE1, 1, "stays"), End(AT_S, "hold", NODE1, 2, "left"))
    found = judged(marks=Marks(left={"left"}), closed=ends)
    assert [(f.host, f.kind, f.port) for f in found] == [("stays", "closed", 1)]


def test_marks_add_up() -> None:
    marks = Marks(left={"one"})
    marks.add(Marks(killed={"two": Death(1.0, 2.0)}))
    marks.add(CUT)
    marks.add(Marks(cut={"three": Cut(2.0, 3.0)}))
    assert marks.gone == {"one", "two", "three", "dead"}
    assert marks.isolated == CUT.isolated


def test_a_process_that_ends_slowly_has_requests_until_then() -> None:
    slowly = Marks(killed={"dead": Death(AT_S, AT_S + 1)})
    assert judged(failure(AT_S + 1), marks=slowly) == []
    late = failure(AT_S + 1 + BOUNDS.kill_s + 0.01)
    assert judged(late, marks=slowly) == [late]


AWAY = Marks(absent=[Absence(frozenset({"192.0.2.11"}), frozenset({"dead"}), AT_S, AT_S + 4)])
BACK = AT_S + 4 + BOUNDS.left_s


@pytest.mark.parametrize(
    "excused",
    [
        failure(AT_S + 1, mode="udp-kept", took_s=5.0),
        failure(AT_S + 1, mode="udp", host="other", took_s=5.0),
        failure(BACK - 0.1, mode="udp-kept", took_s=5.0),
    ],
)
def test_datagrams_to_a_task_that_left_unseen_are_lost(excused: Failure) -> None:
    assert judged(excused, marks=AWAY) == []


@pytest.mark.parametrize(
    "told",
    [
        failure(AT_S + 1, mode="udp-kept", host="other", took_s=5.0),  # who is there still
        failure(AT_S + 1, mode="udp-kept", target=NODE4, took_s=5.0),  # by a node with an agent
        failure(BACK + 0.1, mode="udp-kept", took_s=5.0),
        failure(AT_S - 6, mode="udp-kept", took_s=5.0),
        failure(AT_S + 1, mode="keep"),
        failure(AT_S + 1, mode="once", stage="connect"),
    ],
)
def test_what_a_node_without_an_agent_does_not_excuse(told: Failure) -> None:
    assert judged(told, marks=AWAY) == [told]


def test_fresh_datagrams_are_lost_only_if_somebody_has_left() -> None:
    nobody = Marks(absent=[Absence(frozenset({"192.0.2.11"}), frozenset(), AT_S, AT_S + 4)])
    told = failure(AT_S + 1, mode="udp", took_s=5.0)
    assert judged(told, marks=nobody) == [told]
