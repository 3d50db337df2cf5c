# SPDX-License-Identifier: Apache-2.0
"""What has changed on this node, and why: a line in the log each, the last ones kept for a look."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import structlog
from msgspec.structs import replace

from ebpfmesh.agent.causes import Causes
from ebpfmesh.changes import Change, Names, changes, told
from ebpfmesh.desired import silent_nodes
from ebpfmesh.model import Desired, MeshState

log = structlog.get_logger(__name__)

KEPT = 200


class Journal:
    """Compares what the maps hold with what they held, whenever it is told to look."""

    def __init__(self, held: Desired, now: Callable[[], float] = time.time) -> None:
        """`held`: what the maps hold now. `now`: seconds since 1970."""
        self._held = held
        self._names = Names()
        self._now = now
        self._kept: deque[Change] = deque(maxlen=KEPT)

    @property
    def recent(self) -> tuple[Change, ...]:
        """The last changes, the newest first."""
        return tuple(reversed(self._kept))

    def look_at_maps(self, actual: Desired, mesh: MeshState, causes: Causes) -> None:
        """Say what is different from the last look."""
        self._look(replace(actual, attachments=self._held.attachments), mesh, causes)

    def look_at_links(self, actual: Desired, mesh: MeshState, causes: Causes) -> None:
        """Say where programs have come or gone since the last look."""
        self._look(replace(self._held, attachments=actual.attachments), mesh, causes)

    def _look(self, holds: Desired, mesh: MeshState, causes: Causes) -> None:
        before, self._held = self._held, holds
        names = _names(mesh, self._names)
        for change in changes(before, holds, names):
            self._say(told(change, self._now(), str(causes), causes.took_s))
        self._names = _names(mesh, Names())

    def hub(self, event: str, address: str) -> None:
        """Say that this agent follows another hub, or none."""
        self._say(Change(f"hub.{event}", {"hub": address}, self._now()))

    def link(self, name: str, *, up: bool) -> None:
        """Say that the link to the other nodes has lost its carrier, or has it again."""
        self._say(Change("link.up" if up else "link.down", {"link": name}, self._now()))

    def look_at_nodes(self, before: MeshState, after: MeshState) -> None:
        """Say which nodes no hub hears any more, and which are heard again."""
        if before.nodes is after.nodes:
            return
        was = {node.id: node for node in silent_nodes(before)}
        now = {node.id: node for node in silent_nodes(after)}
        for event, nodes in (
            ("node.unreachable", [now[key] for key in sorted(now.keys() - was.keys())]),
            ("node.reachable", [was[key] for key in sorted(was.keys() - now.keys())]),
        ):
            for node in nodes:
                fields = {"node": node.hostname, "vtep": node.vtep}
                self._say(Change(event, fields, self._now()))

    def _say(self, change: Change) -> None:
        self._kept.append(change)
        took = {} if change.took_s is None else {"took_ms": round(change.took_s * 1000, 1)}
        cause = {"cause": change.cause} if change.cause else {}
        log.info(change.event, **change.fields, **cause, **took)


def _names(mesh: MeshState, before: Names) -> Names:
    """Those of `before` are of what the Swarm does not know any more."""
    return Names(
        services={**before.services, **{s.id: s.name for s in mesh.services.values()}},
        networks={**before.networks, **{n.vni: n.name for n in mesh.networks.values()}},
        nodes={**before.nodes, **{n.vtep: n.hostname for n in mesh.nodes.values() if n.vtep}},
    )
