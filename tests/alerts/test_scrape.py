# SPDX-License-Identifier: Apache-2.0
"""Prometheus itself asks an agent, in a Swarm with names that nobody should choose."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from ebpfmesh.agent.answers import Answers
from ebpfmesh.agent.http import serve_metrics
from ebpfmesh.metrics import ConvergenceTimer, SyncTimer, render
from tests.unit.test_metrics import a_service, a_status

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
PATIENCE_S = 60.0
NAMES = ("web", 'a"b\\\n} 1\r\n# EOF', "\x1b[2J\x00\u202ec", "größe", "{{x}}", "<script>")


class Swarm:
    """As `Answers`, with a service of each name."""

    async def metrics(self) -> bytes:
        services = [a_service(name=name, network=name) for name in NAMES]
        return render(a_status(*services), SyncTimer(), ConvergenceTimer())


async def a_query(session: aiohttp.ClientSession, base: str, what: str, **given: str) -> Any:
    try:
        async with session.get(f"{base}/api/v1/{what}", params=given) as answer:
            return (await answer.json())["data"] if answer.status == 200 else {}
    except aiohttp.ClientConnectorError:
        return {}


@asynccontextmanager
async def prometheus(home: Path, target: str) -> AsyncIterator[str]:
    """The rules of deploy/prometheus, and one target; gives where to ask it."""
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(ROOT / "deploy" / "prometheus" / "rules.yml")],
        "scrape_configs": [
            {"job_name": "ebpfmesh", "static_configs": [{"targets": [target]}]},
        ],
    }
    file = home / "prometheus.yml"
    await asyncio.to_thread(file.write_text, json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={home / 'data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--log.level=error",
    )
    try:
        yield f"http://{LOOPBACK}:{port}"
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.asyncio
async def test_prometheus_takes_what_an_agent_serves(tmp_path: Path) -> None:
    face = await serve_metrics(cast(Answers, Swarm()), LOOPBACK, 0, page=False)
    try:
        host, port = face.address
        async with (
            prometheus(tmp_path, f"{host}:{port}") as base,
            aiohttp.ClientSession() as session,
            asyncio.timeout(PATIENCE_S),
        ):
            while not (found := await flows(session, base)):
                await asyncio.sleep(0.1)
            assert len(found) == len(NAMES)
            assert set(found.values()) == {"5"}
            assert all(name.isprintable() for name in found)
            while "unknown" in (health := await of_rules(session, base)):
                await asyncio.sleep(0.1)
            assert health == {"ok"}
    finally:
        await face.cleanup()


async def flows(session: aiohttp.ClientSession, base: str) -> dict[str, str]:
    data = await a_query(session, base, "query", query="ebpfmesh_flows")
    return {one["metric"]["service"]: one["value"][1] for one in data.get("result", [])}


async def of_rules(session: aiohttp.ClientSession, base: str) -> set[str]:
    groups = (await a_query(session, base, "rules"))["groups"]
    return {rule["health"] for group in groups for rule in group["rules"]}
