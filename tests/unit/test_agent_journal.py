from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog
from structlog.testing import capture_logs

from ebpfmesh.agent.journal import KEPT, Journal
from ebpfmesh.cli import logs
from ebpfmesh.model import (
    Backend,
    BackendKey,
    BackendState,
    Desired,
    EndpointMode,
    MeshState,
    Pool,
    PoolKey,
    Service,
)

POOL = PoolKey("s1", 4096)
KEY = BackendKey("t1", 4096)
MESH = MeshState(version=1, services={"s1": Service("s1", "web", EndpointMode.VIP)})


def holding(state: BackendState) -> Desired:
    backend = Backend(KEY, POOL, "10.0.0.5", "02:42::", "192.0.2.11", state)
    return Desired(pools={POOL: Pool(POOL)}, backends={KEY: backend})


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def a_journal(clock: Clock, held: Desired | None = None) -> Journal:
    return Journal(held or Desired(), lambda: 1.7e9, clock)


def test_a_change_has_its_cause_and_the_time_it_took() -> None:
    clock = Clock()
    journal = a_journal(clock, holding(BackendState.READY))
    journal.because("dockerd: kill of task t1")
    clock.now_s += 0.020
    journal.because("links")
    journal.begin()
    clock.now_s += 0.005
    journal.because("not yet")
    with capture_logs() as lines:
        journal.look(holding(BackendState.DRAINING), MESH)
    (line,) = lines
    assert line["event"] == "backend.state"
    assert (line["service"], line["state"], line["was"]) == ("web", "draining", "ready")
    assert (line["cause"], line["took_ms"]) == ("dockerd: kill of task t1, links", 25.0)
    (kept,) = journal.recent
    assert (kept.at, kept.cause) == (1.7e9, line["cause"])


def test_causes_end_with_what_they_caused() -> None:
    journal = a_journal(Clock())
    journal.because("first")
    journal.begin()
    journal.end()
    journal.because("second")
    journal.begin()
    journal.look(holding(BackendState.READY), MESH)
    assert {change.cause for change in journal.recent} == {"second"}


def test_causes_of_what_has_failed_are_those_of_the_next_try() -> None:
    journal = a_journal(Clock())
    journal.because("first")
    journal.begin()
    journal.because("second")
    journal.begin()
    journal.look(holding(BackendState.READY), MESH)
    assert {change.cause for change in journal.recent} == {"first, second"}


def test_many_causes_are_counted() -> None:
    journal = a_journal(Clock())
    for number in range(9):
        journal.because(f"c{number}")
    journal.begin()
    journal.look(holding(BackendState.READY), MESH)
    assert journal.recent[0].cause == "c0, c1, c2, c3 and 5 more"


def test_what_was_held_before_is_no_change() -> None:
    held = holding(BackendState.READY)
    journal = a_journal(Clock(), held)
    journal.look(holding(BackendState.READY), MESH)
    assert not journal.recent


def test_a_service_that_has_gone_keeps_its_name_for_that_line() -> None:
    journal = a_journal(Clock())
    journal.look(holding(BackendState.READY), MESH)
    journal.look(Desired(), MeshState(version=2))
    removed = next(change for change in journal.recent if change.event == "service.removed")
    assert removed.fields["service"] == "web"


def test_the_last_ones_are_kept_the_newest_first() -> None:
    journal = a_journal(Clock())
    for number in range(KEPT + 5):
        journal.hub("following", f"hub{number}")
    assert len(journal.recent) == KEPT
    assert journal.recent[0].fields == {"hub": f"hub{KEPT + 4}"}


# --- names from Docker in the log


@contextmanager
def logging_to(stream: io.StringIO, form: str) -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        logs.configure("info", form)
        root.handlers[0].setStream(stream)  # type: ignore[attr-defined]
        yield
    finally:
        root.handlers[:], root.level = before, level
        structlog.reset_defaults()


@pytest.mark.parametrize("form", ["console", "json"])
def test_names_can_neither_speak_to_the_terminal_nor_forge_a_line(form: str) -> None:
    evil = "e\x1b[2Jvil\x07\u202e\r\n2026-01-01 [info] forged"
    mesh = MeshState(version=1, services={"s1": Service("s1", evil, EndpointMode.VIP)})
    stream = io.StringIO()
    with logging_to(stream, form):
        structlog.get_logger("test").info("service.added", service=evil)
        journal = Journal(Desired())
        journal.because(evil)
        journal.begin()
        journal.look(holding(BackendState.READY), mesh)
        logging.getLogger("a.library").warning("no such service: %s", evil)
        structlog.get_logger("test").info("short", service="a\u202eb\x9bc")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    assert not {"\x1b", "\x07", "\u202e", "\x9b", "\r"} & set(stream.getvalue())
    if form == "json":
        told = [json.loads(line).get("service") for line in lines]
        assert told == [evil] * 3 + [None, "a\u202eb\x9bc"]
