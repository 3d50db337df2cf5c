from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from ebpfmesh import demo
from ebpfmesh.cli.app import app
from ebpfmesh.lab import Lab, LabError, TaskContainer

CLIENT = "192.0.2.100"


class FakeLab:
    """Answers like a lab in which all is well; `fault` replaces the answer to a request."""

    def __init__(self, fault: Callable[[str], dict[str, str] | None] = lambda _where: None) -> None:
        self.fault = fault
        self.is_down = False
        self.turn = itertools.cycle(["echo-1", "echo-2", "echo-3"])
        self.nodes = [
            SimpleNamespace(
                name=f"node{i}", address=f"192.0.2.1{i}", agent_socket=Path(f"/node{i}/agent.sock")
            )
            for i in (1, 2, 3)
        ]

    def manager(self) -> Any:
        return self.nodes[0]

    def docker(self, *_args: str) -> str:
        return "id"

    def deploy(self, *_args: str, **_options: Any) -> str:
        return "id"

    def wait_for_replicas(self, *_args: Any) -> None:
        pass

    def task_containers(self, _service: str) -> list[TaskContainer]:
        return [TaskContainer("node1", "c" * 64, {"demo": "10.0.1.9"})]

    def run(self, where: str, argv: Sequence[str], **_options: Any) -> CompletedProcess[str]:
        if argv[0] == "ebpfmesh":
            return CompletedProcess(argv, 0, "healthy\n", "")
        return self._answer(where, CLIENT if where == "client" else "172.18.0.1")

    def container_run(self, *_args: Any, **_options: Any) -> CompletedProcess[str]:
        return self._answer("container", "10.0.1.9")

    def _answer(self, where: str, peer: str) -> CompletedProcess[str]:
        answer = self.fault(where) or {"host": next(self.turn), "peer": peer, "protocol": "tcp"}
        if "error" in answer:
            return CompletedProcess([], 7, "", answer["error"])
        return CompletedProcess([], 0, json.dumps(answer), "")

    def down(self) -> None:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        self.is_down = True


def services(ready: int) -> dict[str, Any]:
    rows = [
        {"name": "echo", "state": "ok", "ready": ready},
        {"name": "echo", "state": "elsewhere", "ready": 0},
        {"name": "client", "state": "ok", "ready": 1},
    ]
    return {"services": rows}


def invoke(monkeypatch: pytest.MonkeyPatch, lab: FakeLab, ready: int = 3) -> tuple[int, str, str]:
    monkeypatch.setattr(Lab, "up", lambda *_, **__: lab)
    monkeypatch.setattr(demo, "get_json", lambda *_: services(ready))
    monkeypatch.setattr(demo, "_CONVERGE_S", 0.0)
    monkeypatch.setattr(demo, "_POLL_S", 0.0)
    result = CliRunner().invoke(app, ["demo"])
    return result.exit_code, result.stdout, result.stderr


def test_the_demo_shows_every_way_in_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = FakeLab()
    code, out, _ = invoke(monkeypatch, lab)
    assert code == 0
    assert lab.is_down
    for way in ("through the VIP", "port of node3, from outside", "from node2 itself", "healthy"):
        assert way in out
    assert "4 answered by echo-1" in out
    assert f"saw as its peer: {CLIENT}" in out


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda _: {"error": "curl: (7) refused"}, "a request failed: curl: (7) refused"),
        (lambda _: {"host": "echo-1", "peer": "10.0.1.9"}, "were answered by echo-1"),
        (lambda _: {"nonsense": "x"}, "not an answer"),
    ],
)
def test_a_wrong_answer_is_exit_1_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[str], dict[str, str]], message: str
) -> None:
    lab = FakeLab(fault)
    code, _, err = invoke(monkeypatch, lab)
    assert code == 1
    assert message in err
    assert lab.is_down


def test_a_client_that_is_hidden_is_exit_1(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = itertools.cycle(["echo-1", "echo-2"])
    lab = FakeLab(
        lambda where: {"host": next(turn), "peer": "192.0.2.11"} if where == "client" else None
    )
    code, _, err = invoke(monkeypatch, lab)
    assert code == 1
    assert "but the service saw 192.0.2.11" in err


def test_a_node_that_does_not_hear_is_exit_1(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = FakeLab()
    code, _, err = invoke(monkeypatch, lab, ready=2)
    assert code == 1
    assert "node1 has not all replicas" in err
    assert lab.is_down


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_exit_130_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def interrupt(_where: str) -> None:
        signal.raise_signal(number)

    lab = FakeLab(interrupt)
    assert invoke(monkeypatch, lab)[0] == 130
    assert lab.is_down


def test_no_lab_is_exit_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def up(*_args: Any, **_options: Any) -> None:
        raise LabError("a lab is up already")

    monkeypatch.setattr(Lab, "up", up)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 1
    assert result.stderr == "ebpfmesh: a lab is up already\n"
