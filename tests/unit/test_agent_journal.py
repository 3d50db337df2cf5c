from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import structlog
from structlog.testing import capture_logs

from ebpfmesh.agent.causes import Causes
from ebpfmesh.agent.journal import KEPT, Journal
from ebpfmesh.cli import logs
from ebpfmesh.model import (
    Attachment,
    Backend,
    BackendKey,
    BackendState,
    Desired,
    EndpointMode,
    MeshState,
    Node,
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


def a_journal(held: Desired | None = None) -> Journal:
    return Journal(held or Desired(), lambda: 1.7e9)


def test_a_change_has_its_cause_and_the_time_it_took() -> None:
    clock = Clock()
    journal, causes = a_journal(holding(BackendState.READY)), Causes(clock)
    causes.because("dockerd: kill of task t1")
    clock.now_s += 0.020
    causes.because("links")
    causes.begin()
    clock.now_s += 0.005
    causes.because("not yet")
    with capture_logs() as lines:
        journal.look_at_maps(holding(BackendState.DRAINING), MESH, causes)
    (line,) = lines
    assert line["event"] == "backend.state"
    assert (line["service"], line["state"], line["was"]) == ("web", "draining", "ready")
    assert (line["cause"], line["took_ms"]) == ("dockerd: kill of task t1, links", 25.0)
    (kept,) = journal.recent
    assert (kept.at, kept.cause) == (1.7e9, line["cause"])


def test_causes_end_with_what_they_caused() -> None:
    causes = Causes(Clock())
    causes.because("first")
    causes.begin()
    causes.end()
    assert (str(causes), causes.took_s) == ("", None)
    causes.because("second")
    causes.begin()
    assert str(causes) == "second"


def test_causes_of_what_has_failed_are_those_of_the_next_try() -> None:
    causes = Causes(Clock())
    causes.because("first")
    causes.begin()
    causes.because("second")
    causes.begin()
    assert str(causes) == "first, second"


def test_causes_of_a_look_are_those_of_what_it_has_shown() -> None:
    clock = Clock()
    looks, maps = Causes(clock), Causes(clock)
    looks.because("links")
    looks.begin()
    clock.now_s += 0.1
    looks.because("not looked at yet")
    maps.because("the Swarm's state 2")
    looks.hand_on(maps)
    looks.end()
    maps.begin()
    assert str(maps) == "links, the Swarm's state 2"
    assert maps.took_s == pytest.approx(0.1)
    looks.begin()
    assert str(looks) == "not looked at yet"


def test_many_causes_are_counted() -> None:
    causes = Causes(Clock())
    for number in range(9):
        causes.because(f"c{number}")
    causes.begin()
    assert str(causes) == "c0, c1, c2, c3 and 5 more"


def test_maps_and_links_are_looked_at_apart() -> None:
    place = Attachment("overlay", "/ns", 7, "veth0", 4096)
    both = msgspec.structs.replace(holding(BackendState.READY), attachments=frozenset({place}))
    journal, causes = a_journal(), Causes(Clock())
    journal.look_at_links(both, MESH, causes)
    assert [change.event for change in journal.recent] == ["programs.attached"]
    journal.look_at_maps(both, MESH, causes)
    assert [change.event for change in journal.recent][:2] == ["backend.added", "service.added"]
    assert len(journal.recent) == 3


def test_what_was_held_before_is_no_change() -> None:
    held = holding(BackendState.READY)
    journal = a_journal(held)
    journal.look_at_maps(holding(BackendState.READY), MESH, Causes())
    assert not journal.recent


def test_a_service_that_has_gone_keeps_its_name_for_that_line() -> None:
    journal = a_journal()
    journal.look_at_maps(holding(BackendState.READY), MESH, Causes())
    journal.look_at_maps(Desired(), MeshState(version=2), Causes())
    removed = next(change for change in journal.recent if change.event == "service.removed")
    assert removed.fields["service"] == "web"


def test_the_last_ones_are_kept_the_newest_first() -> None:
    journal = a_journal()
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
        causes = Causes()
        causes.because(evil)
        causes.begin()
        journal.look_at_maps(holding(BackendState.READY), mesh, causes)
        logging.getLogger("a.library").warning("no such service: %s", evil)
        structlog.get_logger("test").info("short", service="a\u202eb\x9bc")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    assert not {"\x1b", "\x07", "\u202e", "\x9b", "\r"} & set(stream.getvalue())
    if form == "json":
        told = [json.loads(line).get("service") for line in lines]
        assert told == [evil] * 3 + [None, "a\u202eb\x9bc"]


def test_nodes_that_are_heard_no_more_and_again_are_said_once() -> None:
    journal = a_journal()
    node = Node("n2", "two", "192.0.2.12", "192.0.2.12")
    heard = MeshState(nodes={"n2": node})
    silent = MeshState(nodes={"n2": msgspec.structs.replace(node, silent_ns=1)})
    for before, after in ((heard, silent), (silent, silent), (silent, heard)):
        journal.look_at_nodes(before, after)
    told = [(change.event, change.fields["node"]) for change in journal.recent]
    assert told == [("node.reachable", "two"), ("node.unreachable", "two")]
