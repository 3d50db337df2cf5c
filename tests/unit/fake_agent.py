# SPDX-License-Identifier: Apache-2.0
"""A socket that answers like an agent, and a status for it to tell."""

from __future__ import annotations

import os
import shutil
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from ebpfmesh.cli.app import app
from ebpfmesh.status import (
    STATUS_VERSION,
    BackendStatus,
    DatapathStatus,
    FlowStatus,
    FrontendStatus,
    HubStatus,
    MapStatus,
    NodeStatus,
    NoteStatus,
    ServiceStatus,
    Status,
    Traffic,
)

TRAFFIC = Traffic(1200, 1100, 123456, 2345678, 42)
PORT = FrontendStatus("tcp:8080", "port", 80, TRAFFIC, Traffic(connections=17))
VIP = FrontendStatus("10.0.1.2", "vip", 0, TRAFFIC, Traffic())
BACKENDS = (
    BackendStatus("a" * 25, "10.0.0.5", "node1", True, "ready", TRAFFIC, 2 / 3),
    BackendStatus("b" * 25, "10.0.0.6", "node2", False, "draining", Traffic()),
)


def a_service(name: str, network: str, **changes: Any) -> ServiceStatus:
    service = ServiceStatus(
        id="id-of-" + name,
        name=name,
        network=network,
        vni=4097,
        mode="vip",
        state="ok",
        ready=2,
        total=2,
        flows=3,
        frontends=(VIP,),
        backends=BACKENDS,
    )
    return msgspec.structs.replace(service, **changes)


STATUS = Status(
    version=STATUS_VERSION,
    problems=(),
    node=NodeStatus("n1", "node1", "192.0.2.11", 7265.0, "0.1.0", "20.10.24"),
    datapath=DatapathStatus("eth0", "native", "tunnel", 9, 16381, 1, 15461121),
    hub=HubStatus("hub", True, "192.0.2.11", 61.0, 99, 0.4),
    maps=(MapStatus("flows", 26214, 262144),),
    services=(
        a_service("echo", "demo"),
        a_service("echo", "ingress", frontends=(PORT,), state="degraded", ready=1),
        a_service("named", "demo", mode="dnsrr", state="dnsrr", frontends=(), backends=()),
        a_service("web-a", "demo"),
        a_service("web-b", "demo"),
    ),
    drops={"no_backend": 2, "too_big": 0},
    handbacks={},
    retries={"second_chance": 5},
    notes=(NoteStatus("warning", "echo", "a task has no docker_gwbridge endpoint"),),
    syncs=3,
    sync_errors=0,
)
FLOWS = [
    FlowStatus("tcp", "192.0.2.100:40000", "192.0.2.11:8080", "172.18.0.3:80", *names, 0.2)
    for names in (("echo", "ingress", "open"), ("web-a", "demo", "closed"))
]


class FakeAgent(socketserver.ThreadingUnixStreamServer):
    """Serves what `answers` holds; anything else is an error of its own."""

    daemon_threads = True
    answers: dict[str, bytes]


class _Handler(BaseHTTPRequestHandler):
    server: FakeAgent

    def do_GET(self) -> None:
        body = self.server.answers.get(self.path)
        self.send_response(200 if body is not None else 500)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def address_string(self) -> str:
        return "unix"


def a_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A socket's path has to be short; nothing of the machine's settings may come in."""
    for name in [name for name in os.environ if name.startswith("EBPFMESH_")]:
        monkeypatch.delenv(name)
    directory = Path(tempfile.mkdtemp(prefix="ebpfmesh-"))
    monkeypatch.setenv("EBPFMESH_SOCKET", str(directory / "agent.sock"))
    yield directory / "agent.sock"
    shutil.rmtree(directory)


def an_agent(place: Path) -> Iterator[FakeAgent]:
    server = FakeAgent(str(place), _Handler)
    server.answers = {
        "/status": msgspec.json.encode(STATUS),
        "/flows": msgspec.json.encode(FLOWS),
        "/healthz": b"ok\n",
    }
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def says(agent: FakeAgent, **changes: Any) -> None:
    agent.answers["/status"] = msgspec.json.encode(msgspec.structs.replace(STATUS, **changes))


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr
