from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ebpfmesh.changes import Change
from tests.unit.fake_agent import FakeAgent, a_place, an_agent, invoke

EVIL = "e\x1b[2Jvil\x07\u202e[red]x[/red]"
CHANGES = [
    Change("backend.state", {"service": "web", "state": "draining"}, 1.7e9 + 2, "links", 0.0123),
    Change("hub.following", {"hub": "192.0.2.11:7380"}, 1.7e9 + 1),
    Change("service.added", {"service": "db"}, 1.7e9),
]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from a_place(monkeypatch)


@pytest.fixture
def agent(place: Path) -> Iterator[FakeAgent]:
    for agent in an_agent(place):
        agent.answers["/changes"] = msgspec.json.encode(CHANGES)
        yield agent


def test_the_last_one_is_at_the_end(agent: FakeAgent) -> None:
    code, out, _ = invoke("events")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert [line[1] for line in lines[1:]] == ["service.added", "hub.following", "backend.state"]
    assert lines[-1] == [
        "2023-11-14T22:13:22.000Z",
        "backend.state",
        "service=web",
        "state=draining",
        "links",
        "12.3ms",
    ]


def test_of_one_service(agent: FakeAgent) -> None:
    _, out, _ = invoke("events", "--service", "web", "-o", "json")
    told = json.loads(out)
    assert told["version"] == 1
    assert [each["event"] for each in told["events"]] == ["backend.state"]


def test_only_so_many(agent: FakeAgent) -> None:
    _, out, _ = invoke("events", "-n", "2", "-o", "json")
    found = [each["event"] for each in json.loads(out)["events"]]
    assert found == ["hub.following", "backend.state"]


def test_names_cannot_speak_to_the_terminal(agent: FakeAgent) -> None:
    evil = Change("service.added", {"service": EVIL}, 1.7e9, EVIL)
    agent.answers["/changes"] = msgspec.json.encode([evil])
    _, out, _ = invoke("events")
    assert out.count("e[2Jvil[red]x[/red]") == 2
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


def test_no_agent_is_exit_3(place: Path) -> None:
    assert invoke("events")[0] == 3
