# SPDX-License-Identifier: Apache-2.0
"""Giving back while connections are open: what begins is the kernel's, what is known goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from ebpfmesh.config import Config
from ebpfmesh.datapath.datapath import open_pinned
from ebpfmesh.datapath.living import Timeouts, living_flows
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.maps import Maps
from ebpfmesh.takeover import SECOND_NS, RunSettings, given_back, served

_LOOK_S = 1.0

Say = Callable[[str], None]


class Node(Protocol):
    """What draining needs of a node's maps."""

    def living(self) -> int:
        """How many flows are alive."""

    def run_settings(self) -> RunSettings:
        """What the programs are told."""

    def put_run_settings(self, settings: RunSettings) -> None:
        """Tells them something else."""


class PinnedNode:
    """The maps that an agent has left pinned, or works with."""

    def __init__(self, module: Module, config: Config) -> None:
        maps = Maps(module)
        self.run_settings = maps.run_settings
        self.put_run_settings = maps.put_run_settings
        self._module = module
        self._timeouts = Timeouts.of(config)

    def living(self) -> int:
        """How many flows are alive."""
        return living_flows(self._module, self._timeouts, time.monotonic_ns())


@contextmanager
def pinned_node(config: Config) -> Iterator[PinnedNode | None]:
    """The node as its maps show it; None if no maps are pinned.

    Raises `LayoutMismatch` if they were made with other settings.
    """
    module = open_pinned(config)
    if module is None:
        yield None
        return
    try:
        yield PinnedNode(module, config)
    finally:
        module.close()


def drain(
    node: Node,
    limit_s: float,
    say: Say,
    *,
    grace_s: float,
    sleep: Callable[[float], None] = time.sleep,
    now_ns: Callable[[], int] = time.monotonic_ns,
) -> int:
    """Gives new flows back and waits until the known ones have ended, at most `limit_s`.

    Says how many are left whenever that has changed, and returns it at the end. `KeyboardInterrupt`
    during the wait makes the node serve new flows again, and is raised again.
    """
    end_ns = now_ns() + int(limit_s * SECOND_NS)
    said = -1
    try:
        node.put_run_settings(given_back(node.run_settings(), now_ns()))
        while True:
            left, rest_s = node.living(), (end_ns - now_ns()) / SECOND_NS
            if left != said:
                say(f"{left} flows left, {max(0.0, rest_s):.0f}s to go")
                said = left
            if left == 0 or rest_s <= 0:
                return left
            sleep(min(_LOOK_S, rest_s))
    except KeyboardInterrupt:
        node.put_run_settings(served(node.run_settings(), now_ns(), grace_s, relieved=False))
        raise
