# SPDX-License-Identifier: Apache-2.0
"""Why something is done: what has been heard of, until it has been acted on. Pure, no I/O."""

from __future__ import annotations

import time
from collections.abc import Callable

_NAMED = 4  # in one line
_REMEMBERED = 100  # while nothing succeeds


class Causes:
    """Those of one kind of work, which is done again and again. `clock` never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._acted_on: dict[str, float] = {}

    def because(self, cause: str) -> None:
        """Something has happened that may change something."""
        self._heard.setdefault(cause, self._clock())

    def begin(self) -> None:
        """All that was heard of till now is acted on from now on."""
        self._acted_on = dict([*self._acted_on.items(), *self._heard.items()][:_REMEMBERED])
        self._heard = {}

    def end(self) -> None:
        """It has been acted on."""
        self._acted_on = {}

    def hand_on(self, to: Causes) -> None:
        """What is acted on here has become news for other work, as old as it was."""
        to._heard = {**self._acted_on, **to._heard}

    @property
    def took_s(self) -> float | None:
        """Since the oldest of those that are acted on was heard of; None without any."""
        since = min(self._acted_on.values(), default=None)
        return None if since is None else self._clock() - since

    def __str__(self) -> str:
        """Those that are acted on, the oldest first."""
        first = sorted(self._acted_on, key=self._acted_on.__getitem__)
        more = f" and {len(first) - _NAMED} more" if len(first) > _NAMED else ""
        return ", ".join(first[:_NAMED]) + more
