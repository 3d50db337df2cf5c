from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ebpfmesh.tracing import Kind, Told
from ebpfmesh.tracing import Path as Way
from tests.unit.fake_agent import FakeAgent, a_place, an_agent, invoke

EVIL = "e\x1b[2Jvil\x07\u202e[red]x[/red]"
FLOW = Told(
    *(1, 1.7e9 + 0.25, Kind.FLOW, "", Way.WRAPPED, "nic_xdp", "tcp"),
    *("192.0.2.100:4000", "192.0.2.11:8080", "S", "", 40, "web", "ingress"),
    *("10.0.0.6", "t1", "node2"),
)
TOLD = [
    FLOW,
    Told(1, 1.7e9, Kind.DROP, "no_backend", protocol="udp", source="a:1", destination="b:2"),
    Told(1, 1.7e9, Kind.LOST, lost=3),
    Told(1, 1.7e9, Kind.RETRY, "no_answer", backend="10.0.0.6", node="node2", entry="node3"),
    Told(1, 1.7e9, Kind.HANDBACK, "vlan", protocol="tcp", info="VLAN 5"),
    Told(1, 1.7e9, Kind.FLOW, path=Way.SOCKET, destination="127.0.0.1:80"),
]


def lines(*told: Told) -> bytes:
    return b"\n" + b"".join(msgspec.json.encode(one) + b"\n" for one in told)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from a_place(monkeypatch)


@pytest.fixture
def agent(place: Path) -> Iterator[FakeAgent]:
    for agent in an_agent(place):
        agent.answers["/trace?"] = lines(*TOLD)
        yield agent


def test_a_line_for_each(agent: FakeAgent) -> None:
    code, out, err = invoke("trace", "-n", "5")
    assert (code, err) == (0, "")
    shown = [" ".join(line.split()) for line in out.splitlines()]
    assert shown == [
        "TIME KIND WHY PROTOCOL PACKET",
        "22:13:20.250Z flow wrapped tcp 192.0.2.100:4000 -> 192.0.2.11:8080 S "
        "to 10.0.0.6 on node2 of web (ingress)",
        "22:13:20.000Z drop no_backend udp a:1 -> b:2",
        "22:13:20.000Z 3 events were lost: there were too many",
        "22:13:20.000Z retry no_answer - was for 10.0.0.6 on node2 entered at node3",
        "22:13:20.000Z handback vlan tcp (VLAN 5)",
        "22:13:20.000Z flow socket - a process -> 127.0.0.1:80",
    ]


def test_for_programs(agent: FakeAgent) -> None:
    code, out, _ = invoke("trace", "-n", "2", "-o", "json")
    assert code == 0
    assert [msgspec.json.decode(line, type=Told) for line in out.splitlines()] == TOLD[:2]
    assert json.loads(out.splitlines()[0])["version"] == 1


def test_what_is_asked(agent: FakeAgent) -> None:
    query = (
        "/trace?kind=drop&kind=retry&reason=no_answer&client=192.0.2.0%2F24&every=1&service=echo"
    )
    agent.answers[query] = lines(FLOW)
    code, out, _ = invoke(
        *("trace", "--kind", "drop", "--kind", "retry", "--reason", "no_answer", "--all"),
        *("--client", "192.0.2.0/24", "--service", "echo", "-n", "1", "-o", "json"),
    )
    assert (code, len(out.splitlines())) == (0, 1)


def test_a_service_that_is_not_there(agent: FakeAgent) -> None:
    code, out, err = invoke("trace", "--service", "nobody")
    assert (code, out) == (1, "")
    assert "no service nobody" in err


def test_names_cannot_speak_to_the_terminal(agent: FakeAgent) -> None:
    evil = msgspec.structs.replace(
        FLOW, service=EVIL, network=EVIL, node=EVIL, entry=EVIL, info=EVIL, source=EVIL
    )
    agent.answers["/trace?"] = lines(evil)
    _, out, _ = invoke("trace", "-n", "1")
    assert out.count("e[2Jvil[red]x[/red]") == 6
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


def test_no_agent_is_exit_3(place: Path) -> None:
    assert invoke("trace")[0] == 3


def test_an_agent_that_ends_it_is_a_failure(agent: FakeAgent) -> None:
    code, out, err = invoke("trace", "-o", "json")
    assert (code, len(out.splitlines())) == (1, len(TOLD))
    assert "has ended the trace" in err


def test_an_agent_that_does_not_understand(agent: FakeAgent) -> None:
    code, _, err = invoke("trace", "--kind", "x")
    assert code == 1
    assert "answers 500" in err


def test_ctrl_c_is_no_failure(agent: FakeAgent) -> None:
    agent.answers["/trace?"] = lines(*[FLOW] * 200_000)
    command = [sys.executable, "-m", "ebpfmesh", "trace"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ}) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"TIME")
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(10) == 0
