# SPDX-License-Identifier: Apache-2.0
"""Makes one Swarm of the lab's daemons."""

from __future__ import annotations

from pathlib import Path

from ebpfmesh.lab.daemon import client
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.paths import LabPaths
from ebpfmesh.lab.plan import NodePlan, Role
from ebpfmesh.lab.processes import run, run_all, wait_until
from ebpfmesh.lab.unix_http import get_json

READY_TIMEOUT_S = 30


def form(nodes: tuple[NodePlan, ...], paths: LabPaths) -> None:
    """The first node begins, the others join it; wait until all are ready.

    Managers join one by one, as each changes the quorum; workers all at once.
    """
    leader, *others = nodes
    socket = paths.node(leader.name).docker_socket
    run(client(socket, "swarm", "init", "--advertise-addr", leader.address))
    for manager in (node for node in others if node.role is Role.MANAGER):
        run(_join(manager, leader, _token(socket, Role.MANAGER), paths))
    workers = [node for node in others if node.role is Role.WORKER]
    token = _token(socket, Role.WORKER)
    run_all([_join(worker, leader, token, paths) for worker in workers])
    _wait_ready(socket, len(nodes))


def _join(node: NodePlan, leader: NodePlan, token: str, paths: LabPaths) -> list[str]:
    where = ["--advertise-addr", node.address, leader.address]
    return client(paths.node(node.name).docker_socket, "swarm", "join", "--token", token, *where)


def _token(socket: Path, role: Role) -> str:
    return run(client(socket, "swarm", "join-token", "--quiet", role)).strip()


def _wait_ready(socket: Path, count: int) -> None:
    def ready() -> bool:
        nodes = get_json(socket, "/nodes")
        return [node["Status"]["State"] for node in nodes] == ["ready"] * count

    if not wait_until(ready, READY_TIMEOUT_S, poll_s=0.1):
        raise LabError(f"the Swarm has not {count} ready nodes after {READY_TIMEOUT_S} s")
