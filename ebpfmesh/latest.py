# SPDX-License-Identifier: Apache-2.0
"""A value with subscribers that care only for its newest state. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Holds one value; `changes` yields it now and after every change.

    A subscriber slower than the changes skips the ones in between: nothing queues up, so
    the slowest subscriber costs no memory.
    """

    def __init__(self, value: T) -> None:
        self._value = value
        self._changed = asyncio.Event()

    @property
    def value(self) -> T:
        """The newest value."""
        return self._value

    def set(self, value: T) -> None:
        """Replace the value and wake every subscriber."""
        self._value = value
        self._changed.set()
        self._changed = asyncio.Event()

    async def changes(self) -> AsyncIterator[T]:
        """Yield the value at once, then the newest one after each change."""
        while True:
            changed = self._changed
            yield self._value
            await changed.wait()
