# SPDX-License-Identifier: Apache-2.0
"""The only user of the Docker API: what the Swarm and this node's dockerd say."""

from ebpfmesh.swarm.client import SwarmClient
from ebpfmesh.swarm.errors import DockerUnavailable, NotInSwarm, SwarmError
from ebpfmesh.swarm.events import Event, Resync
from ebpfmesh.swarm.local import Endpoint, LocalContainer, Manager, NodeInfo
from ebpfmesh.swarm.mesh import NodeReport, Snapshot
from ebpfmesh.swarm.watcher import MeshWatcher, WatcherSettings

__all__ = [
    "DockerUnavailable",
    "Endpoint",
    "Event",
    "LocalContainer",
    "Manager",
    "MeshWatcher",
    "NodeInfo",
    "NodeReport",
    "NotInSwarm",
    "Resync",
    "Snapshot",
    "SwarmClient",
    "SwarmError",
    "WatcherSettings",
]
