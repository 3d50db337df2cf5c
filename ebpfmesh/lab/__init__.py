# SPDX-License-Identifier: Apache-2.0
"""A real Swarm of N nodes on one machine, in network namespaces; demo and tests use it."""

from __future__ import annotations

from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.lab import Lab, Node
from ebpfmesh.lab.services import TaskContainer
from ebpfmesh.lab.teardown import down

__all__ = ["Lab", "LabError", "Node", "TaskContainer", "down"]
