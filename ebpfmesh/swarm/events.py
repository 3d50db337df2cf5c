# SPDX-License-Identifier: Apache-2.0
"""dockerd's events, as small values. Pure, no I/O."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ebpfmesh.model import BackendState
from ebpfmesh.swarm.api import decode
from ebpfmesh.swarm.local import TASK_ID
from ebpfmesh.typed import prepare

ENDING_SIGNALS = frozenset({"2", "3", "9", "15"})
"""INT, QUIT, KILL, TERM: a container that gets one of these is told to end."""


class Kind(StrEnum):
    """What an event is about."""

    CONTAINER = "container"
    NETWORK = "network"
    SERVICE = "service"
    NODE = "node"


WANTED_ACTIONS = (
    "create",
    "update",
    "remove",
    "start",
    "kill",
    "die",
    "stop",
    "destroy",
    "health_status",
    "connect",
    "disconnect",
    "pause",
    "unpause",
)
"""dockerd filters on its side: health checks alone make several `exec_*` events a second."""


class Resync(msgspec.Struct, frozen=True):
    """The stream begins, or began anew: events may have been missed, look at everything."""


class Event(msgspec.Struct, frozen=True):
    """One event. `scope` is `local` or `swarm`; `action` has no detail after its colon."""

    kind: Kind
    action: str
    id: str
    scope: str = "local"
    detail: str = ""
    attributes: dict[str, str] = {}
    time_ns: int = 0

    @property
    def task_id(self) -> str | None:
        """The Swarm task that a container event is about, if it is about one."""
        return self.attributes.get(TASK_ID) if self.kind is Kind.CONTAINER else None

    @property
    def task_state(self) -> BackendState | None:
        """What a container event says of its task for certain, at once; None for nothing."""
        if self.task_id is None:
            return None
        if self.action in ("die", "stop", "destroy"):
            return BackendState.GONE
        if self.action == "kill" and self.attributes.get("signal") in ENDING_SIGNALS:
            return BackendState.STOPPING
        unhealthy = self.action == "health_status" and self.detail == "unhealthy"
        return BackendState.DRAINING if unhealthy else None


class ActorDoc(msgspec.Struct, rename="pascal"):
    """The object of an event."""

    id: str = msgspec.field(name="ID", default="")
    attributes: dict[str, str] | None = None


class EventDoc(msgspec.Struct):
    """A line of `GET /events`."""

    type: str = msgspec.field(name="Type", default="")
    action: str = msgspec.field(name="Action", default="")
    actor: ActorDoc = msgspec.field(name="Actor", default_factory=ActorDoc)
    scope: str = "local"
    time_ns: int = msgspec.field(name="timeNano", default=0)


def event(line: object) -> Event | None:
    """Decode one event; None for a kind that tells us nothing."""
    doc = decode(line, EventDoc)
    if doc.type not in frozenset(Kind):
        return None
    action, _, detail = doc.action.partition(":")
    return Event(
        kind=Kind(doc.type),
        action=action,
        id=doc.actor.id,
        scope=doc.scope,
        detail=detail.strip(),
        attributes=doc.actor.attributes or {},
        time_ns=doc.time_ns,
    )


prepare(EventDoc)
