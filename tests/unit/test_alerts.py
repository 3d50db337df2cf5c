# SPDX-License-Identifier: Apache-2.0
"""Alerts ask for what agents tell, are explained, and have cases (which tests/alerts runs)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.promql import labels_in, labels_of, unknown_in

ROOT = Path(__file__).parents[2]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())[
        "groups"
    ]
    for rule in group["rules"]
]
CASES = yaml.safe_load((ROOT / "tests" / "alerts" / "cases.yml").read_text())["tests"]
GUIDE = (ROOT / "docs" / "alerts.md").read_text()

of_each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))


@of_each_rule
def test_an_alert_asks_for_what_agents_tell(rule: dict[str, Any]) -> None:
    assert list(unknown_in(rule["expr"])) == []
    for text in rule["annotations"].values():
        assert labels_in(text) <= labels_of(rule["expr"]) | {"value"}


@of_each_rule
def test_an_alert_is_explained(rule: dict[str, Any]) -> None:
    start = GUIDE.index(f"## `{rule['alert']}`\n")
    section = GUIDE[start : GUIDE.find("\n## ", start)]
    assert section.split("\n\n")[1].startswith(f"{rule['labels']['severity']}. **Meaning:**")
    assert "**What to do:**" in section


@of_each_rule
def test_an_alert_has_a_case_in_which_it_fires(rule: dict[str, Any]) -> None:
    cases = [case for test in CASES for case in test.get("alert_rule_test", ())]
    assert any(case["alertname"] == rule["alert"] and case.get("exp_alerts") for case in cases)


def test_nothing_else_is_explained() -> None:
    assert re.findall(r"^## `(\w+)`$", GUIDE, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_the_check_finds_what_no_agent_tells() -> None:
    wrong = 'sum by (flavour) (rate(ebpfmesh_drops_total{colour="red"}[5m])) > ebpfmesh_nothing'
    assert list(unknown_in(wrong)) == [
        "ebpfmesh_drops_total{colour}",
        "ebpfmesh_nothing",
        "by (flavour)",
    ]
