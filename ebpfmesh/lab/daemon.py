# SPDX-License-Identifier: Apache-2.0
"""One dockerd per node, each with a containerd of its own.

It is the machine's, or that of an *engine*: the root directory of another Debian system, whose
programs and libraries dockerd then has in the place of the machine's, and all that it starts.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from ebpfmesh.lab import cgroup, namespaces
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.paths import NodePaths
from ebpfmesh.lab.plan import NodePlan
from ebpfmesh.lab.processes import is_alive, last_lines, runs, spawn, wait_until
from ebpfmesh.lab.state import ProcessId
from ebpfmesh.lab.unix_http import answers

READY_TIMEOUT_S = 60

# Mounts that dockerd makes below /run reach the node all the same: it is shared.
_OTHER_PROGRAMS = 'mount --bind "$0/usr" /usr && exec "$@"'


def start(plan: NodePlan, paths: NodePaths, holder: ProcessId, engine: str = "") -> ProcessId:
    """Start a node's dockerd; it needs a while until it answers."""
    _forget_killed(paths, holder)
    paths.docker_config.write_bytes(configuration(plan, paths))
    command = [*_with_programs_of(engine), "dockerd", "--config-file", str(paths.docker_config)]
    return spawn(namespaces.in_node(plan.name, holder.pid, command), paths.docker_log)


def _with_programs_of(engine: str) -> list[str]:
    if not engine:
        return []
    return [*("unshare", "--mount", "--propagation=unchanged"), "sh", "-c", _OTHER_PROGRAMS, engine]


def _forget_killed(paths: NodePaths, holder: ProcessId) -> None:
    """Remove the numbers that killed daemons left.

    Until init has collected those, they seem to run: the next dockerd would refuse to start
    for the one, and wait in vain for the other.
    """
    containerd = Path(f"/proc/{holder.pid}/root/run/docker/containerd/containerd.pid")
    for pid_file in (paths.docker_pid_file, containerd):
        if pid_file.exists() and not runs(int(pid_file.read_text())):
            pid_file.unlink()


def configuration(plan: NodePlan, paths: NodePaths) -> bytes:
    """daemon.json: everything of its own, and nothing that two nodes could share."""
    pool = {"base": str(plan.local_pool), "size": plan.local_network_prefix}
    settings = {
        "data-root": str(paths.docker_data),
        "exec-root": "/run/docker",
        "pidfile": str(paths.docker_pid_file),
        "hosts": [f"unix://{paths.docker_socket}"],
        "default-address-pools": [pool],
        "cgroup-parent": cgroup.parent_of_containers(plan.name),
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
    }
    return msgspec.json.format(msgspec.json.encode(settings))


def wait_ready(name: str, paths: NodePaths, dockerd: ProcessId) -> None:
    """Wait until dockerd answers; if it ends instead, say what it said last."""

    def settled() -> bool:
        return answers(paths.docker_socket, "/_ping") or not is_alive(dockerd)

    if not wait_until(settled, READY_TIMEOUT_S, poll_s=0.1):
        raise _failure(f"does not answer after {READY_TIMEOUT_S} s", name, paths)
    if not is_alive(dockerd):
        raise _failure("has ended", name, paths)


def _failure(what: str, name: str, paths: NodePaths) -> LabError:
    return LabError(f"dockerd of {name} {what}; its last words:\n{last_lines(paths.docker_log)}")


def client(socket: Path, *args: str) -> list[str]:
    """A command line of the Docker client, for the daemon behind this socket."""
    return [str(client_directory() / "docker"), "--host", f"unix://{socket}", *args]


def client_directory() -> Path:
    """/usr/bin, where packages put it, before whatever else is in PATH."""
    found = shutil.which("docker", path=f"/usr/bin{os.pathsep}{os.environ.get('PATH', '')}")
    if not found:
        raise LabError("no Docker client found: apt-get install docker.io")
    return Path(found).parent
