# SPDX-License-Identifier: Apache-2.0
"""What an agent waits for before its maps follow what it has saved."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from ebpfmesh.agent import service
from ebpfmesh.agent.keeper import Keeper
from ebpfmesh.agent.service import Agent
from ebpfmesh.config import Config
from ebpfmesh.hub.client import HubClient


class Kept:
    """A keeper that tells when it has begun, and a hub that may speak."""

    def __init__(self, *, serving: bool) -> None:
        self.begun, self.caught_up = asyncio.Event(), asyncio.Event()
        self.agent = Agent(Config())
        self.agent._serving = serving
        self.agent._hub = cast(HubClient, SimpleNamespace(caught_up=self.caught_up))
        self.agent._keeper = cast(Keeper, SimpleNamespace(run=self._run))

    async def _run(self) -> None:
        self.begun.set()


async def turns() -> None:
    """Whatever is ready to run has run."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_maps_that_serve_wait_for_a_hub() -> None:
    kept = Kept(serving=True)
    running = asyncio.create_task(kept.agent._keep())
    await turns()
    assert not kept.begun.is_set()
    kept.caught_up.set()
    await running
    assert kept.begun.is_set()


@pytest.mark.asyncio
async def test_but_not_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_HUB_FIRST_S", 0.01)
    kept = Kept(serving=True)
    await kept.agent._keep()
    assert kept.begun.is_set()


@pytest.mark.asyncio
async def test_empty_maps_wait_for_nobody() -> None:
    kept = Kept(serving=False)
    running = asyncio.create_task(kept.agent._keep())
    await turns()
    assert kept.begun.is_set()
    await running
