# SPDX-License-Identifier: Apache-2.0
"""deploy/stack.yml and deploy/detach.yml on a lab's Swarm, and what the containers say."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ebpfmesh.lab import daemon
from ebpfmesh.lab.lab import Lab
from ebpfmesh.lab.processes import run, run_all, wait_until
from ebpfmesh.status import Status

from .builder import CHECKOUT

AGENT, STACK = "ebpfmesh_agent", "ebpfmesh"
_SETTLE_S = 120


class Stack:
    """The agents of a lab, as containers of the Swarm's own."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._manager = lab.manager().name

    def load(self, archive: Path, *tags: str) -> None:
        """Bring the image to every node: no node can pull it."""
        sockets = [node.docker_socket for node in self._lab.nodes]
        command = ("load", "--quiet", "--input", str(archive))
        run_all([daemon.client(socket, *command) for socket in sockets], timeout_s=300)
        for tag in tags:
            run_all([daemon.client(s, "tag", "ebpfmesh:latest", tag) for s in sockets])

    def deploy(self) -> None:
        """As an operator would, and wait until all are healthy."""
        file = f"--compose-file={CHECKOUT / 'deploy' / 'stack.yml'}"
        self._run("docker", "stack", "deploy", "--resolve-image=never", file, STACK)
        self.wait_healthy()

    def remove(self) -> None:
        """The agents only: what they have attached stays."""
        self._lab.docker(self._manager, "stack", "rm", STACK)
        assert wait_until(lambda: not any(map(self._containers, self.nodes)), _SETTLE_S, 0.5)

    def detach(self) -> str:
        """Run the job on every node; what it printed."""
        command = [str(CHECKOUT / "deploy" / "detach.sh")]
        return self._run(*command).stdout

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        env = {"CGROUP_ROOT": "/run/cgroup"}
        return self._lab.run(self._manager, command, env=env, timeout_s=_SETTLE_S)

    # --- look ---------------------------------------------------------------------------

    @property
    def nodes(self) -> list[str]:
        """All nodes of the lab."""
        return [node.name for node in self._lab.nodes]

    def wait_healthy(self, than: Sequence[str] = ()) -> None:
        """Until every node has an agent that is healthy, and none of those in `than`."""

        def settled() -> bool:
            found = {node: self._containers(node) for node in self.nodes}
            return all(
                len(ids) == 1 and ids[0] not in than and self.health(node, ids[0]) == "healthy"
                for node, ids in found.items()
            )

        assert wait_until(settled, _SETTLE_S, 0.5), self.tasks(AGENT)

    def container(self, node: str) -> str:
        """That of a node's agent."""
        (found,) = self._containers(node)
        return found

    def _containers(self, node: str) -> list[str]:
        wanted = f"--filter=label=com.docker.swarm.service.name={AGENT}"
        return self._lab.docker(node, "ps", "--quiet", "--no-trunc", wanted).split()

    def _all_of(self, node: str, service: str) -> list[str]:
        wanted = f"--filter=label=com.docker.swarm.service.name={service}"
        return self._lab.docker(node, "ps", "--all", "--quiet", wanted).split()

    def health(self, node: str, container: str) -> str:
        """What Docker says of a container's health."""
        wanted = "--format={{.State.Health.Status}}"
        return self._lab.docker(node, "inspect", wanted, container)

    def ask(self, node: str, *command: str) -> str:
        """What a command prints inside the agent's container; it has to succeed."""
        return self._lab.docker(node, "exec", self.container(node), *command)

    def status(self, node: str) -> Status:
        """`ebpfmesh status` inside the container."""
        return msgspec.json.decode(self.ask(node, "ebpfmesh", "status", "-o", "json"), type=Status)

    def wait_balanced(self, service: str, network: str, count: int) -> None:
        """Until every node that programs this service on this network has so many backends."""

        def balanced() -> bool:
            rows = [
                row
                for node in self.nodes
                for row in self.status(node).services
                if (row.name, row.network) == (service, network) and row.state != "elsewhere"
            ]
            return bool(rows) and all((row.ready, row.total) == (count, count) for row in rows)

        assert wait_until(balanced, _SETTLE_S, 0.5), [self.status(node) for node in self.nodes]

    def tasks(self, service: str) -> str:
        """All that Swarm tells of a service's tasks."""
        return self._lab.docker(self._manager, "service", "ps", "--no-trunc", service)

    def update(self, image: str) -> None:
        """A rolling update of the agents, to its end."""
        command = ("service", "update", "--no-resolve-image", "--quiet", f"--image={image}", AGENT)
        socket = self._lab.manager().docker_socket
        run(daemon.client(socket, *command), timeout_s=3 * _SETTLE_S)
