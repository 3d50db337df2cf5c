# SPDX-License-Identifier: Apache-2.0
"""Keeps the Swarm's last state on disk, whatever becomes of the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from ebpfmesh.hub.errors import HubError
from ebpfmesh.latest import Latest
from ebpfmesh.model import MeshState

log = structlog.get_logger(__name__)

GAP_S = 1.0
"""At most one write in so much time."""
RETRY_S = 5.0


class Store(Protocol):
    """The part of `ebpfmesh.hub.store.StateStore` that is needed."""

    def save(self, swarm_id: str, state: MeshState) -> None:
        """Writes it down as a whole. Raises `StoreError`."""
        ...


class Saver:
    """Writes the newest state whenever it is another one, and tries again until it could.

    `error` says why the disk does not have it; it is empty otherwise.
    """

    def __init__(
        self,
        store: Store,
        swarm_id: Callable[[], str],
        *,
        gap_s: float = GAP_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self.error = ""
        self._store = store
        self._swarm_id = swarm_id
        self._gap_s = gap_s
        self._retry_s = retry_s

    async def run(self, states: Latest[MeshState]) -> None:
        """Until cancelled. One line when it fails, one when it succeeds again."""
        saved = None
        async for _ in states.changes():
            while (state := states.value).version and state is not saved:
                done = await self._save(state)
                saved = state if done else saved
                await asyncio.sleep(self._gap_s if done else self._retry_s)

    async def _save(self, state: MeshState) -> bool:
        try:
            await asyncio.to_thread(self._store.save, self._swarm_id(), state)
        except HubError as error:
            if str(error) != self.error:
                self.error = str(error)
                log.warning("state.not_saved", error=self.error)
            return False
        if self.error:
            self.error = ""
            log.info("state.saved_again", state=state.version)
        return True
