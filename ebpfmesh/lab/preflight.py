# SPDX-License-Identifier: Apache-2.0
"""What must be there, and what must not, before a lab is begun."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ebpfmesh.lab import cgroup, namespaces
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.paths import LabPaths
from ebpfmesh.lab.state import drafts

_SOCKET_PATH_MAX = 107

_PACKAGE_OF = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "containerd": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "ethtool": "ethtool",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "busybox": "busybox-static",
    "gcc": "gcc",
}


def check(names: tuple[str, ...], paths: LabPaths, engine: str = "") -> None:
    """Raise with the way out, before anything has been changed."""
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces and mounts: run it as root")
    missing = sorted({_PACKAGE_OF[tool] for tool in _PACKAGE_OF if not shutil.which(tool)})
    if missing:
        raise LabError(f"the lab needs more programs: apt-get install {' '.join(missing)}")
    taken = [name for name in names if namespaces.path(name).exists()]
    if taken:
        raise LabError(
            f"network namespaces of these names exist already: {', '.join(taken)}; "
            "end the other lab, or remove each with: ip netns delete NAME"
        )
    if engine and not Path(engine, "usr/sbin/dockerd").exists():
        raise LabError(f"{engine} has no usr/sbin/dockerd: it is no system with Docker Engine")
    cgroup.require_unified()
    _check_directory(names, paths)


def _check_directory(names: tuple[str, ...], paths: LabPaths) -> None:
    if paths.root.is_relative_to("/run"):
        raise LabError(f"{paths.root} cannot hold a lab: each node has a /run of its own")
    longest = max(len(str(paths.node(name).docker_socket)) for name in names)
    if longest > _SOCKET_PATH_MAX:
        raise LabError(f"{paths.root} is too long a path for sockets below it")
    if paths.root.exists() and set(paths.root.iterdir()) - set(drafts(paths.record)):
        raise LabError(f"{paths.root} is not empty, and not a lab: choose another directory")
