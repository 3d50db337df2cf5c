# SPDX-License-Identifier: Apache-2.0
"""Looks at the agent for its page: at most once a second, however many people watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from ebpfmesh.changes import Change
from ebpfmesh.page import View
from ebpfmesh.rates import between
from ebpfmesh.status import Status

_LOOK_S = 1.0


class Onlooker:
    """Keeps the last look, to tell rates by."""

    def __init__(
        self,
        status: Callable[[], Awaitable[Status]],
        changes: Callable[[], tuple[Change, ...]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status = status
        self._changes = changes
        self._clock = clock
        self._looking = asyncio.Lock()
        self._looked_at = 0.0
        self._last: View | None = None

    async def look(self) -> View:
        """What there is to see; rates are those since the look before."""
        async with self._looking:
            now = self._clock()
            if self._last is None or now - self._looked_at >= _LOOK_S:
                status = await self._status()
                before = self._last.status if self._last else status
                self._last = View(status, between(before, status), self._changes())
                self._looked_at = now
            return self._last
