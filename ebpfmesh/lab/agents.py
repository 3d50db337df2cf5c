# SPDX-License-Identifier: Apache-2.0
"""One ebpfmesh agent per node, inside the namespaces of its dockerd."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ebpfmesh.lab import cgroup, namespaces
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.paths import NodePaths
from ebpfmesh.lab.plan import METRICS_PORT, NodePlan
from ebpfmesh.lab.processes import is_alive, last_lines, spawn, wait_until
from ebpfmesh.lab.state import ProcessId
from ebpfmesh.lab.unix_http import answers

READY_TIMEOUT_S = 180  # a first start compiles the programs, on a machine that may be busy

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


def start(
    plan: NodePlan, paths: NodePaths, holder: ProcessId, settings: Mapping[str, str]
) -> ProcessId:
    """Start a node's agent; `wait_ready` tells when it serves."""
    command = [sys.executable, "-m", "ebpfmesh", "agent"]
    argv = namespaces.in_node(plan.name, holder.pid, command)
    return spawn(argv, paths.agent_log, environment(plan, paths, {**os.environ, **settings}))


def environment(plan: NodePlan, paths: NodePaths, caller: Mapping[str, str]) -> dict[str, str]:
    """The caller's settings reach the agent; what belongs to the node overrides them.

    Compiled programs are no node's own: all of the lab share them, or take the caller's.
    """
    inherited = {name: value for name, value in caller.items() if name != "DOCKER_HOST"}
    search_path = [str(_PACKAGE_PARENT), caller.get("PYTHONPATH", "")]
    return inherited | {
        "EBPFMESH_DOCKER_SOCKET": str(paths.docker_socket),
        "EBPFMESH_SOCKET": str(paths.agent_socket),
        "EBPFMESH_STATE_DIR": str(paths.agent_state),
        "EBPFMESH_OBJECT_DIR": caller.get("EBPFMESH_OBJECT_DIR") or str(paths.objects),
        "EBPFMESH_METRICS_ADDRESS": plan.address,
        "EBPFMESH_METRICS_PORT": str(METRICS_PORT),
        "EBPFMESH_CGROUP": str(cgroup.of_place(plan.name)),
        "PYTHONPATH": os.pathsep.join(filter(None, search_path)),
        "PYTHONUNBUFFERED": "1",
    }


def wait_ready(name: str, paths: NodePaths, agent: ProcessId) -> None:
    """Wait until the agent serves; if it ends instead, say what it said last."""

    def settled() -> bool:
        return answers(paths.agent_socket, "/readyz") or not is_alive(agent)

    if not wait_until(settled, READY_TIMEOUT_S, poll_s=0.1):
        raise _failure(f"is not ready after {READY_TIMEOUT_S} s", name, paths)
    if not is_alive(agent):
        raise _failure("has ended", name, paths)


def _failure(what: str, name: str, paths: NodePaths) -> LabError:
    return LabError(f"the agent of {name} {what}; its last words:\n{last_lines(paths.agent_log)}")
