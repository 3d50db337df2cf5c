# SPDX-License-Identifier: Apache-2.0
"""The lab as its users see it: bring it up, look at it, run things in it, take it down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec

from ebpfmesh.lab import agents, cgroup, daemon, images, namespaces, plan, services, teardown
from ebpfmesh.lab.build import bring_up
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.paths import LabPaths, lab_engine, lab_paths
from ebpfmesh.lab.plan import METRICS_PORT, Place, Role
from ebpfmesh.lab.processes import boot_id, end, is_alive, run
from ebpfmesh.lab.services import TaskContainer
from ebpfmesh.lab.state import NodeState, Phase, ProcessId, Record

_STOP_TIMEOUT_S = 30


class Node(msgspec.Struct, frozen=True):
    """A node as one can talk to it; `pid` is dockerd's, and None means that it does not run."""

    name: str
    role: Role
    address: str
    netns: str
    docker_socket: Path
    docker_log: Path
    agent_socket: Path
    agent_log: Path
    cgroup: Path
    metrics_url: str
    pid: int | None
    agent_pid: int | None


class Lab:
    """A lab that is up."""

    def __init__(self, paths: LabPaths, record: Record) -> None:
        self._paths = paths
        self._record = record

    # --- life ---------------------------------------------------------------------------

    @classmethod
    def up(
        cls,
        nodes: int = 3,
        managers: int = 1,
        agents: bool = True,
        progress: Callable[[str], None] = lambda _step: None,
        engine: str = "",
    ) -> Self:
        """Make a lab; whatever stops it halfway also takes away what it made."""
        paths, engine = lab_paths(), engine or lab_engine()
        planned = plan.plan_nodes(nodes, managers)
        return cls(paths, bring_up(paths, planned, agents, progress, engine))

    @classmethod
    def load(cls) -> Self:
        """The lab that is up already."""
        lab = cls.find()
        if lab is None:
            raise LabError(f"no lab is up in {lab_paths().root}: ebpfmesh lab up")
        return lab

    @classmethod
    def find(cls) -> Self | None:
        """The lab that is up already, if one is; what an earlier boot left is none."""
        paths = lab_paths()
        record = Record.load(paths.record)
        if record is None or record.state.phase is not Phase.UP:
            return None
        return cls(paths, record) if record.state.boot_id == boot_id() else None

    def down(self) -> None:
        """End all of it, and leave nothing."""
        teardown.take_down(self._paths, self._record.state)

    # --- what there is ------------------------------------------------------------------

    @property
    def directory(self) -> Path:
        """Where everything of it lies."""
        return self._paths.root

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Managers first; the first one has founded the Swarm."""
        return tuple(self.node(name) for name in self._record.state.nodes)

    @property
    def places(self) -> tuple[str, ...]:
        """Every name that `run` accepts."""
        return (*self._record.state.nodes, *Place)

    def node(self, name: str) -> Node:
        """The node as it is now."""
        state, paths = self._node_state(name), self._paths.node(name)
        return Node(
            name=name,
            role=state.plan.role,
            address=state.plan.address,
            netns=name,
            docker_socket=paths.docker_socket,
            docker_log=paths.docker_log,
            agent_socket=paths.agent_socket,
            agent_log=paths.agent_log,
            cgroup=cgroup.of_place(name),
            metrics_url=f"http://{state.plan.address}:{METRICS_PORT}/metrics",
            pid=_pid(state.dockerd),
            agent_pid=_pid(state.agent),
        )

    def _node_state(self, name: str) -> NodeState:
        try:
            return self._record.state.nodes[name]
        except KeyError:
            nodes = ", ".join(self._record.state.nodes)
            raise LabError(f"{name} is not a node of the lab; there are {nodes}") from None

    def _holder(self, name: str) -> ProcessId:
        holder = self._node_state(name).holder
        if holder is None or not is_alive(holder):
            raise LabError(f"{name} is dead: `ebpfmesh lab down`, then `up`")
        return holder

    # --- run things in it ---------------------------------------------------------------

    def command(self, where: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside a node, the client or the LAN."""
        if where not in self.places:
            raise LabError(f"{where} is not in the lab; there are {', '.join(self.places)}")
        if where in self._record.state.nodes:
            return namespaces.in_node(where, self._holder(where).pid, argv)
        return namespaces.in_place(where, argv)

    def environment(self, where: str) -> dict[str, str]:
        """In a node, docker and ebpfmesh find that node's daemons by themselves."""
        env = {name: text for name, text in os.environ.items() if name != "DOCKER_HOST"}
        first = (str(Path(sys.executable).parent), str(daemon.client_directory()))
        env["PATH"] = os.pathsep.join((*first, env.get("PATH", os.defpath)))
        if where in self._record.state.nodes:
            paths = self._paths.node(where)
            env["DOCKER_HOST"] = f"unix://{paths.docker_socket}"
            env["EBPFMESH_SOCKET"] = str(paths.agent_socket)
            env["EBPFMESH_CGROUP"] = str(cgroup.of_place(where))
        return env

    def popen(
        self,
        where: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """Start and go on; the process returned is `argv` itself, to signal and to wait for."""
        return subprocess.Popen(
            self.command(where, argv),
            env=self.environment(where) | dict(env or {}),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )

    def run(
        self,
        where: str,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - named as in subprocess
        timeout_s: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; with `check`, a failure raises with what was printed."""
        environment = self.environment(where) | dict(env or {})
        done = _run(self.command(where, argv), environment, input, timeout_s)
        return _checked(done, where, argv) if check else done

    def container_run(
        self,
        node: str,
        container_id: str,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - named as in subprocess
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run this machine's own programs (curl, dig) in a container's network.

        Names are resolved as the container would.
        """
        holder = self._holder(node).pid
        wanted = "{{.State.Pid}} {{.ResolvConfPath}}"
        pid, resolver = self.docker(node, "inspect", "--format", wanted, container_id).split()
        command = namespaces.in_container(node, holder, int(pid), resolver, argv)
        done = _run(command, self.environment(node), input, timeout_s)
        return _checked(done, f"{container_id[:12]} on {node}", argv) if check else done

    # --- Docker -------------------------------------------------------------------------

    def docker(self, node: str, *args: str, timeout_s: float = 60) -> str:
        """What the Docker client prints, without the last newline."""
        socket = self.node(node).docker_socket
        return run(daemon.client(socket, *args), timeout_s=timeout_s).rstrip("\n")

    def deploy(
        self,
        name: str,
        *command: str,
        image: str = images.ECHO,
        replicas: int = 1,
        networks: Sequence[str] = (),
        publish: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> str:
        """Create a service; its id. `publish` and `options` are as for `docker service create`."""
        return self.docker(
            self.manager().name,
            *services.create_command(
                name,
                command,
                image=image,
                replicas=replicas,
                networks=networks,
                publish=publish,
                options=options,
            ),
        )

    def wait_for_replicas(self, service: str, count: int, timeout_s: float = 60) -> None:
        """Wait until exactly so many tasks run, and none more is wanted."""
        services.wait_for_replicas(self.manager().docker_socket, service, count, timeout_s)

    def task_containers(self, service: str) -> list[TaskContainer]:
        """The running tasks of a service."""
        return services.task_containers(self.manager().docker_socket, service)

    def manager(self) -> Node:
        """The first manager whose dockerd runs."""
        for node in self.nodes:
            if node.role is Role.MANAGER and node.pid is not None:
                return node
        raise LabError("no manager's dockerd runs")

    def stop_docker(self, name: str, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """End a node's dockerd. After SIGKILL its containers run on."""
        end(self._node_state(name).dockerd, with_signal, _STOP_TIMEOUT_S)
        self._record.update_node(name, dockerd=None)

    def start_docker(self, name: str) -> None:
        """Start a node's dockerd again, and wait until it answers."""
        state, paths = self._node_state(name), self._paths.node(name)
        if is_alive(state.dockerd):
            raise LabError(f"dockerd of {name} runs already")
        engine = self._record.state.engine
        dockerd = daemon.start(state.plan, paths, self._holder(name), engine)
        self._record.update_node(name, dockerd=dockerd)
        daemon.wait_ready(name, paths, dockerd)

    # --- agents -------------------------------------------------------------------------

    def start_agent(self, name: str, env: Mapping[str, str] | None = None) -> None:
        """Start a node's agent with these settings added, and wait until it is ready."""
        state, paths = self._node_state(name), self._paths.node(name)
        if is_alive(state.agent):
            raise LabError(f"the agent of {name} runs already")
        agent = agents.start(state.plan, paths, self._holder(name), env or {})
        self._record.update_node(name, agent=agent)
        agents.wait_ready(name, paths, agent)

    def stop_agent(self, name: str) -> None:
        """SIGTERM, and wait for its end."""
        self._end_agent(name, signal.SIGTERM)

    def kill_agent(self, name: str) -> None:
        """SIGKILL: it has no chance to clear anything away."""
        self._end_agent(name, signal.SIGKILL)

    def restart_agent(self, name: str, env: Mapping[str, str] | None = None) -> None:
        """Stop, then start."""
        self.stop_agent(name)
        self.start_agent(name, env)

    def _end_agent(self, name: str, with_signal: signal.Signals) -> None:
        end(self._node_state(name).agent, with_signal, _STOP_TIMEOUT_S)
        self._record.update_node(name, agent=None)


def _pid(process: ProcessId | None) -> int | None:
    return process.pid if process is not None and is_alive(process) else None


def _run(
    command: Sequence[str], env: Mapping[str, str], stdin: str | None, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        check=False,
        env=env,
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def _checked(
    done: subprocess.CompletedProcess[str], where: str, argv: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    if done.returncode != 0:
        raise LabError(
            f"`{' '.join(argv)}` in {where} failed with {done.returncode}: "
            f"{(done.stderr or done.stdout).strip()}"
        )
    return done
