from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ebpfmesh.lab.cli import app
from ebpfmesh.lab.paths import DIRECTORY_VARIABLE
from ebpfmesh.lab.plan import plan_nodes
from ebpfmesh.lab.processes import boot_id, identify_self
from ebpfmesh.lab.state import LabState, NodeState, Phase, ProcessId, Record


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    return tmp_path


def remember(directory: Path, **changes: object) -> None:
    """As if a lab had been made; there is none behind it."""
    fields: dict[str, object] = {
        "boot_id": boot_id(),
        "maker": identify_self(),
        "ip_forward_before": "0",
        "nodes": {node.name: NodeState(node) for node in plan_nodes(2, 1)},
        "phase": Phase.UP,
    }
    state = LabState(**(fields | changes))  # type: ignore[arg-type]
    assert Record.claim(directory / "lab.json", state) is not None


def test_no_lab_is_exit_3() -> None:
    result = CliRunner().invoke(app, ["status", "-o", "json"])
    assert result.exit_code == 3
    assert json.loads(result.output) == {"version": 1, "up": False, "nodes": []}


def test_down_without_a_lab_is_no_error() -> None:
    result = CliRunner().invoke(app, ["down"])
    assert result.exit_code == 0
    assert "no lab" in result.output


def test_status_tells_where_everything_is(directory: Path) -> None:
    remember(directory)
    result = CliRunner().invoke(app, ["status", "-o", "json"])
    report = json.loads(result.output)
    assert result.exit_code == 0
    assert report["nodes"][1] == {
        "name": "node2",
        "role": "worker",
        "namespace": "node2",
        "address": "192.0.2.12",
        "docker_socket": f"{directory}/node2/docker.sock",
        "agent_socket": f"{directory}/node2/agent.sock",
        "metrics_address": "192.0.2.12:9477",
        "dockerd_pid": None,
        "agent_pid": None,
    }
    assert report["client"] == {"namespace": "client", "address": "192.0.2.100"}


def test_the_table_names_everybody(directory: Path) -> None:
    remember(directory)
    result = CliRunner().invoke(app, ["status"])
    assert result.exit_code == 0
    assert all(name in result.output for name in ("node1", "node2", "client", "lan"))


@pytest.mark.parametrize("changes", [{"boot_id": "earlier"}, {"phase": Phase.STARTING}])
def test_remains_are_no_lab(directory: Path, changes: dict[str, object]) -> None:
    remember(directory, **changes)
    assert CliRunner().invoke(app, ["status"]).exit_code == 3


def test_an_unknown_place_is_a_mistake_of_the_user(directory: Path) -> None:
    remember(directory)
    result = CliRunner().invoke(app, ["exec", "node9", "--", "true"])
    assert result.exit_code == 2
    assert "node1, node2, client, lan" in result.output


@pytest.mark.parametrize("dashes", [[], ["--"]])
def test_exec_runs_what_follows_the_dashes(
    directory: Path, monkeypatch: pytest.MonkeyPatch, dashes: list[str]
) -> None:
    remember(directory)
    ran: list[list[str]] = []
    monkeypatch.setattr("os.execvpe", lambda _file, argv, _env: ran.append(argv))
    CliRunner().invoke(app, ["exec", "client", *dashes, "ip", "-o", "link"])
    assert [argv[-4:] for argv in ran] == [["--", "ip", "-o", "link"]]
    assert ran[0].count("--") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "up already"),
        ({"phase": Phase.STARTING}, "just bringing"),
        ({"phase": Phase.STARTING, "maker": ProcessId(1, 1)}, "half a lab"),
        ({"boot_id": "earlier"}, "earlier boot"),
    ],
)
def test_a_second_lab_is_refused(directory: Path, changes: dict[str, object], message: str) -> None:
    remember(directory, **changes)
    before = (directory / "lab.json").read_bytes()
    result = CliRunner().invoke(app, ["up"])
    assert result.exit_code == 1
    assert message in result.output
    assert (directory / "lab.json").read_bytes() == before


def test_down_of_an_earlier_boots_lab_removes_the_files(directory: Path) -> None:
    remember(directory, boot_id="earlier")
    (directory / "node1" / "data").mkdir(parents=True)
    result = CliRunner().invoke(app, ["down"])
    assert result.exit_code == 0
    assert not directory.exists()
