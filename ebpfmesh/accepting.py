# SPDX-License-Identifier: Apache-2.0
"""Takes connections off a listening socket, so that whoever listens can count them first."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import Counter
from collections.abc import AsyncIterator

import structlog

_PAUSE_S = 0.2

log = structlog.get_logger(__name__)


def raise_limit_of_files() -> None:
    """Let this process have as many files and sockets open as the system grants it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def accepted(listening: socket.socket) -> AsyncIterator[tuple[socket.socket, str]]:
    """Yield connections and their peers' addresses, for ever.

    Where the process or the system has no room for one more it is tried again a little later.
    """
    listening.setblocking(False)
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, address = await loop.sock_accept(listening)
        except OSError as error:
            log.warning("connection.not_accepted", error=error.strerror)
            await asyncio.sleep(_PAUSE_S)
            continue
        yield connection, str(address[0])


class Room:
    """How many may be in at once: in all, and of one address."""

    def __init__(self, most: int, of_one: int) -> None:
        self._most = most
        self._of_one = of_one
        self._inside: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Take a place; False if there is none."""
        if self._inside.total() >= self._most or self._inside[address] >= self._of_one:
            return False
        self._inside[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Give the place back."""
        self._inside[address] -= 1
        if not self._inside[address]:
            del self._inside[address]
