# SPDX-License-Identifier: Apache-2.0
"""Small integers for frontends, pools and backends, as the maps know them. Pure, no I/O.

The maps outlive the agent, so after a restart it adopts the ids that it finds there. A released id
rests for a while before another key gets it: flows and counters may still mean the old one.
Times are seconds of any clock that does not go back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

from ebpfmesh.model import BackendKey, Frontend, FrontendKey, FrontendKind, PoolKey

QUARANTINE_S = 60.0

# "None" in every map; also what DIRECT frontends, which have no counters, carry.
NO_ID = 0

Key = TypeVar("Key", bound=Hashable)


class OutOfIds(Exception):
    """All ids of a kind are in use, or rest. The message names the setting that allows more."""


class IdConflict(ValueError):
    """An adopted id is out of bounds, or its id or key is known already with another partner."""


class Allocator(Generic[Key]):
    """Gives each key an id from 1 to `limit`; the same calls give the same ids.

    An id is in use, rests (released, its key remembered), is spare (its rest is over and its key
    forgotten), or has never been given.
    """

    def __init__(self, limit: int, setting: str, quarantine_s: float = QUARANTINE_S) -> None:
        """Give at most `limit` ids; `setting` names that limit in the configuration."""
        self._limit = limit
        self._setting = setting
        self._quarantine_s = quarantine_s
        self._ids: dict[Key, int] = {}
        self._resting: dict[Key, tuple[int, float]] = {}  # id and time of release, oldest first
        self._spare: deque[int] = deque()
        self._adopted: set[int] = set()
        self._next = 1

    @property
    def ids(self) -> Mapping[Key, int]:
        """The keys in use and their ids."""
        return MappingProxyType(self._ids)

    def adopt(self, key: Key, number: int) -> None:
        """Take over an id found in a map, before any is allocated. Raises IdConflict."""
        if not 1 <= number <= self._limit:
            bounds = f"1 to {self._limit} ({self._setting})"
            raise IdConflict(f"id {number} of {key} is not within {bounds}")
        if self._ids.get(key, number) != number:
            raise IdConflict(f"{key} has id {self._ids[key]}, and now {number} too")
        if number < self._next or (number in self._adopted and key not in self._ids):
            raise IdConflict(f"id {number} of {key} is already in use")
        self._ids[key] = number
        self._adopted.add(number)

    def allocate(self, key: Key, now_s: float) -> int:
        """Return the key's id, the one it had if that still rests, or another. Raises OutOfIds."""
        if key in self._ids:
            return self._ids[key]
        if key in self._resting:
            number, _ = self._resting.pop(key)
        else:
            number = self._unused(now_s)
        self._ids[key] = number
        return number

    def release(self, key: Key, now_s: float) -> None:
        """Let the key's id rest from now on. A key without an id is fine."""
        if (number := self._ids.pop(key, None)) is not None:
            self._resting[key] = (number, now_s)

    def rested(self, now_s: float) -> frozenset[Key]:
        """Return the released keys whose ids may go to others now."""
        return frozenset(
            k for k, (_, since_s) in self._resting.items() if self._over(since_s, now_s)
        )

    def forget(self, key: Key) -> int:
        """Make a rested key's id spare and return it; NO_ID if it has gone to another by now."""
        number, _ = self._resting.pop(key, (NO_ID, 0.0))
        if number != NO_ID:
            self._spare.append(number)
        return number

    def _unused(self, now_s: float) -> int:
        """Find an id for a new key: spare, then the longest rested, then never given."""
        if self._spare:
            return self._spare.popleft()
        for key, (number, since_s) in self._resting.items():
            if not self._over(since_s, now_s):
                break
            del self._resting[key]
            return number
        while self._next in self._adopted:
            self._next += 1
        if self._next > self._limit:
            raise OutOfIds(
                f"no id is left: {len(self._ids)} in use and {len(self._resting)} resting "
                f"of {self._limit}; raise {self._setting}"
            )
        self._next += 1
        return self._next - 1

    def _over(self, since_s: float, now_s: float) -> bool:
        return now_s - since_s >= self._quarantine_s


class Ids:
    """The ids of one node's maps."""

    def __init__(
        self,
        *,
        max_frontends: int,
        max_services: int,
        max_backends: int,
        quarantine_s: float = QUARANTINE_S,
    ) -> None:
        """Give ids below each map's size: id 0 takes an entry, too."""
        self.frontends = Allocator[FrontendKey](max_frontends - 1, "max_frontends", quarantine_s)
        self.pools = Allocator[PoolKey](max_services - 1, "max_services", quarantine_s)
        self.backends = Allocator[BackendKey](max_backends - 1, "max_backends", quarantine_s)

    def of_frontend(self, frontend: Frontend, now_s: float) -> int:
        """Return the frontend's id, allocated if need be; NO_ID for a DIRECT one."""
        if frontend.kind is FrontendKind.DIRECT:
            return NO_ID
        return self.frontends.allocate(frontend.key, now_s)
