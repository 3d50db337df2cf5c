# SPDX-License-Identifier: Apache-2.0
"""How an agent is started."""

from __future__ import annotations

import os
import sys

import pytest
from structlog.testing import capture_logs

from ebpfmesh.cli import hurry
from ebpfmesh.cli.run import _take_place
from ebpfmesh.config import Config


def test_an_agent_is_preferred_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "setpriority", lambda *args: asked.append(args))
    monkeypatch.setattr(sys, "setswitchinterval", lambda _: None)
    with capture_logs() as said:
        _take_place(-7)
    assert (asked, said) == ([(os.PRIO_PROCESS, 0, -7)], [])


def test_an_agent_that_may_not_be_preferred_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", refuse)
    monkeypatch.setattr(sys, "setswitchinterval", lambda _: None)
    with capture_logs() as said:
        _take_place(-7)
    assert [(line["event"], line["niceness"]) for line in said] == [("agent.not_preferred", -7)]


def test_an_agent_is_preferred_before_it_knows_what_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "setpriority", lambda *args: asked.append(args))
    hurry(["status"])
    hurry([])
    assert asked == []
    hurry(["agent", "--device", "eth7"])
    assert asked == [(os.PRIO_PROCESS, 0, Config().niceness)]


def test_an_agent_that_may_not_hurry_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", refuse)
    hurry(["agent"])
