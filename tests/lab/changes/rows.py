# SPDX-License-Identifier: Apache-2.0
"""The table of changes under load: what each one is, and what it may cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from ..loops import Failure, Report, describe
from . import acts
from .acts import Act
from .judge import Bounds, Marks, inexcusable
from .scene import CHECKED, MODES, SERVICE, Scene

BEFORE_S = AFTER_S = 1.0
"""For how long requests run before a change begins and after it is over."""


class Row(NamedTuple):
    """A change; `inside` names the nodes where containers ask the VIP meanwhile.

    `times` is how often it is made, for each of the TIMES that `make test-changes` is told.
    """

    name: str
    allowed: str
    act: Act
    inside: Sequence[str] = ("node2", "node4")
    services: Sequence[str] = (SERVICE,)
    modes: Sequence[str] = MODES
    held: int = 0
    times: int = 1


class Result(NamedTuple):
    """What became of the requests during a change."""

    row: Row
    report: Report
    marks: Marks
    beyond: list[Failure]
    timeline: list[tuple[float, str]]

    def describe(self) -> str:
        """For people: what was done when, and what failed."""
        since_s = self.report.began_s
        lines = [f"{at_s - since_s:7.2f} s  {what}" for at_s, what in self.timeline]
        total = self.report.total
        counts = f"{total.ok} answered, {total.failed} not, slowest {total.slowest_s:.2f} s"
        return "\n".join([f"{self.row.name}: {counts}", *lines, describe(self.beyond, since_s)])


def measure(scene: Scene, row: Row, bounds: Bounds) -> Result:
    scene.timeline.clear()
    with scene.load(
        row.inside,
        services=row.services,
        modes=row.modes,
        held=row.held,
        timeout_s=bounds.answer_s,
    ) as load:
        time.sleep(BEFORE_S)
        marks = row.act(scene)
        scene.note("over")
        time.sleep(AFTER_S)
        report = load.stop()
    return Result(row, report, marks, inexcusable(report, marks, bounds), list(scene.timeline))


NONE = "none"
NODE_NAMES = ("node1", "node2", "node3", "node4")
LEADER = Row(
    "leader's dockerd and agent killed",
    NONE,
    acts.kill_leader,
    inside=("node4",),
)
CUT = Row(
    "worker cut off",
    "asked within 3 s, or by its own port",
    acts.cut_off("node4"),
    inside=("node2", "node3"),
)
FLAP = Row(
    "1000 changes of tables, 500 connections held",
    NONE,
    acts.flap(500),
    modes=("once", "udp"),
    held=500,
)
SHORT_FLAP = FLAP._replace(
    name="16 changes of tables, 100 connections held", act=acts.flap(8), held=100
)


def full_rows() -> list[Row]:
    """All of them, as long as they take. Docker's overlay is not always whole again after a cut:
    that is the last.
    """
    return [
        Row("update, one task at once", NONE, acts.roll(1), times=5),
        Row("update, two tasks at once", NONE, acts.roll(2), times=5),
        Row("scale 2, 10, 1, 6", NONE, acts.scale(2, 10, 1, 6)),
        Row("node drained, and active again", NONE, acts.drain()),
        Row("another port published, then not", NONE, acts.publish),
        *(Row(f"agent restarted, {node}", NONE, acts.restart_agent(node)) for node in NODE_NAMES),
        *(Row(f"agent killed, {node}", NONE, acts.kill_agent(node)) for node in NODE_NAMES),
        Row("agent upgraded, each node in turn", NONE, acts.upgrade),
        Row("task killed", "in flight there, or asked within 50 ms", acts.kill_task),
        Row("task unhealthy", NONE, acts.make_unhealthy, services=(CHECKED,)),
        FLAP,
        LEADER,
        CUT,
    ]


def short_rows() -> list[Row]:
    """What is over soon, and leaves the nodes as they were."""
    kept = ("update, two", "node drained", "another port", "agent killed, node1", "task")
    return [
        *(row for row in full_rows() if row.name.startswith(kept)),
        Row("scale 1, 6", NONE, acts.scale(1, 6)),
        SHORT_FLAP,
    ]
