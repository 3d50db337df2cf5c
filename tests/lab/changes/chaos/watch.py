# SPDX-License-Identifier: Apache-2.0
"""Looks at Swarm and agents all the while: who is wanted until when, what counters say."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.lab import Lab

from ...agents import Agents

LOOK_S = 0.2


class Away(NamedTuple):
    """From when until when a node's agent did not answer, or had not looked at its maps yet."""

    node: str
    from_s: float
    until_s: float


class Watch:
    """`left_s` says since when a task was not wanted any more; `falls` where counters fell.

    `nodes` has every task that was ever seen, and its node; `away` when agents did not answer.
    """

    def __init__(self, lab: Lab, agents: Agents, services: Collection[str]) -> None:
        self.left_s: dict[str, float] = {}
        self.falls: list[str] = []
        self.nodes: dict[str, str] = {}
        self.away: list[Away] = []
        self._lab = lab
        self._agents = agents
        self._services = services
        self._wanted: set[str] = set()
        self._heard_s: dict[str, float] = {}
        self._silent: set[str] = set()
        self._packets: dict[tuple[str, str, str], int] = {}
        self._stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            self._look_at_tasks()
            for node in self._agents.nodes:
                self._look_at_counters(node)

    def _look_at_tasks(self) -> None:
        try:
            tasks = [t for name in self._services for t in self._lab.task_containers(name)]
        except LabError:
            return  # no leader, or its dockerd has just been killed
        now_s = time.monotonic()
        nodes = {task.container_id[:12]: task.node for task in tasks}
        self.nodes |= nodes
        wanted = nodes.keys()
        for host in self._wanted - wanted:
            self.left_s.setdefault(host, now_s)
        self._wanted = set(wanted)

    def _look_at_counters(self, node: str) -> None:
        try:
            status = self._agents.status(node)
        except LabError:
            self._silent.add(node)
            return
        if status.syncs:
            self._heard(node)
        else:
            self._silent.add(node)
        for service in status.services:
            for frontend in service.frontends:
                key = (node, service.network, frontend.name)
                packets = frontend.traffic.packets_to_backend
                before = self._packets.get(key, 0)
                if service.name in self._services and packets < before:
                    self.falls.append(f"{key}: {before} packets, then {packets}")
                self._packets[key] = packets

    def _heard(self, node: str) -> None:
        """An agent that was away for a while, and has brought its maps up to date again."""
        now_s = time.monotonic()
        if node in self._silent:
            self._silent.remove(node)
            self.away.append(Away(node, self._heard_s.get(node, 0.0), now_s))
        self._heard_s[node] = now_s


def connections(agents: Agents, services: Collection[str]) -> int:
    """New flows that all nodes have counted for these services."""
    return sum(
        frontend.traffic.connections
        for node in agents.nodes
        for row in agents.status(node).services
        for frontend in (row.frontends if row.name in services else ())
    )
