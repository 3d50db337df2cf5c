# SPDX-License-Identifier: Apache-2.0
"""The rules, the example and what agents serve, judged by Prometheus itself."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from ebpfmesh.metrics import ConvergenceTimer, SyncTimer, render
from tests.unit.test_metrics import a_service, a_status

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "prometheus"
INTERVAL = "$__rate_interval"


def promtool(*arguments: str, stdin: bytes = b"") -> None:
    run = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, check=False)
    assert run.returncode == 0, (run.stdout + run.stderr).decode()


def test_the_rules_are_valid() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(DEPLOY / "rules.yml"))


def test_the_example_is_valid() -> None:
    promtool("check", "config", "--lint=all", "--lint-fatal", str(DEPLOY / "prometheus.yml"))


def test_the_rules_fire_when_they_should() -> None:
    promtool("test", "rules", str(Path(__file__).with_name("cases.yml")))


def test_what_agents_serve_is_as_prometheus_wants_it() -> None:
    names = ("web", 'a"b\\\n# HELP x\r}', "\x1b[2J\x00\u202e", "größe")
    status = a_status(*(a_service(name=name, network=name) for name in names))
    promtool("check", "metrics", stdin=render(status, SyncTimer(), ConvergenceTimer()))


def test_the_dashboard_asks_in_promql(tmp_path: Path) -> None:
    """Each expression as a rule, with what Grafana would put in place of its variables."""
    panels = json.loads((ROOT / "deploy" / "grafana" / "ebpfmesh.json").read_text())["panels"]
    asked = [one["expr"] for panel in panels for one in panel.get("targets", ())]
    rules = [
        {
            "record": f"asked:{number}",
            "expr": re.sub(r"\$[a-z]+", ".*", expr.replace(INTERVAL, "1m")),
        }
        for number, expr in enumerate(asked)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "asked", "rules": rules}]}))
    promtool("check", "rules", str(file))
