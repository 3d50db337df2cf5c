# SPDX-License-Identifier: Apache-2.0
"""The threads that system calls are made in: what takes long keeps only its own kind waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """One thread. Runs blocking calls, in the order in which they are asked for."""

    def __init__(self, name: str = "datapath") -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of the call; the event loop goes on meanwhile."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(function, *args, **kwargs))

    def close(self) -> None:
        """Waits for the call under way."""
        self._thread.shutdown()


@dataclass(frozen=True)
class Workers:
    """The agent's threads.

    The kernel has one lock for all links of all namespaces, and holds it while it takes a
    container's network down: a look at links, or a program put there, waits for a tenth of a
    second then. `maps` waits for nothing of the kind.
    """

    maps: Worker = field(default_factory=lambda: Worker("maps"))
    looks: Worker = field(default_factory=lambda: Worker("looks"))
    links: Worker = field(default_factory=lambda: Worker("links"))
    sockets: Worker = field(default_factory=lambda: Worker("sockets"))
    ways: Worker = field(default_factory=lambda: Worker("ways"))

    def close(self) -> None:
        """Waits for the calls under way."""
        for worker in (self.looks, self.links, self.sockets, self.ways, self.maps):
            worker.close()
