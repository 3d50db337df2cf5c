# SPDX-License-Identifier: Apache-2.0
"""The agent's two HTTP faces: its socket for the command line, a port for Prometheus."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
from aiohttp import web

from ebpfmesh.agent.answers import Answers
from ebpfmesh.agent.onlooker import Onlooker
from ebpfmesh.explanation import BadQuestion, question
from ebpfmesh.page import HEADERS, document, live

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _health(agent: Answers) -> list[web.RouteDef]:
    async def healthz(_: web.Request) -> web.StreamResponse:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.StreamResponse:
        ready = agent.is_ready()
        return web.Response(text="ready\n" if ready else "not yet\n", status=200 if ready else 503)

    return [web.get("/healthz", healthz), web.get("/readyz", readyz)]


def _admin(agent: Answers) -> list[web.RouteDef]:
    async def status(_: web.Request) -> web.StreamResponse:
        return _json(await agent.status())

    async def flows(_: web.Request) -> web.StreamResponse:
        return _json(await agent.flows())

    async def changes(_: web.Request) -> web.StreamResponse:
        return _json(agent.changes())

    async def explain(request: web.Request) -> web.StreamResponse:
        given = [request.query.get(name, "") for name in ("client", "frontend", "network")]
        try:
            asked = question(*given)
        except BadQuestion as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        return _json(await agent.explain(asked))

    return [
        web.get("/status", status),
        web.get("/flows", flows),
        web.get("/explain", explain),
        web.get("/changes", changes),
    ]


def _metrics(agent: Answers) -> list[web.RouteDef]:
    async def metrics(_: web.Request) -> web.StreamResponse:
        return web.Response(body=await agent.metrics(), headers={"Content-Type": METRICS_TYPE})

    return [web.get("/metrics", metrics)]


def _page(agent: Answers) -> list[web.RouteDef]:
    onlooker = Onlooker(agent.status, agent.changes)

    async def page(_: web.Request) -> web.StreamResponse:
        view = await onlooker.look()
        return _html(document(f"{view.status.node.hostname}: ebpfmesh", live(view)))

    async def again(_: web.Request) -> web.StreamResponse:
        return _html(live(await onlooker.look()))

    return [web.get("/", page), web.get("/live", again)]


def _html(markup: str) -> web.Response:
    return web.Response(text=markup, content_type="text/html", headers=HEADERS)


async def _serve(routes: list[web.RouteDef]) -> web.AppRunner:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    return runner


def _private_socket(path: Path) -> socket.socket:
    """A listening socket at `path` that is its owner's alone from the first moment on."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(mask)
    return listening


async def serve_socket(agent: Answers, path: Path) -> web.AppRunner:
    """Answers the command line. Raises `OSError` if there can be no socket at `path`."""
    listening = _private_socket(path)
    runner = await _serve(_health(agent) + _admin(agent) + _metrics(agent))
    await web.SockSite(runner, listening).start()
    return runner


async def serve_metrics(agent: Answers, host: str, port: int, *, page: bool) -> web.AppRunner:
    """Answers Prometheus, and people if `page`. Raises `OSError` if it cannot have the address."""
    runner = await _serve(_health(agent) + _metrics(agent) + (_page(agent) if page else []))
    await web.TCPSite(runner, host, port).start()
    return runner
