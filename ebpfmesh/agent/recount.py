# SPDX-License-Identifier: Apache-2.0
"""Counts the live connections of backends again, for schedulers that balance by them.

The programs count what begins and what ends by a packet; what ends without one would be counted
for ever.
"""

from __future__ import annotations

import time

from ebpfmesh.agent.reconcile import Reconciler
from ebpfmesh.config import Config
from ebpfmesh.datapath.flows import Patience, live_by_backend
from ebpfmesh.datapath.loader import Module
from ebpfmesh.model import Scheduler

RECOUNT_INTERVAL_S = 10.0

# An idle connection is no load for ever: so long is one of IPVS kept (its TCP timeout).
_IDLE_S = 900.0


def patience(config: Config) -> Patience:
    """Return how long this node's flows count."""
    established = min(config.tcp_timeout_s, _IDLE_S)
    return Patience(established, config.syn_timeout_s, config.udp_timeout_s)


def recount(reconciler: Reconciler, module: Module, patience: Patience) -> int:
    """Put the counts right; return how many backends have one. Blocks on system calls."""
    counted = _counted(reconciler)
    if counted:
        room = module.table("backends").max_entries
        live = live_by_backend(module, room, patience, time.monotonic_ns())
        for backend_id in counted:
            reconciler.maps.put_live(backend_id, int(live[backend_id]))
    return len(counted)


def _counted(reconciler: Reconciler) -> list[int]:
    """The ids of all backends whose connections matter to a frontend."""
    frontends = reconciler.actual.frontends.values()
    pools = {f.pool for f in frontends if f.scheduler is Scheduler.LEAST_CONN}
    if not pools:
        return []
    ids = reconciler.ids.backends.ids
    backends = reconciler.actual.backends.values()
    return sorted(ids[b.key] for b in backends if b.pool in pools and b.key in ids)
