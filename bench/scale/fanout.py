# SPDX-License-Identifier: Apache-2.0
"""Hub, crowd and agent at work and at rest: how fast a change is everywhere, what they take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench import swarm
from bench.result import Figure
from bench.scale.child import Child, change, child
from bench.swarm import Size
from tests.unit.swarm_pki import WORKER, Authority

AGENT_TARGET_MB = 200.0
REST_S = 10.0
SETTLE_S = 1.0


def fan_out(docker: Path, home: Path, size: Size, rounds: int) -> Iterator[Figure]:
    """One hub, one whole agent, and as many agents without maps as there are other nodes."""
    authority = Authority(home / "pki", "swarm")
    manager = authority.issue(swarm.node_id(0))
    others = size.nodes
    workers = [authority.issue(swarm.node_id(1 + number), WORKER) for number in range(others)]
    count: dict[str, str | int] = {"agents": others}
    with child("fleet", "hub", f"--home={manager}", f"--docker={docker}") as hub:
        port = f"--port={hub.event('listening')['port']}"
        began = time.monotonic_ns()
        with (
            child("fleet", "crowd", *(f"--home={home}" for home in workers), port) as crowd,
            child(
                "fleet",
                "agent",
                f"--home={manager}",
                port,
                f"--docker={docker}",
                f"--size={msgspec.json.encode(size).decode()}",
            ) as agent,
        ):
            took = (crowd.event("all")["at_ns"] - began) / 1e9
            yield Figure("whole state to every agent, from their start", "s", (took,), count)
            agent.event("synced")
            time.sleep(SETTLE_S)
            yield from _changes(docker, size, hub, crowd, agent, rounds)
            yield from _at_rest(hub, agent)


def _changes(
    docker: Path, size: Size, hub: Child, crowd: Child, agent: Child, rounds: int
) -> Iterator[Figure]:
    """One task at a time is told to shut down."""
    reach, spread, spent = [], [], []
    first = size.large + rounds  # those before are told to by the stages
    for number in range(first, first + rounds):
        wanted = swarm.task_doc(number, swarm.service_of(number, size), size, wanted="shutdown")
        before, began = agent.cpu_s, time.monotonic_ns()
        change(docker, put=[wanted])
        # What comes late of earlier states is passed over; the hub may tell of the last one alone.
        while (arrived := crowd.event("all"))["at_ns"] < began:
            pass
        while (known := hub.event("state"))["version"] < arrived["version"]:
            pass
        reach.append((arrived["at_ns"] - began) / 1e6)
        spread.append((arrived["at_ns"] - known["at_ns"]) / 1e6)
        time.sleep(SETTLE_S)
        spent.append((agent.cpu_s - before) * 1e3)
    ways = {"dockerd to the last agent": reach, "hub to the last agent": spread}
    for way, times in ways.items():
        agents: dict[str, str | int] = {"from": way, "agents": size.nodes}
        yield Figure("one changed task is known", "ms", tuple(times), agents)
    params: dict[str, str | int] = {"meanwhile": f"{SETTLE_S:g} s at rest"}
    yield Figure("CPU time of the agent for it", "ms of CPU", tuple(spent), params)


def _at_rest(hub: Child, agent: Child) -> Iterator[Figure]:
    """Nothing changes."""
    before = hub.cpu_s, agent.cpu_s
    time.sleep(REST_S)
    after = hub.cpu_s, agent.cpu_s
    for who, process, old, new in zip(("hub", "agent"), (hub, agent), before, after, strict=True):
        params: dict[str, str | int] = {"process": who}
        yield Figure("CPU at rest", "% of one", (100 * (new - old) / REST_S,), dict(params))
        target = AGENT_TARGET_MB if who == "agent" else None
        yield Figure("resident memory", "MB", (process.resident_mb,), params, at_most=target)
