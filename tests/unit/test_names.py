# SPDX-License-Identifier: Apache-2.0
"""Names that others chose, on a terminal: every string that an agent tells is one of them.

The same for metrics is in test_metrics.py, for the page in test_page.py, for the log in
test_agent_journal.py.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from ebpfmesh.cli import logs
from ebpfmesh.cli.trace import line
from ebpfmesh.model import Frozen
from ebpfmesh.tracing import Kind, Told
from tests.unit.fake_agent import FLOWS, STATUS, FakeAgent, a_place, an_agent, invoke

EVIL = "e\x1b[2J\x9b31mvil\x07\x7f\u202e\u200b\r\n[red]x[/red]\U000e0001"
LEFT = "e[2J31mvil[red]x[/red]"
OBEYED = {"\x1b", "\x9b", "\x07", "\x7f", "\u202e", "\u200b", "\r", "\U000e0001"}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from a_place(monkeypatch)


@pytest.fixture
def agent(place: Path) -> Iterator[FakeAgent]:
    for agent in an_agent(place):
        agent.answers["/status"] = msgspec.json.encode(spoilt(STATUS))
        agent.answers["/flows"] = msgspec.json.encode([spoilt(flow) for flow in FLOWS])
        yield agent


def spoilt(value: Any) -> Any:
    """The same, with something evil behind every string in it."""
    match value:
        case str():
            return value + EVIL
        case Frozen():
            fields = {name: getattr(value, name) for name in value.__struct_fields__}
            return type(value)(**{name: spoilt(each) for name, each in fields.items()})
        case tuple() | list():
            return type(value)(spoilt(each) for each in value)
        case dict():
            return {spoilt(key): spoilt(each) for key, each in value.items()}
    return value


ASKING = ["status", "service ls", "service inspect id-of-echo", "flow ls", "top -n 1 --backends"]


@pytest.mark.parametrize("command", ASKING)
def test_no_name_speaks_to_the_terminal(agent: FakeAgent, command: str) -> None:
    words = command.split() + (["--interval", "0.1"] if command.startswith("top") else [])
    _, out, err = invoke(*words)
    assert not OBEYED & set(out + err)
    assert LEFT in out
    assert all(line.isprintable() for line in out.splitlines())


@pytest.mark.parametrize("command", [*ASKING, "events"])
def test_nor_does_json(agent: FakeAgent, command: str) -> None:
    agent.answers["/changes"] = msgspec.json.encode([{"event": EVIL, "fields": {EVIL: EVIL}}])
    words = command.split() + (["--interval", "0.1"] if command.startswith("top") else [])
    _, out, _ = invoke(*words, "-o", "json")
    assert out.removesuffix("\n").isprintable()
    assert EVIL in str(strings(json.loads(out)))


def strings(value: Any) -> str:
    """All of them, one after the other."""
    match value:
        case str():
            return value
        case list():
            return "".join(map(strings, value))
        case dict():
            return "".join(map(strings, [*value, *value.values()]))
    return ""


@pytest.mark.parametrize("kind", list(Kind))
def test_nor_does_what_is_told_of_packets(kind: Kind) -> None:
    fields: dict[str, Any] = {name: EVIL for name, value in strings_of(Told).items() if value == ""}
    shown = line(Told(1, 1.7e9, kind, **fields)).plain
    assert shown.isprintable()


def strings_of(kind: type[Frozen]) -> dict[str, object]:
    return {field.name: field.default for field in msgspec.structs.fields(kind)}


def test_nor_does_what_went_wrong(agent: FakeAgent) -> None:
    for words in (["service", "inspect", EVIL], ["flow", "ls", "--service", EVIL]):
        code, _, err = invoke(*words)
        assert code == 1
        assert not OBEYED & set(err)


def test_nor_does_a_traceback_in_the_log() -> None:
    root, stream = logging.getLogger(), io.StringIO()
    before, level = list(root.handlers), root.level
    try:
        logs.configure("info", "console")
        root.handlers[0].setStream(stream)  # type: ignore[attr-defined]
        try:
            secret = EVIL + "2026-01-01 [info] forged"
            raise ValueError(secret)
        except ValueError:
            structlog.get_logger("test").exception("it.failed", names=[EVIL], by={"x": EVIL})
            logging.getLogger("a.library").exception("so did %s", EVIL)
    finally:
        root.handlers[:], root.level = before, level
        structlog.reset_defaults()
    text = stream.getvalue()
    assert not OBEYED & set(text)
    assert "ValueError" in text
    assert "locals" not in text
    assert not [line for line in text.splitlines() if line.startswith(("[red]", "2026-01-01"))]
