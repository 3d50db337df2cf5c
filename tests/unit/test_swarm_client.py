# SPDX-License-Identifier: Apache-2.0
"""The client against a dockerd that answers as Engine 20.10 does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from ebpfmesh.model import BackendState
from ebpfmesh.swarm import (
    DockerUnavailable,
    Endpoint,
    Event,
    Manager,
    NotInSwarm,
    Resync,
    SwarmClient,
    SwarmError,
)
from ebpfmesh.swarm.api import TaskDoc, decode_json
from ebpfmesh.swarm.errors import DockerRefused
from ebpfmesh.swarm.events import Kind, event
from ebpfmesh.swarm.local import local_container

PATIENCE_S = 20.0
LABELS = {
    "com.docker.swarm.task.id": "t1",
    "com.docker.swarm.service.id": "web",
    "com.docker.swarm.node.id": "n1",
}
INFO: dict[str, Any] = {
    "Name": "one",
    "ServerVersion": "20.10.24",
    "DockerRootDir": "/var/lib/docker",
    "Swarm": {
        "NodeID": "n1",
        "NodeAddr": "192.0.2.11",
        "LocalNodeState": "active",
        "ControlAvailable": True,
        "Error": "",
        "RemoteManagers": [
            {"NodeID": "n1", "Addr": "192.0.2.11:2377"},
            {"NodeID": "n2", "Addr": "[2001:db8::2]:2377"},
        ],
        "Cluster": {"ID": "cluster", "DataPathPort": 4790},
    },
}
CONTAINER: dict[str, Any] = {
    "Id": "c1" * 32,
    "State": {"Status": "running", "Running": True, "Pid": 42, "Health": {"Status": "healthy"}},
    "Config": {"Labels": LABELS},
    "NetworkSettings": {
        "SandboxID": "5a" * 32,
        "SandboxKey": "/var/run/docker/netns/5a5a",
        "Networks": {
            "ingress": {
                "NetworkID": "ing",
                "IPAddress": "10.0.0.6",
                "MacAddress": "02:42:0A:00:00:06",
            },
            "none": {"NetworkID": "", "IPAddress": "", "MacAddress": ""},
        },
    },
}
GWBRIDGE: dict[str, Any] = {
    "Id": "gw",
    "Name": "docker_gwbridge",
    "Scope": "local",
    "Driver": "bridge",
    "Containers": {
        "ep-1": {
            "Name": "gateway_" + "5a" * 6,
            "MacAddress": "02:42:ac:12:00:03",
            "IPv4Address": "172.18.0.3/16",
        }
    },
}


class FakeDocker:
    """Canned answers by path, statuses where one is not 200, and a stream of events."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "version": {"ApiVersion": "1.41"},
            "info": INFO,
            "services": [],
            "tasks": [],
            "nodes": [],
            "networks": [],
            "containers/json": [{"Id": CONTAINER["Id"]}],
            f"containers/{CONTAINER['Id']}/json": CONTAINER,
            "networks/docker_gwbridge": GWBRIDGE,
        }
        self.refusals: dict[str, tuple[int, str]] = {}
        self.queries: dict[str, dict[str, str]] = {}
        self.streams: list[list[dict[str, Any]]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        self.queries[path] = dict(request.query)
        if path in self.refusals:
            status, message = self.refusals[path]
            return web.json_response({"message": message}, status=status)
        if path == "events":
            return await self._events(request)
        if path not in self.answers:
            return web.json_response({"message": f"No such thing: {path}"}, status=404)
        return web.json_response(self.answers[path])

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Play one stream, and hang up; after the last one stay connected, silent."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if not self.streams:
            await asyncio.sleep(PATIENCE_S)
        for line in self.streams.pop(0):
            await response.write(json.dumps(line).encode() + b"\n")
        return response


@asynccontextmanager
async def docker_at(path: Path) -> AsyncIterator[FakeDocker]:
    docker = FakeDocker()
    app = web.Application()
    app.router.add_get(r"/{version:v[\d.]+}/{path:.*}", docker.answer)
    app.router.add_get("/{path:.*}", docker.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.0)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield docker
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client_and_docker(directory: Path) -> AsyncIterator[tuple[SwarmClient, FakeDocker]]:
    path = directory / "docker.sock"
    async with docker_at(path) as docker, SwarmClient(f"unix://{path}") as client:
        yield client, docker


# --- this node --------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_info_tells_this_nodes_place(tmp_path: Path) -> None:
    async with client_and_docker(tmp_path) as (client, _):
        info = await client.info()
    assert (info.node_id, info.node_addr, info.hostname) == ("n1", "192.0.2.11", "one")
    assert info.is_manager
    assert info.remote_managers == (Manager("n1", "192.0.2.11"), Manager("n2", "2001:db8::2"))
    assert (info.docker_root, info.data_path_port) == ("/var/lib/docker", 4790)


@pytest.mark.asyncio
async def test_a_worker_knows_the_default_port_only(tmp_path: Path) -> None:
    async with client_and_docker(tmp_path) as (client, docker):
        swarm = {**INFO["Swarm"], "ControlAvailable": False, "Cluster": None}
        docker.answers["info"] = {**INFO, "Swarm": {**swarm, "RemoteManagers": None}}
        info = await client.info()
    assert (info.is_manager, info.remote_managers, info.data_path_port) == (False, (), 4789)


@pytest.mark.asyncio
@pytest.mark.parametrize(("state", "advice"), [("inactive", "swarm init"), ("locked", "unlock")])
async def test_a_node_outside_of_a_swarm_is_told_what_to_do(
    tmp_path: Path, state: str, advice: str
) -> None:
    async with client_and_docker(tmp_path) as (client, docker):
        docker.answers["info"] = {"Swarm": {"NodeID": "", "LocalNodeState": state}}
        with pytest.raises(NotInSwarm, match=advice):
            await client.info()


@pytest.mark.asyncio
async def test_local_tasks_have_their_sandbox_their_endpoints_and_their_gateway(
    tmp_path: Path,
) -> None:
    async with client_and_docker(tmp_path) as (client, _):
        (running,) = await client.task_container_ids()
        doc = await client.container(running)
        assert doc is not None
        assert await client.container("gone-in-between") is None
        task = local_container(doc, await client.gateways())
        assert task is not None
    assert (task.id, task.task_id, task.service_id) == ("c1" * 32, "t1", "web")
    assert (task.sandbox, task.pid) == ("/var/run/docker/netns/5a5a", 42)
    assert (task.state, task.health) == (BackendState.READY, "healthy")
    assert task.endpoints == {"ing": Endpoint("10.0.0.6", "02:42:0a:00:00:06")}
    assert task.gateway == Endpoint("172.18.0.3", "02:42:ac:12:00:03")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("running", "health", "state"),
    [
        (True, None, BackendState.READY),
        (True, {"Status": "starting"}, BackendState.STARTING),
        (True, {"Status": "unhealthy"}, BackendState.DRAINING),
        (False, {"Status": "healthy"}, BackendState.GONE),
    ],
)
async def test_a_containers_condition_bounds_its_state(
    tmp_path: Path, running: bool, health: dict[str, str] | None, state: BackendState
) -> None:
    async with client_and_docker(tmp_path) as (client, docker):
        path = f"containers/{CONTAINER['Id']}/json"
        docker.answers[path] = {**CONTAINER, "State": {"Running": running, "Health": health}}
        del docker.answers["networks/docker_gwbridge"]
        doc = await client.container(CONTAINER["Id"])
        assert doc is not None
        task = local_container(doc, await client.gateways())
        assert task is not None
    assert (task.state, task.gateway) == (state, None)


# --- the swarm --------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_snapshot_is_whole_or_an_error(tmp_path: Path) -> None:
    async with client_and_docker(tmp_path) as (client, docker):
        docker.answers["tasks"] = [{"ID": "t1", "Status": {"State": "running"}}]
        assert [task.id for task in (await client.manager_snapshot()).tasks] == ["t1"]
        docker.refusals["nodes"] = (503, "This node is not a swarm manager.")
        with pytest.raises(DockerRefused, match="not a swarm manager"):
            await client.manager_snapshot()


@pytest.mark.asyncio
async def test_a_worker_sees_whether_its_ingress_network_is_encrypted(tmp_path: Path) -> None:
    ingress = {"Id": "i", "Name": "ingress", "Ingress": True, "Options": {}}
    other = {"Id": "o", "Name": "other", "Options": {"encrypted": ""}}
    async with client_and_docker(tmp_path) as (client, docker):
        docker.answers["networks"] = [ingress, other]
        assert not await client.ingress_is_encrypted()
        docker.answers["networks"] = [{**ingress, "Options": {"encrypted": ""}}, other]
        assert await client.ingress_is_encrypted()


# --- events -----------------------------------------------------------------------------


def die(task_id: str) -> dict[str, Any]:
    attributes = {"com.docker.swarm.task.id": task_id, "exitCode": "137"}
    return {
        "Type": "container",
        "Action": "die",
        "Actor": {"ID": "c1", "Attributes": attributes},
        "scope": "local",
        "time": 1700000000,
        "timeNano": 1700000000000000001,
    }


@pytest.mark.asyncio
async def test_events_go_on_after_an_interruption_with_a_resync(tmp_path: Path) -> None:
    seen: list[Event | Resync] = []
    async with client_and_docker(tmp_path) as (client, docker):
        docker.streams = [[die("t1"), {"Type": "volume", "Action": "mount"}], [die("t2")]]
        with capture_logs() as logs:
            async with asyncio.timeout(PATIENCE_S):
                events = client.events()
                while len(seen) < 4:
                    seen.append(await anext(events))
                await events.aclose()  # type: ignore[attr-defined]
    tasks = [e.task_id if isinstance(e, Event) else "resync" for e in seen]
    assert tasks == ["resync", "t1", "resync", "t2"]
    assert [x["event"] for x in logs] == ["docker.events_interrupted", "docker.events_resumed"]
    wanted = json.loads(docker.queries["events"]["filters"])
    assert "exec_create" not in wanted["event"]
    assert set(wanted["type"]) == {"container", "network", "service", "node"}


@pytest.mark.asyncio
async def test_events_wait_for_a_dockerd_that_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    async with SwarmClient(f"unix://{path}") as client:
        events = client.events()
        first = asyncio.ensure_future(anext(events))
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(first), 0.05)
        assert not first.done()
        async with docker_at(path), asyncio.timeout(PATIENCE_S):
            assert await first == Resync()
        await events.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("action", "attributes", "state"),
    [
        ("start", {}, None),
        ("health_status: healthy", {}, None),
        ("health_status: unhealthy", {}, BackendState.DRAINING),
        ("kill", {"signal": "15"}, BackendState.STOPPING),
        ("kill", {"signal": "1"}, None),
        ("die", {"exitCode": "0"}, BackendState.GONE),
    ],
)
def test_what_a_container_event_says_of_its_task(
    action: str, attributes: dict[str, str], state: BackendState | None
) -> None:
    actor = {"ID": "c1", "Attributes": {**attributes, "com.docker.swarm.task.id": "t1"}}
    found = event({"Type": "container", "Action": action, "Actor": actor})
    assert found is not None
    assert (found.kind, found.task_id, found.task_state) == (Kind.CONTAINER, "t1", state)
    plain = event({"Type": "container", "Action": action, "Actor": {"ID": "c1"}})
    assert plain is not None
    assert plain.task_state is None


# --- what goes wrong --------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_missing_socket_is_explained(tmp_path: Path) -> None:
    async with SwarmClient(f"unix://{tmp_path}/docker.sock") as client:
        with pytest.raises(DockerUnavailable, match="does not exist; is dockerd running") as error:
            await client.info()
    assert error.value.__cause__ is not None


@pytest.mark.asyncio
async def test_a_socket_without_a_daemon_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    server = await asyncio.start_unix_server(lambda _reader, _writer: None, path=path)
    server.close()
    await server.wait_closed()
    if not path.exists():
        pytest.skip("this Python removes the socket of a closed server")
    async with SwarmClient(f"unix://{path}") as client:
        with pytest.raises(DockerUnavailable, match="nobody listens"):
            await client.info()


@pytest.mark.asyncio
async def test_a_daemon_that_hangs_is_explained(tmp_path: Path) -> None:
    never = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await never.wait()
        writer.close()

    path = tmp_path / "docker.sock"
    server = await asyncio.start_unix_server(hang, path=path)
    async with SwarmClient(f"unix://{path}", timeout_s=0.05) as client:
        with pytest.raises(DockerUnavailable, match=r"does not answer within 0\.05 s"):
            await client.info()
    never.set()
    server.close()
    await server.wait_closed()


@pytest.mark.asyncio
async def test_an_answer_that_is_no_docker_is_our_own_error(tmp_path: Path) -> None:
    async with client_and_docker(tmp_path) as (client, docker):
        docker.answers["info"] = ["what?"]
        with pytest.raises(SwarmError, match="does not decode"):
            await client.info()


@pytest.mark.asyncio
async def test_a_list_of_tasks_is_held_to_its_form(tmp_path: Path) -> None:
    async with client_and_docker(tmp_path) as (client, docker):
        docker.answers["tasks"] = [{"ID": "t1", "Status": {"State": 7}}]
        with pytest.raises(SwarmError, match="does not decode"):
            await client.tasks()
        docker.refusals["tasks"] = (503, "This node is not a swarm manager.")
        with pytest.raises(DockerRefused, match="not a swarm manager"):
            await client.tasks()


def test_what_is_no_json_is_said_so() -> None:
    with pytest.raises(SwarmError, match="no JSON"):
        decode_json(b"<html>", list[TaskDoc])
