# SPDX-License-Identifier: Apache-2.0
"""Of dockerd it is asked only what docs/security.md lists, and nothing is told to it."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from ebpfmesh.swarm import SwarmClient
from tests.unit.test_swarm_client import CONTAINER, FakeDocker

ROOT = Path(__file__).parents[2]
ID = CONTAINER["Id"]


async def first_event(client: SwarmClient) -> None:
    async for _ in client.events():
        return


# Each method of the only user of dockerd's socket, called once.
CALLS: dict[str, Callable[[SwarmClient], Awaitable[object]]] = {
    "info": lambda client: client.info(),
    "tasks": lambda client: client.tasks(),
    "manager_snapshot": lambda client: client.manager_snapshot(),
    "complete": lambda client: client.complete([]),
    "task_container_ids": lambda client: client.task_container_ids(),
    "container": lambda client: client.container(ID),
    "gateways": lambda client: client.gateways(),
    "ingress_is_encrypted": lambda client: client.ingress_is_encrypted(),
    "events": first_event,
    "close": lambda _: asyncio.sleep(0),
}


def documented() -> set[str]:
    guide = (ROOT / "docs" / "security.md").read_text()
    return set(re.findall(r"^\| `([A-Z]+ /\S+)`", guide, re.MULTILINE))


def test_every_method_is_called_below() -> None:
    found = {name for name, _ in inspect.getmembers(SwarmClient, inspect.isfunction)}
    assert {name for name in found if not name.startswith("_")} == set(CALLS)


@pytest.mark.asyncio
async def test_the_list_of_calls_is_true(tmp_path: Path) -> None:
    asked: set[str] = set()
    docker = FakeDocker()

    async def answer(request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"].replace(ID, "ID")
        if path != "version":
            assert request.can_read_body is False
        asked.add(f"{request.method} /{path}")
        return await docker.answer(request)

    app = web.Application()
    app.router.add_route("*", r"/{version:v[\d.]+}/{path:.*}", answer)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.0)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "docker.sock")).start()
    try:
        async with SwarmClient(f"unix://{tmp_path / 'docker.sock'}") as client:
            for call in CALLS.values():
                await call(client)
    finally:
        await runner.cleanup()
    assert asked == documented()
    assert all(one.startswith("GET ") for one in asked)


def test_nobody_else_opens_dockers_socket() -> None:
    """What import-linter cannot see: a client of another kind, or the command."""
    users = set()
    for path in (ROOT / "ebpfmesh").rglob("*.py"):
        names = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
        }
        if "docker_socket" in names:
            users.add(str(path.relative_to(ROOT / "ebpfmesh")))
    users = {user for user in users if not user.startswith("lab/")}
    assert users == {"agent/service.py", "check/probe.py"}
