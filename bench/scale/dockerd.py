# SPDX-License-Identifier: Apache-2.0
"""A dockerd that answers for a made-up Swarm. It is a process of its own: its work is not ours."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from bench import swarm

_EVENT = {"Type": "service", "Action": "update", "Actor": {"ID": swarm.service_id(0)}}
_INFO = {
    "Name": "node-0",
    "ServerVersion": "28.5.2",
    "DockerRootDir": "/var/lib/docker",
    "Swarm": {
        "NodeID": swarm.node_id(0),
        "NodeAddr": swarm.vtep(0),
        "LocalNodeState": "active",
        "ControlAvailable": True,
        "RemoteManagers": [{"NodeID": swarm.node_id(0), "Addr": f"{swarm.vtep(0)}:2377"}],
        "Cluster": {"ID": "cluster", "DataPathPort": 4789},
    },
}


class Change(msgspec.Struct):
    """Tasks that go, tasks that come or change."""

    gone: list[str] = []
    put: list[dict[str, Any]] = []


class Dockerd:
    """Answers are made once, and at each change."""

    def __init__(self, size: swarm.Size) -> None:
        self._documents = swarm.documents(size)
        self._answers = {path: msgspec.json.encode(d) for path, d in self._documents.items()}
        self._answers["/info"] = msgspec.json.encode(_INFO)
        self._answers["/version"] = b'{"ApiVersion": "1.41"}'
        self._answers["/containers/json"] = b"[]"
        self._changed = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """A GET."""
        path = "/" + request.match_info["path"]
        if path == "/events":
            return await self._events(request)
        if path not in self._answers:
            return web.json_response({"message": f"No such thing: {path}"}, status=404)
        return web.Response(body=self._answers[path], content_type="application/json")

    async def change(self, request: web.Request) -> web.StreamResponse:
        """Another Swarm from now on; whoever follows the events is told."""
        change = msgspec.json.decode(await request.read(), type=Change)
        touched = {*change.gone, *(doc["ID"] for doc in change.put)}
        kept = [doc for doc in self._documents["/tasks"] if doc["ID"] not in touched]
        self._documents["/tasks"] = kept + change.put
        self._answers["/tasks"] = msgspec.json.encode(self._documents["/tasks"])
        self._changed.set()
        self._changed = asyncio.Event()
        return web.Response()

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await self._changed.wait()
            await response.write(msgspec.json.encode({**_EVENT, "scope": "swarm"}) + b"\n")


async def serve(path: Path, size: swarm.Size) -> None:
    """Answers on a unix socket until its standard input ends."""
    dockerd = Dockerd(size)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_get(r"/{version:v[\d.]+}/{path:.*}", dockerd.answer)
    app.router.add_get("/{path:.*}", dockerd.answer)
    app.router.add_post("/change", dockerd.change)
    runner = web.AppRunner(app, shutdown_timeout=0.0)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Run it."""
    options = argparse.ArgumentParser()
    options.add_argument("socket", type=Path)
    options.add_argument("size")
    given = options.parse_args()
    asyncio.run(serve(given.socket, msgspec.json.decode(given.size, type=swarm.Size)))


if __name__ == "__main__":
    main()
