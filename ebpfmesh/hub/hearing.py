# SPDX-License-Identifier: Apache-2.0
"""A hub's ear: looks now and then who has fallen silent, and asks their kernels."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

from ebpfmesh.hub.silence import Patience, Silence

log = structlog.get_logger(__name__)

LOOK_S = 0.2
ASK_S = 0.6
"""For how long a kernel may think about it; less than a SYN takes to be sent again."""
IN_TOUCH_S = 5.0
"""The Swarm answers a hub whose state it has confirmed so lately."""

HearingSink = Callable[[Mapping[str, int], frozenset[str]], None]
"""Takes who is silent, by node id, and since when (ns since 1970); and who is there."""


async def answers(host: str, port: int, within_s: float) -> bool:
    """Whether a node's kernel answers a SYN, whatever it says."""
    try:
        async with asyncio.timeout(within_s):
            _, writer = await asyncio.open_connection(host, port)
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    except OSError:  # TimeoutError is one
        return False
    writer.transport.abort()
    return True


class Hearing:
    """Keeps a `Silence`, and passes on what it says whenever that is something else."""

    def __init__(
        self,
        own_id: str,
        *,
        age_s: Callable[[], float],
        is_up: Callable[[str], bool],
        port: Callable[[], int],
        on_hearing: HearingSink,
        patience: Patience | None = None,
    ) -> None:
        """`age_s`, `is_up`: see `HubServer` and `Silence.look`; `port`: what nodes are asked at."""
        self._age_s = age_s
        self._is_up = is_up
        self._port = port
        self._on_hearing = on_hearing
        self._silence = Silence(own_id, patience)
        self._addresses: dict[str, str] = {}
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._said: dict[str, int] = {}
        self._there: frozenset[str] = frozenset()

    def came(self, node_id: str, address: str) -> None:
        """A node's agent has connected from there."""
        self._addresses[node_id] = address
        self.heard(node_id)

    def heard(self, node_id: str) -> None:
        """A node's agent has said something."""
        self._silence.heard(node_id, time.monotonic())

    def left(self, node_id: str) -> None:
        """A node's agent has closed its last connection."""
        self._silence.left(node_id)

    async def run(self) -> None:
        """Looks until cancelled."""
        try:
            while True:
                self._look()
                await asyncio.sleep(LOOK_S)
        finally:
            for task in self._asked.values():
                task.cancel()

    def _look(self) -> None:
        now_s = time.monotonic()
        for node_id in self._silence.suspects(now_s):
            if node_id not in self._asked:
                self._asked[node_id] = asyncio.create_task(self._ask(node_id), name="hub-ask")
        in_touch = self._age_s() <= IN_TOUCH_S
        silent = self._silence.look(now_s, in_touch=in_touch, is_up=self._is_up)
        there = self._silence.there(now_s)
        if silent.keys() != self._said.keys() or there != self._there:
            self._say(silent, now_s)
            self._there = there
            self._on_hearing(self._said, there)

    async def _ask(self, node_id: str) -> None:
        try:
            if await answers(self._addresses[node_id], self._port(), ASK_S):
                self._silence.answered(node_id, time.monotonic())
        finally:
            del self._asked[node_id]

    def _say(self, silent: Mapping[str, float], now_s: float) -> None:
        """One line for each that is silent now, or no longer."""
        now_ns = time.time_ns()
        for node_id in self._said.keys() - silent.keys():
            log.info("hub.node_heard", node_id=node_id)
        for node_id in silent.keys() - self._said.keys():
            for_s = now_s - silent[node_id]
            log.warning("hub.node_silent", node_id=node_id, for_s=round(for_s, 2))
        self._said = {
            node_id: self._said.get(node_id) or now_ns - int((now_s - heard_s) * 1e9)
            for node_id, heard_s in silent.items()
        }
