# SPDX-License-Identifier: Apache-2.0
"""The agent's two HTTP faces: its socket for the command line, a port for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from aiohttp import web

from ebpfmesh.accepting import accepted
from ebpfmesh.agent.answers import Answers
from ebpfmesh.agent.capture import Capturer, NothingToCapture, TooManyCaptures
from ebpfmesh.agent.onlooker import Onlooker
from ebpfmesh.agent.tracer import Listener, TooManyListeners, Tracer
from ebpfmesh.capturing import Capture
from ebpfmesh.datapath.errors import DatapathError
from ebpfmesh.explanation import BadQuestion, question
from ebpfmesh.page import HEADERS, document, live
from ebpfmesh.tracing import Told, watch

# Of what the network may ask. Prometheus and a browser have one or two connections each.
MOST_CONNECTIONS = 256
MOST_OF_ONE_ADDRESS = 32
LONGEST_S = 60.0

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LINES_TYPE = "application/x-ndjson"
PCAPNG_TYPE = "application/x-pcapng"
_SILENCE_S = 1.0


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

    async def trace(request: web.Request) -> web.StreamResponse:
        return await _trace(agent.tracer, request)

    async def capture(request: web.Request) -> web.StreamResponse:
        return await _capture(agent.capturer, request)

    return [
        web.get("/trace", trace),
        web.get("/capture", capture),
        web.get("/status", status),
        web.get("/flows", flows),
        web.get("/explain", explain),
        web.get("/changes", changes),
    ]


async def _trace(tracer: Tracer, request: web.Request) -> web.StreamResponse:
    """A line of JSON for each event, and an empty one whenever none has come for a while."""
    given = request.query
    try:
        asked = watch(
            given.get("service", ""),
            given.get("client", ""),
            given.getall("kind", []),
            given.getall("reason", []),
            every="every" in given,
            known=tracer.reasons,
        )
    except BadQuestion as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from error
    try:
        async with tracer.listen(asked) as listener:
            return await _tell(listener, request)
    except TooManyListeners as error:
        raise web.HTTPServiceUnavailable(text=f"{error}\n") from error
    except DatapathError as error:
        raise web.HTTPInternalServerError(text=f"{error}\n") from error


async def _tell(listener: Listener, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": LINES_TYPE})
    await response.prepare(request)
    told: list[Told] = []
    with contextlib.suppress(ConnectionError):  # whoever listens leaves when he likes
        while not listener.ended:
            await response.write(
                b"".join(msgspec.json.encode(one) + b"\n" for one in told) or b"\n"
            )
            told = await listener.take(_SILENCE_S)
    return response


async def _capture(capturer: Capturer, request: web.Request) -> web.StreamResponse:
    """A pcapng file, block by block."""
    given = request.query
    usual = Capture("")
    try:
        asked = Capture.asked(
            given.get("service", ""),
            given.get("count", str(usual.count)),
            given.get("seconds", str(usual.seconds)),
            given.get("snaplen", str(usual.snaplen)),
            xdp="xdp" in given,
        )
    except BadQuestion as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from error
    try:
        async with contextlib.aclosing(capturer.run(asked)) as blocks:
            return await _record(blocks, await anext(blocks), request)
    except TooManyCaptures as error:
        raise web.HTTPServiceUnavailable(text=f"{error}\n") from error
    except NothingToCapture as error:
        raise web.HTTPConflict(text=f"{error}\n") from error
    except (DatapathError, OSError) as error:
        raise web.HTTPInternalServerError(text=f"{error}\n") from error


async def _record(
    blocks: AsyncIterator[bytes], first: bytes, request: web.Request
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": PCAPNG_TYPE})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # whoever looks on leaves when he likes
        await response.write(first)
        async for each in blocks:
            await response.write(each)
    return response


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


class Face:
    """Answers whoever comes to an address: the network. What they can take up is bounded."""

    def __init__(self, runner: web.AppRunner, listening: socket.socket) -> None:
        self._runner = runner
        self._socket = listening
        self._accepting = asyncio.create_task(self._accept(), name="metrics-accept")

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._socket.getsockname()
        return host, port

    async def cleanup(self) -> None:
        """Stop listening, and end what is under way."""
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        self._socket.close()
        await self._runner.cleanup()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        server = self._runner.server
        assert server is not None
        async for connection, address in accepted(self._socket):
            if not _has_room(server, address):
                connection.close()
                continue
            with contextlib.suppress(OSError):  # gone again
                _, handler = await loop.connect_accepted_socket(server, connection)
                loop.call_later(LONGEST_S, _end, handler)


def _end(handler: web.RequestHandler) -> None:
    """Nobody stays for ever, and who has asked nothing whole yet gets nothing more."""
    if handler._current_request is None:
        handler.force_close()
    else:
        handler.close()  # after the answer


def _has_room(server: web.Server, address: str) -> bool:
    open_ = [handler.transport for handler in server.connections]
    peers = [one.get_extra_info("peername") for one in open_ if one is not None]
    of_it = sum(bool(peer) and peer[0] == address for peer in peers)
    return len(open_) < MOST_CONNECTIONS and of_it < MOST_OF_ONE_ADDRESS


async def serve_metrics(agent: Answers, host: str, port: int, *, page: bool) -> Face:
    """Answers Prometheus, and people if `page`. Raises `OSError` if it cannot have the address."""
    listening = socket.create_server((host, port))
    runner = await _serve(_health(agent) + _metrics(agent) + (_page(agent) if page else []))
    return Face(runner, listening)
