# SPDX-License-Identifier: Apache-2.0
"""The agent of one node: follows the Swarm and the node, keeps the maps in step."""

from ebpfmesh.agent.detach import detach_all
from ebpfmesh.agent.drain import drain, pinned_node
from ebpfmesh.agent.service import Agent

__all__ = ["Agent", "detach_all", "drain", "pinned_node"]
