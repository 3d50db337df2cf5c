# SPDX-License-Identifier: Apache-2.0
"""What has changed on this node, and why: a line in the log each, the last ones kept for a look."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import structlog

from ebpfmesh.changes import Change, Names, changes, told
from ebpfmesh.model import Desired, MeshState

log = structlog.get_logger(__name__)

KEPT = 200
_CAUSES = 4  # named in one line
_REMEMBERED = 100  # while nothing succeeds


class Journal:
    """Compares what the maps hold with what they held, whenever it is told to look."""

    def __init__(
        self,
        held: Desired,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`held`: what the maps hold now. `now`: seconds since 1970. `clock`: never goes back."""
        self._held = held
        self._names = Names()
        self._now = now
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._acted_on: dict[str, float] = {}
        self._kept: deque[Change] = deque(maxlen=KEPT)

    @property
    def recent(self) -> tuple[Change, ...]:
        """The last changes, the newest first."""
        return tuple(reversed(self._kept))

    # -- causes ---------------------------------------------------------------------------

    def because(self, cause: str) -> None:
        """Something has happened that may change something."""
        self._heard.setdefault(cause, self._clock())

    def begin(self) -> None:
        """All that was heard of till now is acted on from now on."""
        self._acted_on = dict([*self._acted_on.items(), *self._heard.items()][:_REMEMBERED])
        self._heard = {}

    def end(self) -> None:
        """It has been acted on."""
        self._acted_on = {}

    # -- changes --------------------------------------------------------------------------

    def look(self, holds: Desired, mesh: MeshState) -> None:
        """Say what is different from the last look."""
        before, self._held = self._held, holds
        if holds is before:
            return
        names = _names(mesh, self._names)
        since = min(self._acted_on.values(), default=None)
        took_s = None if since is None else self._clock() - since
        for change in changes(before, holds, names):
            self._say(told(change, self._now(), self._cause(), took_s))
        self._names = _names(mesh, Names())

    def hub(self, event: str, address: str) -> None:
        """Say that this agent follows another hub, or none."""
        self._say(Change(f"hub.{event}", {"hub": address}, self._now()))

    def _cause(self) -> str:
        first = sorted(self._acted_on, key=self._acted_on.__getitem__)
        more = f" and {len(first) - _CAUSES} more" if len(first) > _CAUSES else ""
        return ", ".join(first[:_CAUSES]) + more

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
