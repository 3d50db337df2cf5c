"""What the lab's daemons are told, and how their namespaces are entered."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from ebpfmesh.lab import agents, daemon, namespaces, preflight, services
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.paths import DIRECTORY_VARIABLE, LabPaths, lab_paths
from ebpfmesh.lab.plan import plan_nodes
from ebpfmesh.lab.state import ProcessId

PATHS = LabPaths(Path("/lab"))


def test_the_environment_chooses_the_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, "/elsewhere")
    assert lab_paths().root == Path("/elsewhere")
    monkeypatch.delenv(DIRECTORY_VARIABLE)
    assert lab_paths().root == Path("/var/lib/ebpfmesh-lab")


def test_no_two_dockerds_share_anything() -> None:
    one, two = (
        msgspec.json.decode(daemon.configuration(node, PATHS.node(node.name)))
        for node in plan_nodes(2, 1)
    )
    for setting in ("data-root", "hosts", "pidfile", "default-address-pools", "cgroup-parent"):
        assert one[setting] != two[setting]
    assert one["hosts"] == ["unix:///lab/node1/docker.sock"]
    assert one["exec-root"] == "/run/docker"


def test_an_agent_has_its_nodes_settings_and_the_callers() -> None:
    (node,) = plan_nodes(1, 1)
    caller = {
        "DOCKER_HOST": "tcp://elsewhere",
        "EBPFMESH_RETURN_MODE": "dsr",
        "EBPFMESH_SOCKET": "/run/another.sock",
        "PYTHONPATH": "/more",
    }
    env = agents.environment(node, PATHS.node("node1"), caller)
    assert "DOCKER_HOST" not in env
    assert env["EBPFMESH_RETURN_MODE"] == "dsr"
    assert env["EBPFMESH_SOCKET"] == "/lab/node1/agent.sock"
    assert env["EBPFMESH_METRICS_ADDRESS"] == "192.0.2.11"
    assert env["PYTHONPATH"].endswith(":/more")


def test_all_agents_share_the_compiled_programs() -> None:
    places = {
        agents.environment(node, PATHS.node(node.name), {})["EBPFMESH_OBJECT_DIR"]
        for node in plan_nodes(3, 1)
    }
    assert places == {"/lab/objects"}
    (node,) = plan_nodes(1, 1)
    given = {"EBPFMESH_OBJECT_DIR": "/kept"}
    assert agents.environment(node, PATHS.node("node1"), given).items() >= given.items()


def test_a_node_is_entered_whole_and_the_client_by_its_network() -> None:
    node = namespaces.in_node("node1", 42, ["ls", "-l"])
    assert node[-2:] == ["ls", "-l"]
    assert {"--target=42", "--net", "--mount", "--uts"} <= set(node)
    client = namespaces.in_place("client", ["ls"])
    assert "--net=/run/netns/client" in client
    assert "--mount" not in client


def test_a_service_is_created_as_asked() -> None:
    command = services.create_command(
        "web",
        ["--http", "81"],
        image="image",
        replicas=2,
        networks=["a", "b"],
        publish=["8080:81"],
        options=["--mode=global"],
    )
    assert command[:2] == ["service", "create"]
    assert "--no-resolve-image" in command
    assert [arg for arg in command if arg.startswith("--network")] == ["--network=a", "--network=b"]
    assert "--publish=8080:81" in command
    assert command[-4:] == ["--mode=global", "image", "--http", "81"]


def test_dockerd_of_an_engine_has_that_engines_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def spawn(argv: list[str], log: Path) -> ProcessId:
        started.append(argv)
        return ProcessId(1, 1)

    monkeypatch.setattr(daemon, "spawn", spawn)
    monkeypatch.setattr(daemon, "_forget_killed", lambda *_: None)
    (node,) = plan_nodes(1, 1)
    paths = LabPaths(tmp_path).node("node1")
    paths.root.mkdir()
    for engine in ("", "/sid"):
        daemon.start(node, paths, ProcessId(1, 1), engine)
    own, other = (argv[argv.index("--") + 1 :] for argv in started)
    assert own == ["dockerd", "--config-file", str(paths.docker_config)]
    assert other[-len(own) - 1 :] == ["/sid", *own]
    assert 'mount --bind "$0/usr" /usr' in other[-len(own) - 2]


def test_an_engine_is_looked_at_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no usr/sbin/dockerd"):
        preflight.check((), LabPaths(tmp_path), str(tmp_path))
