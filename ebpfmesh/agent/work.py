# SPDX-License-Identifier: Apache-2.0
"""What is done again whenever there is cause to. No I/O."""

from __future__ import annotations

import asyncio

from ebpfmesh.agent.causes import Causes


class Work:
    """One kind of it. Whatever gives cause while it is done makes it be done once more."""

    def __init__(self, name: str, coalesce_s: float = 0.0) -> None:
        """`coalesce_s`: what follows a cause within that time is done with it."""
        self.name = name
        self.causes = Causes()
        self._coalesce_s = coalesce_s
        self._trigger = asyncio.Event()

    def because(self, cause: str) -> None:
        """Do it, for this reason."""
        self.causes.because(cause)
        self._trigger.set()

    def again(self) -> None:
        """Do it again, for the reasons that it was done for."""
        self._trigger.set()

    def hand_on(self, to: Work) -> None:
        """What was done here gives other work to do."""
        self.causes.hand_on(to.causes)
        to.again()

    async def due(self) -> None:
        """Return when there is something to do."""
        await self._trigger.wait()
        await asyncio.sleep(self._coalesce_s)
        self._trigger.clear()
        self.causes.begin()
