# SPDX-License-Identifier: Apache-2.0
"""Where the lab keeps its files. Pure, but for a look at the environment.

Sockets live here and not under /run, because each node has a /run of its own.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

DEFAULT_DIRECTORY = Path("/var/lib/ebpfmesh-lab")
DIRECTORY_VARIABLE = "EBPFMESH_LAB_DIR"
ENGINE_VARIABLE = "EBPFMESH_LAB_ENGINE"


class NodePaths(msgspec.Struct, frozen=True):
    """The files of one node."""

    root: Path

    @property
    def docker_socket(self) -> Path:
        """Where dockerd listens."""
        return self.root / "docker.sock"

    @property
    def docker_config(self) -> Path:
        """Everything that dockerd is told."""
        return self.root / "daemon.json"

    @property
    def docker_pid_file(self) -> Path:
        """Kept here to be seen from outside the node."""
        return self.root / "docker.pid"

    @property
    def docker_log(self) -> Path:
        """What dockerd prints."""
        return self.root / "dockerd.log"

    @property
    def docker_data(self) -> Path:
        """Its images, containers and Swarm state."""
        return self.root / "data"

    @property
    def agent_socket(self) -> Path:
        """Where the agent listens."""
        return self.root / "agent.sock"

    @property
    def agent_log(self) -> Path:
        """What the agent prints."""
        return self.root / "agent.log"

    @property
    def agent_state(self) -> Path:
        """What the agent keeps over restarts."""
        return self.root / "state"

    @property
    def objects(self) -> Path:
        """Where the compiled programs are kept: those of the lab."""
        return LabPaths(self.root.parent).objects

    @property
    def directories(self) -> tuple[Path, ...]:
        """What has to be made before the daemons start."""
        return (self.root, self.docker_data, self.agent_state)


class LabPaths(msgspec.Struct, frozen=True):
    """The files of one lab."""

    root: Path

    @property
    def record(self) -> Path:
        """The lab's state."""
        return self.root / "lab.json"

    @property
    def images(self) -> Path:
        """The archive that every node loads."""
        return self.root / "images.tar"

    @property
    def objects(self) -> Path:
        """Where the compiled programs are kept: all nodes have the same."""
        return self.root / "objects"

    def node(self, name: str) -> NodePaths:
        """The files of one of its nodes."""
        return NodePaths(self.root / name)


def lab_engine() -> str:
    """The system whose Docker Engine the environment chooses; empty for the machine's own."""
    return os.environ.get(ENGINE_VARIABLE) or ""


def lab_paths() -> LabPaths:
    """The lab that the environment names."""
    return LabPaths(Path(os.environ.get(DIRECTORY_VARIABLE) or DEFAULT_DIRECTORY).absolute())
