# SPDX-License-Identifier: Apache-2.0
"""What the lab remembers of itself: lab.json.

Written before a thing is made rather than after, so that `down` finds the leftovers of an
`up` that did not live to clear them away.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.plan import NodePlan
from ebpfmesh.typed import prepare

VERSION = 1


class Phase(StrEnum):
    """`STARTING` until every node is ready."""

    STARTING = "starting"
    UP = "up"


class ProcessId(msgspec.Struct, frozen=True):
    """A process, by number and start time (ticks since boot): numbers are given again."""

    pid: int
    started: int


class NodeState(msgspec.Struct, frozen=True):
    """A node and its processes; `holder` keeps its namespaces while dockerd restarts."""

    plan: NodePlan
    holder: ProcessId | None = None
    dockerd: ProcessId | None = None
    agent: ProcessId | None = None


class LabState(msgspec.Struct, frozen=True):
    """All that is needed to use a lab, or to take it down.

    `boot_id` tells a lab of an earlier boot, of which only files remain. `inodes` maps a
    namespace's name to its inode: a namespace of the same name that others made is not ours.
    `engine` is the directory of another Docker Engine than the machine's.
    """

    boot_id: str
    maker: ProcessId
    ip_forward_before: str
    nodes: dict[str, NodeState]
    inodes: dict[str, int] = {}
    engine: str = ""
    phase: Phase = Phase.STARTING
    version: int = VERSION


def encode(state: LabState) -> bytes:
    """Readable, as people look into it when something went wrong."""
    return msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n"


def decode(data: bytes) -> LabState:
    """Fails on another version's file rather than guess what it meant."""
    try:
        state = msgspec.json.decode(data, type=LabState)
    except msgspec.DecodeError as error:
        raise LabError(f"lab.json is not readable: {error}") from error
    if state.version != VERSION:
        raise LabError(f"lab.json has version {state.version}, this program writes {VERSION}")
    return state


def drafts(path: Path) -> list[Path]:
    """What writers leave beside the file when they are interrupted."""
    return list(path.parent.glob(f"{path.name}.*"))


class Record:
    """The state together with its file, which follows every change at once.

    Threads may share one: a node's agent and its dockerd start side by side.
    """

    def __init__(self, path: Path, state: LabState) -> None:
        self._path = path
        self._writing = Lock()
        self.state = state

    @classmethod
    def load(cls, path: Path) -> Record | None:
        """None where there is no lab."""
        try:
            return cls(path, decode(path.read_bytes()))
        except FileNotFoundError:
            return None

    @classmethod
    def claim(cls, path: Path, state: LabState) -> Record | None:
        """Write the first version; None when somebody else was first."""
        record = cls(path, state)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = record._write_draft()
        try:
            os.link(draft, path)
        except FileExistsError:
            return None
        finally:
            draft.unlink()
        return record

    def update(self, **changes: Any) -> None:
        """Replace the file whole: a reader never sees half of it."""
        with self._writing:
            self._replace(**changes)

    def update_node(self, name: str, **changes: Any) -> None:
        """Change one node's part."""
        with self._writing:
            node = msgspec.structs.replace(self.state.nodes[name], **changes)
            self._replace(nodes=self.state.nodes | {name: node})

    def _replace(self, **changes: Any) -> None:
        self.state = msgspec.structs.replace(self.state, **changes)
        self._write_draft().replace(self._path)

    def _write_draft(self) -> Path:
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        draft.write_bytes(encode(self.state))
        return draft


prepare(LabState)
