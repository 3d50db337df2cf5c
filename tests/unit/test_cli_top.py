from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ebpfmesh.cli import top
from ebpfmesh.cli.options import Output
from ebpfmesh.rates import BackendRates, Rate, Rates, ServiceRates
from ebpfmesh.status import STATUS_VERSION
from tests.unit.fake_agent import STATUS, FakeAgent, a_place, an_agent, invoke

EVIL = "e\x1b[2Jvil\x07\u202e\x9b[red]x[/red]"
RATES = Rates(
    STATUS_VERSION,
    "node1",
    2.0,
    (
        ServiceRates(
            *("s1", "web", "ingress", "degraded", 1, 2, 30),
            rate=Rate(0.25, 1500.0, 500.0, 2048.0, 1024.0),
            entered=Rate(connections=12.0),
            backends=(
                BackendRates("t1", "10.0.0.5", "node1", True, "ready", 0.75, Rate(0.25)),
                BackendRates("t2", "10.0.0.6", "", False, "draining", 0.0, Rate()),
            ),
        ),
    ),
)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from a_place(monkeypatch)


@pytest.fixture
def agent(place: Path) -> Iterator[FakeAgent]:
    yield from an_agent(place)


def shown(rates: Rates, capsys: pytest.CaptureFixture[str], *, backends: bool) -> list[list[str]]:
    with top._screen(Output.TABLE) as screen:
        screen.show(rates, backends)
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_row_for_each_service(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(RATES, capsys, backends=False)
    assert lines[0] == ["node1,", "over", "2.0s"]
    web = ["web", "ingress", "1/2", "30", "0.2", "2.0k", "2.0KiB", "1.0KiB", "12", "degraded"]
    assert lines[2:] == [web, []]


def test_rows_of_backends(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(RATES, capsys, backends=True)
    assert lines[3][:5] == ["10.0.0.5", "node1", "(here)", "75.0%", "0.2"]
    assert lines[4] == ["10.0.0.6", "-", "-", "0", "0", "0B", "0B", "draining"]


def test_names_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    (service,) = RATES.services
    backends = tuple(msgspec.structs.replace(one, node=EVIL) for one in service.backends)
    evil = msgspec.structs.replace(service, name=EVIL, network=EVIL, backends=backends)
    with top._screen(Output.TABLE) as screen:
        screen.show(msgspec.structs.replace(RATES, node=EVIL, services=(evil,)), True)
    out = capsys.readouterr().out
    assert out.count("e[2Jvil[red]x[/red]") == 5
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(out)


def test_as_many_looks_as_asked_for(agent: FakeAgent) -> None:
    code, out, err = invoke("top", "-n", "2", "--interval", "0.1", "-o", "json")
    assert (code, err) == (0, "")
    looks = [msgspec.json.decode(line, type=Rates) for line in out.splitlines()]
    assert len(looks) == 2
    assert {service.name for service in looks[0].services} == {"echo", "named", "web-a", "web-b"}


def test_the_order_is_chosen(agent: FakeAgent) -> None:
    look = ("top", "-n", "1", "--interval", "0.1", "-o", "json", "--sort", "name")
    names = [each["name"] for each in json.loads(invoke(*look)[1])["services"]]
    assert names == sorted(names)
    turned = [each["name"] for each in json.loads(invoke(*look, "-r")[1])["services"]]
    assert turned == names[::-1]


def test_no_agent_is_exit_3(place: Path) -> None:
    code, out, err = invoke("top", "-n", "1")
    assert (code, out) == (3, "")
    assert "ebpfmesh agent" in err


def test_an_agent_that_has_gone_is_waited_for(agent: FakeAgent) -> None:
    told = [msgspec.json.encode(STATUS)]
    agent.answers["/status"] = told[0]
    command = [sys.executable, "-m", "ebpfmesh", "top", "--interval", "0.1", "-o", "json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        del agent.answers["/status"]
        assert "answers 500" in process.stderr.readline()
        agent.answers["/status"] = told[0]
        while not json.loads(process.stdout.readline())["services"]:
            pass
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
        assert process.returncode == 0


def test_a_terminal_is_given_back(agent: FakeAgent) -> None:
    """The whole screen is used, and what was on it comes back."""
    own, other = pty.openpty()
    command = [sys.executable, "-m", "ebpfmesh", "top", "-n", "1", "--interval", "0.1"]
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "150", "LINES": "40"}
    with subprocess.Popen(command, stdout=other, stderr=other, env=env) as process:
        os.close(other)
        seen = b""
        while process.poll() is None or b"\x1b[?1049l" not in seen:
            try:
                seen += os.read(own, 65536)
            except OSError:  # the other end is closed
                break
    os.close(own)
    assert process.returncode == 0
    assert b"\x1b[?1049h" in seen
    assert b"CONN/S" in seen
    assert seen.rstrip().endswith((b"\x1b[?1049l", b"\x1b[?25h"))
