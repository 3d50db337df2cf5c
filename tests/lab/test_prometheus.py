# SPDX-License-Identifier: Apache-2.0
"""Debian's Prometheus, with the example and the rules of deploy/prometheus, in the lab."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ebpfmesh.lab.processes import wait_until
from ebpfmesh.metrics import families

from .traffic import CLIENT
from .world import World, on

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
HERE = "127.0.0.1:9090"
OF_THE_AGENT = ("ebpfmesh_syncs_total", "ebpfmesh_sync_errors_total")
"""It counts these itself, from 0 at each start."""
REQUESTS = 300


class Prometheus:
    """One that runs beside the client."""

    def __init__(self, world: World) -> None:
        self._world = world

    def get(self, what: str, **query: str) -> Any:
        words = [
            w for name, value in query.items() for w in ("--data-urlencode", f"{name}={value}")
        ]
        command = ["curl", "--silent", "--fail", "--get", *words, f"http://{HERE}/api/v1/{what}"]
        answer = self._world.lab.run("client", command, check=False)
        return json.loads(answer.stdout)["data"] if answer.returncode == 0 else {}

    def number(self, expression: str) -> float | None:
        found = self.get("query", query=expression).get("result", [])
        return float(found[0]["value"][1]) if found else None

    def wait(self, expression: str, wanted: float) -> None:
        def there() -> bool:
            return self.number(expression) == wanted

        assert wait_until(there, 60, 0.2), f"{expression} is {self.number(expression)}"


@contextmanager
def prometheus(world: World, home: Path) -> Iterator[Prometheus]:
    example = (DEPLOY / "prometheus.yml").read_text()
    for node in world.agents.nodes:
        assert f"- {world.address(node)}:9477\n" in example
    quick = example.replace("interval: 15s", "interval: 500ms")
    file = home / "prometheus.yml"
    file.write_text(quick.replace("- rules.yml", f"- {DEPLOY / 'rules.yml'}"))
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={home / 'data'}",
        f"--web.listen-address={HERE}",
        "--log.level=error",
    ]
    with world.lab.popen("client", command) as process:
        try:
            yield Prometheus(world)
        finally:
            process.terminate()


def test_it_sees_every_agent_and_no_counter_goes_back(world: World, tmp_path: Path) -> None:
    world.service("vote", replicas=2, publish=["8080:80"], options=on("node1", "node2"))
    world.wait_ready("vote", 2)
    counters = {family.name for family in families() if family.kind == "counter"}
    counters -= set(OF_THE_AGENT)
    connections = 'sum(ebpfmesh_service_connections_total{service="vote"})'
    with prometheus(world, tmp_path) as asked:
        asked.wait('sum(up{job="ebpfmesh"})', 3)
        asked.wait("sum(ebpfmesh_healthy)", 3)
        asked.wait('min(ebpfmesh_service_backends{service="vote", state="ready"})', 2)
        targets = world.every_node(8080)
        world.load.http(CLIENT, *targets, count=REQUESTS).assert_none_failed()
        asked.wait(connections, len(targets) * REQUESTS)
        for node in world.agents.nodes:
            world.agents.kill_and_start(node)
        asked.wait("sum(resets(ebpfmesh_uptime_seconds[10m]))", 3)
        asked.wait("sum(ebpfmesh_healthy)", 3)
        world.load.http(CLIENT, *targets, count=REQUESTS).assert_none_failed()
        asked.wait(connections, 2 * len(targets) * REQUESTS)
        for name in counters:
            assert asked.number(f"sum(resets({name}[10m]))") == 0, name
        rules = [rule for group in asked.get("rules")["groups"] for rule in group["rules"]]
        assert len(rules) > 10
        assert {rule["health"] for rule in rules} == {"ok"}
