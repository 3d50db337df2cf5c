# SPDX-License-Identifier: Apache-2.0
"""The rules, the example and what agents serve, judged by Prometheus itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ebpfmesh.metrics import ConvergenceTimer, SyncTimer, render
from tests.unit.test_metrics import a_service, a_status

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "prometheus"


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
