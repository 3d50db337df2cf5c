# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ebpfmesh.agent.truth import LocalTruth
from ebpfmesh.model import BackendState
from ebpfmesh.swarm.events import Event, Kind
from ebpfmesh.swarm.local import TASK_ID

TASK = "task1"


def event(action: str, detail: str = "", **attributes: str) -> Event:
    return Event(
        kind=Kind.CONTAINER,
        action=action,
        id="c1",
        detail=detail,
        attributes={TASK_ID: TASK, **attributes},
    )


@pytest.mark.parametrize(
    ("told", "state"),
    [
        (event("kill", signal="15"), BackendState.STOPPING),
        (event("health_status", "unhealthy"), BackendState.DRAINING),
        (event("die"), BackendState.GONE),
    ],
)
def test_bad_news_counts_at_once(told: Event, state: BackendState) -> None:
    truth = LocalTruth()
    assert truth.notice(told)
    assert truth.states == {TASK: state}


def test_worst_news_stands() -> None:
    truth = LocalTruth()
    truth.notice(event("die"))
    assert not truth.notice(event("kill", signal="15"))
    assert truth.states == {TASK: BackendState.GONE}


@pytest.mark.parametrize("well", [event("start"), event("health_status", "healthy")])
def test_good_news_revives(well: Event) -> None:
    truth = LocalTruth()
    truth.notice(event("health_status", "unhealthy"))
    assert truth.notice(well)
    assert truth.states == {}


@pytest.mark.parametrize(
    "told",
    [
        event("kill", signal="1"),
        event("health_status", "starting"),
        Event(kind=Kind.CONTAINER, action="die", id="no task's"),
        Event(kind=Kind.SERVICE, action="update", id="s1"),
    ],
)
def test_no_news(told: Event) -> None:
    truth = LocalTruth()
    assert not truth.notice(told)
    assert truth.states == {}


def test_a_process_that_has_ended_is_news_once() -> None:
    truth = LocalTruth()
    truth.notice(event("kill", signal="15"))
    assert truth.died(TASK)
    assert truth.states == {TASK: BackendState.GONE}
    assert not truth.died(TASK)
    assert not truth.notice(event("die"))


def test_what_nobody_lists_is_forgotten() -> None:
    truth = LocalTruth()
    truth.notice(event("die"))
    truth.forget({TASK})
    assert truth.states
    truth.forget(set())
    assert not truth.states
