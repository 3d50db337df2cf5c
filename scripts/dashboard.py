# SPDX-License-Identifier: Apache-2.0
"""The dashboard for Grafana: ``python scripts/dashboard.py > deploy/grafana/ebpfmesh.json``.

A row for the cluster, one for the chosen services, one for the chosen nodes; 24 columns each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
STAT_HEIGHT = 4
GRAPH_HEIGHT = 8

OF_SERVICE = 'service=~"$service", network=~"$network"'
OF_NODE = 'instance=~"$instance"'


@dataclass(frozen=True)
class Panel:
    """What is drawn: legend -> expression. `unit` is one of Grafana's; `description` is a hint."""

    title: str
    series: dict[str, str]
    unit: str = "short"
    description: str = ""
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    red_from: float | None = None
    red_below: float | None = None

    @property
    def height(self) -> int:
        """Lines of the grid."""
        return STAT_HEIGHT if self.kind == "stat" else GRAPH_HEIGHT


def rate(metric: str, matchers: str = "", by: str = "") -> str:
    """Return the sum per second of a counter."""
    inside = f"{{{matchers}}}" if matchers else ""
    of = f" by ({by})" if by else ""
    return f"sum{of} (rate({metric}{inside}[$__rate_interval]))"


def quantile(share: float, histogram: str, matchers: str = "", by: str = "le") -> str:
    """Return what `share` of a histogram's observations stay below."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', matchers, by)})"


def stat(title: str, expression: str, **more: Any) -> Panel:
    """Return a panel with one number."""
    return Panel(title, {"": expression}, kind="stat", width=4, **more)


CLUSTER = (
    stat("Agents that answer", 'sum(up{job="ebpfmesh"})'),
    stat("Agents down", 'count(up{job="ebpfmesh"} == 0) or vector(0)', red_from=1),
    stat("Nodes with a problem", "count(ebpfmesh_healthy == 0) or vector(0)", red_from=1),
    stat(
        "Services without backends",
        "count(max by (service, network) "
        '(ebpfmesh_service_backends{state="ready"}) == 0) or vector(0)',
        red_from=1,
    ),
    stat("Flows", "sum(ebpfmesh_flows)"),
    stat(
        "Changes reach all nodes in (90 %)",
        quantile(0.9, "ebpfmesh_convergence_seconds"),
        unit="s",
        red_from=1,
    ),
    Panel(
        "New flows",
        {
            "{{service}} ({{network}})": rate(
                "ebpfmesh_service_connections_total", by="service, network"
            )
        },
        "cps",
    ),
    Panel(
        "Traffic",
        {"{{direction}}": f"8 * {rate('ebpfmesh_service_bytes_total', by='direction')}"},
        "bps",
    ),
    Panel(
        "Dropped",
        {"{{reason}}": f"{rate('ebpfmesh_drops_total', by='reason')} > 0"},
        "pps",
        "What each reason means: docs/operate.md",
        stacked=True,
    ),
    Panel(
        "From a change to the maps",
        {
            "50 %": quantile(0.5, "ebpfmesh_convergence_seconds"),
            "90 %": quantile(0.9, "ebpfmesh_convergence_seconds"),
            "99 %": quantile(0.99, "ebpfmesh_convergence_seconds"),
        },
        "s",
    ),
    Panel(
        "Backends by state",
        {
            "{{state}}": "sum by (state) "
            "(max by (service, network, state) (ebpfmesh_service_backends))"
        },
        stacked=True,
    ),
    Panel(
        "Backends that are avoided",
        {
            "{{service}} ({{network}})": "max by (service, network) "
            "(ebpfmesh_service_backends_avoided) > 0"
        },
        description="Ready, but they have left connections unanswered.",
    ),
    Panel("Agents by version", {"{{version}}": "count by (version) (ebpfmesh_build_info)"}),
)

SERVICE = (
    Panel(
        "New flows by frontend",
        {
            "{{service}} {{frontend}}": rate(
                "ebpfmesh_service_connections_total", OF_SERVICE, "service, frontend"
            )
        },
        "cps",
    ),
    Panel(
        "Bytes",
        {
            "{{service}} {{direction}}": "8 * "
            + rate("ebpfmesh_service_bytes_total", OF_SERVICE, "service, direction")
        },
        "bps",
    ),
    Panel(
        "Packets",
        {
            "{{service}} {{direction}}": rate(
                "ebpfmesh_service_packets_total", OF_SERVICE, "service, direction"
            )
        },
        "pps",
    ),
    Panel(
        "Backends by state, as most nodes see it",
        {
            "{{service}} {{state}}": "quantile by (service, network, state) "
            f"(0.5, ebpfmesh_service_backends{{{OF_SERVICE}}})"
        },
        stacked=True,
    ),
    Panel(
        "New flows by backend, the 20 busiest",
        {
            "{{service}} {{backend}}": "topk(20, "
            + rate("ebpfmesh_backend_connections_total", OF_SERVICE, "service, backend")
            + ")"
        },
        "cps",
    ),
    Panel(
        "Where connections to published ports come in",
        {
            "{{service}} {{frontend}} at {{instance}}": rate(
                "ebpfmesh_entry_connections_total", OF_SERVICE, "service, frontend, instance"
            )
        },
        "cps",
    ),
    Panel(
        "Flows by node",
        {
            "{{service}} on {{instance}}": "sum by (service, instance) "
            f"(ebpfmesh_flows{{{OF_SERVICE}}})"
        },
    ),
    Panel(
        "Bytes by backend, the 20 busiest",
        {
            "{{service}} {{backend}}": "8 * topk(20, "
            + rate("ebpfmesh_backend_bytes_total", OF_SERVICE, "service, backend")
            + ")"
        },
        "bps",
    ),
    Panel(
        "Packets by backend, the 20 busiest",
        {
            "{{service}} {{backend}}": "topk(20, "
            + rate("ebpfmesh_backend_packets_total", OF_SERVICE, "service, backend")
            + ")"
        },
        "pps",
    ),
)

NODE = (
    stat("Follows a hub", f"min(ebpfmesh_hub_connected{{{OF_NODE}}})", red_below=1),
    stat(
        "Age of the Swarm's state",
        f"max(ebpfmesh_hub_state_age_seconds{{{OF_NODE}}})",
        unit="s",
        red_from=15,
    ),
    stat("Up for", f"min(ebpfmesh_uptime_seconds{{{OF_NODE}}})", unit="s"),
    stat("Places with programs", f"sum(ebpfmesh_programs{{{OF_NODE}}})"),
    stat("Giving back", f"sum(ebpfmesh_giving_back{{{OF_NODE}}})", red_from=1),
    stat(
        "Backends without series",
        f"sum(ebpfmesh_backends_left_out{{{OF_NODE}}})",
        description="Raise metrics_backends if they matter.",
    ),
    Panel(
        "Traffic",
        {
            "{{instance}} {{direction}}": "8 * "
            + rate("ebpfmesh_service_bytes_total", OF_NODE, "instance, direction")
        },
        "bps",
    ),
    Panel(
        "Came in for published ports",
        {"{{instance}}": rate("ebpfmesh_entry_packets_total", OF_NODE, "instance")},
        "pps",
    ),
    Panel(
        "How full the maps are",
        {
            "{{instance}} {{map}}": f"ebpfmesh_map_entries{{{OF_NODE}}} "
            f"/ ebpfmesh_map_max_entries{{{OF_NODE}}}"
        },
        "percentunit",
        "Maps of flows that are half-open or closed are meant to fill up.",
    ),
    Panel(
        "Dropped",
        {
            "{{instance}} {{reason}}": rate("ebpfmesh_drops_total", OF_NODE, "instance, reason")
            + " > 0"
        },
        "pps",
    ),
    Panel(
        "Left to the kernel",
        {
            "{{instance}} {{reason}}": rate("ebpfmesh_handbacks_total", OF_NODE, "instance, reason")
            + " > 0"
        },
        "pps",
        "no_frontend is all other traffic of the node.",
    ),
    Panel(
        "Given to another backend",
        {"{{instance}} {{reason}}": rate("ebpfmesh_retries_total", OF_NODE, "instance, reason")},
        "cps",
    ),
    Panel(
        "From a change to the maps (90 %)",
        {"{{instance}}": quantile(0.9, "ebpfmesh_convergence_seconds", OF_NODE, "instance, le")},
        "s",
    ),
    Panel(
        "Bringing maps and programs in step (90 %)",
        {"{{instance}}": quantile(0.9, "ebpfmesh_sync_duration_seconds", OF_NODE, "instance, le")},
        "s",
    ),
    Panel(
        "That failed",
        {"{{instance}}": f"increase(ebpfmesh_sync_errors_total{{{OF_NODE}}}[$__rate_interval])"},
    ),
)

ROWS = {"Cluster": CLUSTER, "Service: $service": SERVICE, "Node: $instance": NODE}

VARIABLES = {
    "service": "label_values(ebpfmesh_service_backends, service)",
    "network": 'label_values(ebpfmesh_service_backends{service=~"$service"}, network)',
    "instance": "label_values(ebpfmesh_build_info, instance)",
}


def dashboard() -> dict[str, Any]:
    """Return it as Grafana takes it by import or provisioning."""
    return {
        "uid": "ebpfmesh",
        "title": "ebpfmesh",
        "description": "What ebpfmesh balances in a Docker Swarm.",
        "tags": ["ebpfmesh", "docker", "load-balancer"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "15s",
        "templating": {"list": [_source(), *(_variable(*one) for one in VARIABLES.items())]},
        "panels": list(_panels()),
    }


def _source() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # whenever the time range changes
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "sort": 1,
    }


def _panels() -> Iterator[dict[str, Any]]:
    """Place one beside the other, row by row."""
    number = line = 0
    for title, panels in ROWS.items():
        number += 1
        yield {"id": number, "type": "row", "title": title, "gridPos": _place(0, line, COLUMNS, 1)}
        line += 1
        column = 0
        for panel in panels:
            if column + panel.width > COLUMNS:
                column, line = 0, line + GRAPH_HEIGHT
            number += 1
            place = _place(column, line, panel.width, panel.height)
            yield _panel(panel) | {"id": number, "gridPos": place}
            column += panel.width
            if panel.kind == "stat" and column == COLUMNS:
                column, line = 0, line + STAT_HEIGHT
        line += GRAPH_HEIGHT if column else 0


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel) -> dict[str, Any]:
    made = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "expr": expr,
                "legendFormat": legend,
                "datasource": DATASOURCE,
            }
            for n, (legend, expr) in enumerate(panel.series.items())
        ],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
    }
    if panel.kind == "timeseries":
        made["options"] = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return made


def _field(panel: Panel) -> dict[str, Any]:
    made: dict[str, Any] = {"unit": panel.unit, "min": 0, "thresholds": _thresholds(panel)}
    if panel.kind == "timeseries":
        filling = {"fillOpacity": 40, "stacking": {"mode": "normal"}} if panel.stacked else {}
        made["custom"] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never"} | filling
    return made


def _thresholds(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_from is not None:
        steps.append({"color": "red", "value": panel.red_from})
    if panel.red_below is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": panel.red_below}]
    return {"mode": "absolute", "steps": steps}


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
