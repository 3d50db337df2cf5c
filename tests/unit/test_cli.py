from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

import ebpfmesh
from ebpfmesh.cli import logs, text
from ebpfmesh.cli import run as running
from ebpfmesh.cli.report import summary
from ebpfmesh.config import Config, option, settings
from ebpfmesh.status import (
    STATUS_VERSION,
    FlowStatus,
    NicStatus,
    PolicyStatus,
    ServiceStatus,
    Status,
)
from tests.unit.fake_agent import (
    FLOWS,
    STATUS,
    FakeAgent,
    a_place,
    a_service,
    an_agent,
    invoke,
    says,
)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from a_place(monkeypatch)


@pytest.fixture
def agent(place: Path) -> Iterator[FakeAgent]:
    yield from an_agent(place)


# --- status -----------------------------------------------------------------------------------


def test_a_healthy_node(agent: FakeAgent) -> None:
    code, out, err = invoke("status")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == "healthy"
    assert "node1 192.0.2.11, up 2h 1m" in lines[1]
    assert "XDP native on eth0, 9 places" in lines[2]
    assert "hub, connected to 192.0.2.11 for 1m 1s" in lines[3]
    assert "flows 26.2k/262.1k (10%)" in out
    assert "no_backend 2" in out
    assert "too_big" not in out
    assert "warning: echo: a task has no docker_gwbridge endpoint" in out
    port = next(line.split() for line in lines if "tcp:8080" in line)
    assert port == [
        "echo",
        "ingress",
        "tcp:8080",
        "vip",
        "1/2",
        "3",
        "42",
        "2.3k",
        "2.4MiB",
        "17",
        "degraded",
    ]
    assert next(line.split() for line in lines if "dnsrr" in line)[2:4] == ["-", "dnsrr"]


def test_a_degraded_node_is_exit_1_with_its_reason(agent: FakeAgent) -> None:
    says(agent, problems=("no hub for 9 s",))
    code, out, _ = invoke("status")
    assert code == 1
    assert out.startswith("degraded\n  problem: no hub for 9 s\n")
    code, out, err = invoke("status", "-o", "json")
    assert code == 1
    assert json.loads(out)["problems"] == ["no hub for 9 s"]
    assert "no hub for 9 s" in err


def test_json_is_what_the_agent_says(agent: FakeAgent) -> None:
    code, out, _ = invoke("status", "-o", "json")
    assert code == 0
    assert msgspec.json.decode(out, type=Status) == STATUS


def test_no_agent_is_exit_3(place: Path) -> None:
    for command in (["status"], ["service", "ls"], ["service", "inspect", "x"], ["flow", "ls"]):
        code, out, err = invoke(*command)
        assert (code, out) == (3, "")
        assert str(place) in err
        assert "ebpfmesh agent" in err
        assert len(err.splitlines()) == 1


def test_a_socket_that_nobody_serves_is_exit_3(agent: FakeAgent, place: Path) -> None:
    other = place.with_name("other.sock")
    other.touch()
    code, _, err = invoke("status", "--socket", str(other))
    assert code == 3
    assert "Connection refused" in err


def test_the_option_comes_before_the_environment(
    agent: FakeAgent, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EBPFMESH_SOCKET", "/nowhere")
    assert invoke("status")[0] == 3
    assert invoke("status", "--socket", str(place))[0] == 0


def test_the_socket_may_come_from_the_file(
    agent: FakeAgent, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ebpfmesh.toml").write_text(f'socket = "{place}"\n')
    monkeypatch.delenv("EBPFMESH_SOCKET")
    monkeypatch.setenv("EBPFMESH_CONFIG", str(tmp_path / "ebpfmesh.toml"))
    assert invoke("status")[0] == 0


def test_an_agent_that_fails(agent: FakeAgent) -> None:
    del agent.answers["/status"]
    code, _, err = invoke("status")
    assert code == 1
    assert "answers 500" in err


def test_an_agent_of_another_version(agent: FakeAgent) -> None:
    agent.answers["/status"] = b'{"version": 99}'
    code, _, err = invoke("status")
    assert code == 1
    assert "another version of ebpfmesh" in err


def test_names_cannot_speak_to_the_terminal(agent: FakeAgent) -> None:
    evil = "e\x1b[2Jvil\x07\u202e[red]x[/red] \N{PARTY POPPER}:+1:"
    says(agent, services=(a_service(evil, evil),), problems=("bad\x1b[1m",))
    for command in (["status"], ["service", "ls"], ["service", "inspect", "id-of-e"]):
        _, out, _ = invoke(*command)
        assert "e[2Jvil[red]x[/red] \N{PARTY POPPER}:+1:" in out
        assert not {"\x1b", "\x07", "\u202e"} & set(out)


def test_nothing_is_cut_off_in_a_pipe(agent: FakeAgent, place: Path) -> None:
    says(agent, services=(a_service("s" * 300, "n" * 200),))
    command = [sys.executable, "-m", "ebpfmesh", "status"]
    env = {**os.environ, "COLUMNS": "40", "TERM": "xterm-256color", "FORCE_COLOR": "1"}
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert "s" * 300 + "  " + "n" * 200 in out
    assert "\x1b" not in out


def test_watching_goes_on_until_it_is_interrupted(agent: FakeAgent) -> None:
    command = [sys.executable, "-m", "ebpfmesh", "status", "-w", "-o", "json", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["version"] for _ in range(3)] == [1, 1, 1]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
        assert process.returncode == 0


T = TypeVar("T")


def listed(out: str, name: str, kind: type[T]) -> T:
    """The list that a command prints for programs, which says of which version it is."""
    told = json.loads(out)
    assert told.keys() == {"version", name}
    assert told["version"] == STATUS_VERSION
    return msgspec.convert(told[name], kind)


# --- services and flows -------------------------------------------------------------------------


def test_services_are_listed(agent: FakeAgent) -> None:
    code, out, _ = invoke("service", "ls")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["SERVICE", "NETWORK", "MODE", "FRONTENDS", "BACKENDS", "FLOWS", "STATE"]
    assert ["echo", "ingress", "vip", "tcp:8080", "1/2", "3", "degraded"] in rows
    _, out, _ = invoke("service", "ls", "-o", "json")
    assert listed(out, "services", tuple[ServiceStatus, ...]) == STATUS.services


def test_a_service_is_shown_on_all_its_networks(agent: FakeAgent) -> None:
    code, out, _ = invoke("service", "inspect", "echo")
    assert code == 0
    assert "demo (VNI 4097)" in out
    assert "ingress (VNI 4097)" in out
    assert "node1 (here)" in out
    task = next(line.split() for line in out.splitlines() if "b" * 25 in line)
    assert task[1:5] == ["10.0.0.6", "node2", "draining", "-"]
    task = next(line.split() for line in out.splitlines() if "a" * 25 in line)
    assert task[1:6] == ["10.0.0.5", "node1", "(here)", "ready", "66.7%"]
    _, out, _ = invoke("service", "inspect", "id-of-ec", "-o", "json")
    shown = listed(out, "services", tuple[ServiceStatus, ...])
    assert [one.network for one in shown] == ["demo", "ingress"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("web", "web could be any of web-a, web-b"),
        ("ecko", "did you mean echo?"),
        ("zzz", "there are echo, named, web-a, web-b"),
        ("", "no service"),
    ],
)
def test_a_name_that_is_not_one_service(agent: FakeAgent, name: str, message: str) -> None:
    code, out, err = invoke("service", "inspect", name)
    assert (code, out) == (1, "")
    assert message in err


def test_a_service_is_shown_with_its_policy(agent: FakeAgent) -> None:
    policy = PolicyStatus("rr", "client-ip", "local", ("10.0.0.0/8", "192.0.2.1/32"))
    says(agent, services=(a_service("echo", "demo", policy=policy, chosen=1),))
    shown = invoke("service", "inspect", "echo")[1]
    allow = "allow=10.0.0.0/8,192.0.2.1/32"
    assert f"scheduler=rr  affinity=client-ip  prefer=local  {allow}\n" in shown
    assert "2/2 get new flows, from this node 1" in shown


def test_who_stands_in_is_told(agent: FakeAgent) -> None:
    policy = PolicyStatus(ready="started")
    says(agent, services=(a_service("echo", "demo", policy=policy, ready=0, chosen=2),))
    shown = invoke("service", "inspect", "echo")[1]
    assert "0/2 get new flows, 2 that are not get new flows meanwhile" in shown
    assert "ready=started" in shown


@pytest.mark.parametrize(
    ("allow", "shown"), [(None, "scheduler=maglev\n"), ((), "scheduler=maglev  allow=nobody\n")]
)
def test_who_is_allowed(agent: FakeAgent, allow: tuple[str, ...] | None, shown: str) -> None:
    says(agent, services=(a_service("echo", "demo", policy=PolicyStatus(allow=allow)),))
    assert shown in invoke("service", "inspect", "echo")[1]


def test_a_node_without_services(agent: FakeAgent) -> None:
    says(agent, services=())
    assert invoke("status")[0] == 0
    assert "this node knows of none" in invoke("service", "inspect", "x")[2]


def test_flows_are_listed(agent: FakeAgent) -> None:
    code, out, _ = invoke("flow", "ls")
    assert code == 0
    assert len(out.splitlines()) == 3
    assert "192.0.2.100:40000" in out
    _, out, _ = invoke("flow", "ls", "--service", "web-a", "-o", "json")
    assert listed(out, "flows", list[FlowStatus]) == FLOWS[1:]
    assert invoke("flow", "ls", "--service", "nope")[0] == 1


# --- agent and detach -----------------------------------------------------------------------------


def test_every_setting_is_an_option() -> None:
    _, out, _ = invoke("agent", "--help")
    words = " ".join(out.split())
    for setting in settings().values():
        assert option(setting.name) in words
        assert setting.variable in words
        assert setting.description.split(";")[0].split()[0] in words


@pytest.mark.parametrize("command", ["agent", "detach", "check"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("--maglev-size", "100"), ("--xdp", "fast"), ("--hub-port", "many"), ("--socket", "x")],
)
def test_a_bad_value_is_one_line(place: Path, command: str, name: str, value: str) -> None:
    code, out, err = invoke(command, name, value)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert name in err
    assert value in err


def test_a_bad_environment_is_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBPFMESH_MAGLEV_SIZ", "7")
    code, _, err = invoke("agent")
    assert code == 2
    assert "did you mean EBPFMESH_MAGLEV_SIZE?" in err


@pytest.mark.parametrize("command", ["agent", "detach"])
def test_root_is_needed(place: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    code, _, err = invoke(command)
    assert code == 1
    assert "run this as root" in err


def test_detach_does_not_fight_an_agent(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    code, _, err = invoke("detach")
    assert code == 1
    assert "stop it first" in err


def test_drain_beside_an_agent_leaves_the_detaching_for_later(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    drained = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(running, "_drain", lambda _, limit_s: drained.append(limit_s))
    code, _, err = invoke("detach", "--drain", "5m")
    assert (code, drained) == (1, [300])
    assert "stop the agent, then run `ebpfmesh detach`" in err


@pytest.mark.parametrize("time", ["", "soon", "-3s", "3d", "1h30m"])
def test_a_drain_that_is_no_time(time: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    code, _, err = invoke("detach", f"--drain={time}")
    assert code == 2
    assert "is no time; allowed: a number and s, m or h" in err


@pytest.mark.parametrize(("time", "wanted"), [("30", 30), ("1.5s", 1.5), ("2m", 120), ("1h", 3600)])
def test_times(time: str, wanted: float) -> None:
    assert text.seconds(time) == wanted


def test_a_missing_bcc_is_explained(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_config: Config) -> None:
        raise ModuleNotFoundError("No module named 'bcc'", name="bcc")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(running, "_until_told_to_end", missing)
    monkeypatch.setattr(running, "_take_place", lambda _: None)
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    code, _, err = invoke("agent")
    assert code == 1
    assert "python3-bpfcc" in err


SIGNALLED = """
import asyncio, os, signal, sys, types
module = types.ModuleType("ebpfmesh.agent")
class Agent:
    def __init__(self, config): self.config = config
    async def run(self):
        print("runs on", self.config.device, flush=True)
        try:
            await asyncio.sleep(60)
        finally:
            print("cleaned up", flush=True)
module.Agent = Agent
sys.modules["ebpfmesh.agent"] = module
os.geteuid = lambda: 0
from ebpfmesh.cli import main
sys.argv = ["ebpfmesh", "agent", "--device", "eth7"]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_agent_in_order(place: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", SIGNALLED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs on eth7\n"
        process.send_signal(number)
        out, _ = process.communicate(timeout=10)
        assert (process.returncode, out) == (0, "cleaned up\n")


# --- the rest -------------------------------------------------------------------------------------


def test_the_version() -> None:
    assert invoke("--version")[1] == f"ebpfmesh {ebpfmesh.__version__}\n"


def test_the_lab_is_mounted() -> None:
    code, out, _ = invoke("lab", "--help")
    assert code == 0
    assert "up" in out


def test_looking_does_not_load_what_acting_needs() -> None:
    """`ebpfmesh status` starts quickly, and without bcc."""
    code = "import sys, ebpfmesh.cli; print({'bcc', 'aiohttp', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0s"), (59.9, "59s"), (125, "2m 5s"), (11220, "3h 7m"), (698400, "8d 2h")],
)
def test_spans(seconds: float, shown: str) -> None:
    assert text.span(seconds) == shown


@pytest.mark.parametrize(
    ("number", "counted", "sized"),
    [
        (0, "0", "0B"),
        (999, "999", "999B"),
        (1000, "1.0k", "1000B"),
        (1229, "1.2k", "1.2KiB"),
        (34_500_000, "34.5M", "32.9MiB"),
        (10**18, "1000.0P", "888.2PiB"),
    ],
)
def test_numbers(number: int, counted: str, sized: str) -> None:
    assert (text.count(number), text.size(number)) == (counted, sized)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"mode": "giving_back", "mode_age_s": 65.0}, "mode      giving back for 1m 5s: new"),
        ({"takeover_left_s": 61.0}, "mode      taking over for 1m 1s more: unknown"),
        (
            {"nics": (NicStatus("eth0", "native"), NicStatus("bond0", "off"))},
            "datapath  XDP native on eth0, tc on bond0, 9 places",
        ),
    ],
)
def test_what_is_under_way_has_a_line(changes: dict[str, Any], line: str) -> None:
    datapath = msgspec.structs.replace(STATUS.datapath, **changes)
    lines = [str(each) for each in summary(msgspec.structs.replace(STATUS, datapath=datapath))]
    assert [each for each in lines if each.startswith(line)]
    assert not [each for each in map(str, summary(STATUS)) if each.startswith("mode")]
