# SPDX-License-Identifier: Apache-2.0
"""The dashboard shows only what agents tell, and nothing covers anything."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from scripts.dashboard import COLUMNS, VARIABLES, dashboard
from tests.unit.promql import groups_in, labels_in, labels_of, unknown_in

FILE = Path(__file__).parents[2] / "deploy" / "grafana" / "ebpfmesh.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
TARGETS = [(panel["title"], one) for panel in PANELS for one in panel.get("targets", ())]


def test_it_is_up_to_date() -> None:
    """If not: python scripts/dashboard.py > deploy/grafana/ebpfmesh.json."""
    assert dashboard() == DASHBOARD


def test_there_is_a_view_of_cluster_services_and_nodes() -> None:
    rows = [panel["title"] for panel in PANELS if panel["type"] == "row"]
    assert rows == ["Cluster", "Service: $service", "Node: $instance"]


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=lambda one: str(one)[:40])
def test_a_panel_asks_for_what_agents_tell(title: str, target: dict[str, Any]) -> None:
    expression, legend = target["expr"], labels_in(target["legendFormat"])
    assert list(unknown_in(expression)) == []
    groups = groups_in(expression)
    assert legend <= (labels_of(expression) if groups is None else groups)
    variables = set(re.findall(r"\$([a-z]\w+)", expression))
    assert variables <= set(VARIABLES)


def test_variables_come_from_what_agents_tell() -> None:
    for name, query in VARIABLES.items():
        assert list(unknown_in(query)) == []
        assert name in labels_of(query)


def test_no_panel_covers_another() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        x, y, w, h = (panel["gridPos"][key] for key in "xywh")
        cells = set(itertools.product(range(x, x + w), range(y, y + h)))
        assert x + w <= COLUMNS
        assert not cells & taken
        taken |= cells
