# SPDX-License-Identifier: Apache-2.0
"""Which nodes have fallen silent, as one hub hears them. Pure, no I/O.

A node is silent if nothing has come from it for a while although its agent has not closed its
connection: who ends, or is killed, does so, and its node lives. Nor is a node silent whose kernel
answers (`answered`). A hub that is cut off itself hears nobody: it says nothing new while most are
silent at once, or while the Swarm does not answer it.

Times are in seconds, by a clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec


class Patience(msgspec.Struct, frozen=True):
    """How long a node may be silent, and what that is measured by.

    A node whose agent has said nothing for `ask_after_s` is asked whether it is there, and silent
    after `silence_s`, if at least half of all were heard within `recent_s`. A silence of
    less than `pause_s` was a pause: the node gets twice the time, up to `longest_s`, until there
    was none for `calm_s`. Of a node that the Swarm hears for `trust_s`, though the hub does not,
    the Swarm is believed. `stall_s` without a look: the hub itself has paused.

    A node that was heard within `there_s` is there, though it may run no agent any more; one that
    has not answered for `forget_s` since its agent left is forgotten.
    """

    ask_after_s: float = 1.2
    silence_s: float = 2.0
    recent_s: float = 1.0
    pause_s: float = 10.0
    longest_s: float = 8.0
    calm_s: float = 60.0
    trust_s: float = 60.0
    stall_s: float = 0.5
    there_s: float = 4.0
    forget_s: float = 600.0


@dataclass
class _Node:
    """`open`: it has a connection that it has not closed. `silent_s`: since when it is silent."""

    heard_s: float
    patience_s: float
    open: bool = True
    silent_s: float | None = None
    paused_s: float = 0.0

    def is_suspect(self, now_s: float, after_s: float) -> bool:
        return self.open and now_s - self.heard_s >= after_s


class Silence:
    """Hears of every node what its connections and its kernel tell; knows who is silent."""

    def __init__(self, own_id: str, patience: Patience | None = None) -> None:
        """`own_id` is the hub's own node: it is heard whatever becomes of the network."""
        self._own_id = own_id
        self._patience = patience or Patience()
        self._nodes: dict[str, _Node] = {}
        self._looked_s: float | None = None

    # --- what is heard -------------------------------------------------------------------

    def heard(self, node_id: str, now_s: float) -> None:
        """Its agent has said something."""
        if node_id == self._own_id:
            return
        node = self._nodes.setdefault(node_id, _Node(now_s, self._patience.silence_s))
        node.heard_s, node.open = now_s, True

    def answered(self, node_id: str, now_s: float) -> None:
        """Its kernel has answered."""
        if node_id in self._nodes:
            self._nodes[node_id].heard_s = now_s

    def left(self, node_id: str) -> None:
        """Its agent has closed its last connection."""
        if node_id in self._nodes:
            self._nodes[node_id].open = False

    # --- what follows --------------------------------------------------------------------

    def suspects(self, now_s: float) -> list[str]:
        """Those that should be asked whether they are there."""
        before_s = now_s - self._patience.ask_after_s
        return [key for key, node in self._nodes.items() if node.heard_s <= before_s]

    def there(self, now_s: float) -> frozenset[str]:
        """Return the nodes that live, as far as is known: whatever the Swarm says of them.

        A new leader may hold its own node to be down, until its own dockerd has found it.
        """
        after_s = now_s - self._patience.there_s
        others = (
            key
            for key, node in self._nodes.items()
            if node.silent_s is None and node.heard_s >= after_s
        )
        return frozenset({self._own_id, *others})

    def look(
        self, now_s: float, *, in_touch: bool, is_up: Callable[[str], bool]
    ) -> dict[str, float]:
        """Return who is silent, and when it was heard last.

        `in_touch`: the Swarm answers this hub. `is_up`: whether it hears a node.
        """
        self._make_up_for_a_pause(now_s)
        self._forget(now_s - self._patience.forget_s)
        for key, node in self._nodes.items():
            if node.silent_s is not None:
                self._reconsider(node, now_s, up=is_up(key))
            elif in_touch and node.is_suspect(now_s, node.patience_s) and self._hears_most(now_s):
                node.silent_s = now_s
            elif now_s - node.paused_s > self._patience.calm_s:
                node.patience_s = self._patience.silence_s
        silent = {key: node for key, node in self._nodes.items() if node.silent_s is not None}
        return {key: node.heard_s for key, node in silent.items()}

    def _forget(self, before_s: float) -> None:
        over = [k for k, node in self._nodes.items() if not node.open and node.heard_s < before_s]
        for key in over:
            del self._nodes[key]

    def _make_up_for_a_pause(self, now_s: float) -> None:
        """While the hub did not look, nobody could be heard."""
        since_s = now_s - self._looked_s if self._looked_s is not None else 0.0
        self._looked_s = now_s
        if since_s > self._patience.stall_s:
            for node in self._nodes.values():
                if node.silent_s is None:
                    node.heard_s = min(now_s, node.heard_s + since_s)

    def _reconsider(self, node: _Node, now_s: float, *, up: bool) -> None:
        assert node.silent_s is not None
        lasted_s = now_s - node.silent_s
        if node.heard_s > node.silent_s and lasted_s < self._patience.pause_s:
            node.patience_s = min(2 * node.patience_s, self._patience.longest_s)
            node.paused_s = now_s
        if up and lasted_s > self._patience.trust_s:
            node.open = False  # nothing is held against it until it is heard again
        if node.heard_s > node.silent_s or not node.open:
            node.silent_s = None

    def _hears_most(self, now_s: float) -> bool:
        """Whether at least as many were heard lately as were not, but for those known as silent."""
        others = [node for node in self._nodes.values() if node.open and node.silent_s is None]
        recent = sum(now_s - node.heard_s <= self._patience.recent_s for node in others)
        return 2 * recent >= len(others)
