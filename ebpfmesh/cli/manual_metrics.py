# SPDX-License-Identifier: Apache-2.0
"""The page of metrics: ``python -m ebpfmesh.cli.manual_metrics > docs/metrics.md``. Pure."""

from __future__ import annotations

import sys

from ebpfmesh.config import Config
from ebpfmesh.metrics import families

_HEAD = f"""\
# Metrics

This page is made from `ebpfmesh/metrics.py` by `python -m ebpfmesh.cli.manual_metrics`.

Every agent serves `http://NODE:{Config().metrics_port}/metrics` for Prometheus, beside `/healthz`
(the agent runs) and `/readyz` (the maps hold what the Swarm wants). `metrics_address` says where it
listens: at the node's own address unless set otherwise. There is no password and nothing secret:
names of services, networks and links, addresses of tasks, counters. Alerts on them are in
[alerts.md](alerts.md), an example of a configuration and the rules in `deploy/prometheus/`, a
dashboard in `deploy/grafana/`: import `ebpfmesh.json`, and choose a Prometheus.

- `direction` is `to_backend` or `to_client`; `frontend` is a VIP (`10.0.1.2`) or a published port
  (`tcp:8080`); `backend` is the address of a task on `network`. Ids of containers and tasks, and
  clients, are no labels.
- A published port counts twice, by design: as *entry* on the node that a client asked, as *service*
  on the node of the task. Over all nodes the sum of the one is about the sum of the other; a node's
  own processes and containers enter at the socket or the veth.
- Services that are not programmed on a node have no series there.

"""

_TAIL = f"""
## What an agent's restart does to counters

What counts packets, bytes, flows and reasons is in maps in the kernel: it goes on while no agent
runs, through restarts, and through upgrades to other maps. It begins at 0 again only when the node
boots, after `ebpfmesh detach`, or for a service, frontend or backend that went and came back. What
the agent counts itself (`ebpfmesh_syncs_total`, `ebpfmesh_sync_errors_total`, the histograms)
begins at 0 with each start, as Prometheus expects of a process; `rate` and `increase` see to that.

## How many series there are

On one node, for each

| of | series |
| --- | --- |
| service on one of its networks | 7 |
| VIP | 5 |
| published port | 10 |
| backend | 5 |
| map, reason | 2, 1 |
| agent | about 50, NICs and histograms included |

Of more backends than `metrics_backends` ({Config().metrics_backends}) some have no series of their
own: those that the node has used come first, and `ebpfmesh_backends_left_out` says how many are
left out. Sums over them are in the series of their frontends. So 1,000 services, each with a VIP, a
published port and 10 tasks on two networks, are 56,000 series on a node that has containers on all
of these networks, and 31,000 with `metrics_backends = 0`.
"""


def metrics() -> str:
    """Return the page."""
    rows = [
        f"| `{family.name}` | {family.kind} | {', '.join(family.labels)} | {family.text} |\n"
        for family in families()
    ]
    heading = "| metric | kind | labels | |\n| --- | --- | --- | --- |\n"
    return _HEAD + heading + "".join(rows) + _TAIL


if __name__ == "__main__":
    sys.stdout.write(metrics())
