# SPDX-License-Identifier: Apache-2.0
"""Giving back: what the programs are told, what is said, and when it ends."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ebpfmesh.agent.drain import drain
from ebpfmesh.takeover import SECOND_NS, Mode, RunSettings, seconds_left


class MemoryNode:
    """Flows end as time goes by; `now_ns` and `sleep` are its clock."""

    def __init__(self, living: Iterable[int]) -> None:
        self._living = list(living)
        self._settings = RunSettings(Mode.SERVING, 1, 1)
        self.seconds = 1000.0
        self.interrupted_at = 0.0

    def living(self) -> int:
        assert self._settings.mode is Mode.GIVING_BACK
        return self._living.pop(0) if len(self._living) > 1 else self._living[0]

    def run_settings(self) -> RunSettings:
        return self._settings

    def put_run_settings(self, settings: RunSettings) -> None:
        self._settings = settings

    def now_ns(self) -> int:
        return int(self.seconds * SECOND_NS)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        if self.interrupted_at and self.seconds > self.interrupted_at:
            raise KeyboardInterrupt


def run(node: MemoryNode, limit_s: float) -> tuple[int, list[str]]:
    said: list[str] = []
    left = drain(node, limit_s, said.append, grace_s=600, sleep=node.sleep, now_ns=node.now_ns)
    return left, said


def test_it_ends_with_the_last_flow() -> None:
    node = MemoryNode([5, 5, 2, 0])
    assert run(node, 30) == (
        0,
        ["5 flows left, 30s to go", "2 flows left, 28s to go", "0 flows left, 27s to go"],
    )
    assert node.run_settings().mode is Mode.GIVING_BACK


def test_it_ends_with_the_time() -> None:
    node = MemoryNode([5])
    assert run(node, 2.5) == (5, ["5 flows left, 2s to go"])
    assert node.seconds == 1002.5


def test_interrupted_node_serves_again() -> None:
    """Connections that the kernel was given meanwhile are still left to it."""
    node = MemoryNode([5])
    node.interrupted_at = 1003
    with pytest.raises(KeyboardInterrupt):
        run(node, 30)
    settings = node.run_settings()
    assert settings.mode is Mode.SERVING
    assert seconds_left(settings, node.now_ns()) == 600
