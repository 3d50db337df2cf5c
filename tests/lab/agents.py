# SPDX-License-Identifier: Apache-2.0
"""The agents of the lab: with which settings they run, what they say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from ebpfmesh.changes import Change
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.lab import Lab
from ebpfmesh.lab.processes import wait_until
from ebpfmesh.lab.unix_http import get_json
from ebpfmesh.status import ServiceStatus, Status
from ebpfmesh.typed import prepare

READY_TIMEOUT_S = 60

prepare(Status, Change)  # tests ask from several threads


class Agents:
    """All agents of one lab."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._settings: dict[str, str] = {}

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(node.name for node in self._lab.nodes)

    def use(self, **settings: str) -> None:
        """Let every agent run with these settings, and no others."""
        wanted = _environment(settings)
        if wanted != self._settings:
            self._settings = wanted
            self.restart()
        self.start_missing()

    def restart(self) -> None:
        """All of them, with the settings that they have."""
        with ThreadPoolExecutor() as executor:
            list(executor.map(self._lab.stop_agent, self.nodes))
        self.start_missing()

    def upgrade(self, node: str, **settings: str) -> None:
        """One of them runs with other settings from now on, until `use` says so of all."""
        self._lab.stop_agent(node)
        self._lab.start_agent(node, _environment(settings))

    def upgraded(self, **settings: str) -> None:
        """All of them do."""
        self._settings = _environment(settings)

    def start_missing(self) -> None:
        missing = [node.name for node in self._lab.nodes if node.agent_pid is None]
        with ThreadPoolExecutor() as executor:
            list(executor.map(self.start, missing))

    def start(self, node: str) -> None:
        self._lab.start_agent(node, self._settings)

    def kill_and_start(self, node: str) -> None:
        self._lab.kill_agent(node)
        self.start(node)

    def status(self, node: str) -> Status:
        raw = get_json(self._lab.node(node).agent_socket, "/status")
        return msgspec.convert(raw, Status)

    def changes(self, node: str) -> list[Change]:
        """The last ones, the newest first."""
        raw = get_json(self._lab.node(node).agent_socket, "/changes")
        return msgspec.convert(raw, list[Change])

    def state_dir(self, node: str) -> Path:
        """Where a running agent keeps what outlives it."""
        pid = self._lab.node(node).agent_pid
        settings = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        found = next(one for one in settings if one.startswith(b"EBPFMESH_STATE_DIR="))
        return Path(os.fsdecode(found.partition(b"=")[2]))

    def service(self, node: str, name: str, network: str) -> ServiceStatus | None:
        rows = (s for s in self.status(node).services if (s.name, s.network) == (name, network))
        return next(rows, None)

    def wait_ready(
        self,
        name: str,
        network: str,
        count: int,
        nodes: Iterable[str] | None = None,
        *,
        alone: bool = True,
        within_s: float = READY_TIMEOUT_S,
    ) -> None:
        """Wait until these nodes' maps hold so many ready backends, and no others if `alone`.

        An agent that is being restarted meanwhile is waited for.
        """
        for node in self.nodes if nodes is None else nodes:
            seen: list[ServiceStatus | LabError | None] = []

            def ready(node: str = node, seen: list[ServiceStatus | LabError | None] = seen) -> bool:
                try:
                    found = self.service(node, name, network)
                except LabError as error:
                    seen[:] = [error]
                    return False
                seen[:] = [found]
                if found is None or found.ready != count:
                    return False
                return found.total == count or not alone

            assert wait_until(ready, within_s, 0.1), f"{node} has {seen}, not {count}"

    def wait_gone(self, names: Iterable[str]) -> None:
        """Wait until no node knows of these services any more."""
        wanted = set(names)
        for node in self.nodes:

            def gone(node: str = node) -> bool:
                return wanted.isdisjoint(s.name for s in self.status(node).services)

            assert wait_until(gone, READY_TIMEOUT_S, 0.1), f"{node} still knows of {wanted}"


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"EBPFMESH_{name.upper()}": value for name, value in settings.items()}
