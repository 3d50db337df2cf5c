# SPDX-License-Identifier: Apache-2.0
"""Control groups: each node has one, which holds its daemons and its containers.

It is what a node's root group would be on a machine of its own: programs attached to it
see this node's processes only. And whoever is in it belongs to the lab, whatever
namespaces he has moved to since.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.processes import wait_until

_LAB = "ebpfmesh-lab"
_HOST = "host"  # a group with children may not hold processes itself
_CONTAINERS = "containers"
_EMPTY_TIMEOUT_S = 5


def of_place(place: str) -> Path:
    """The group of a node, or of the client or the LAN, in the unified hierarchy."""
    return require_unified() / _LAB / place


def of_daemons(place: str) -> Path:
    """Where the processes go that are in no container."""
    return of_place(place) / _HOST


def parent_of_containers(place: str) -> str:
    """For dockerd: relative to the root of every hierarchy."""
    return f"/{_LAB}/{place}/{_CONTAINERS}"


def create(place: str) -> None:
    """Make a place's group, unless it is there."""
    of_daemons(place).mkdir(parents=True, exist_ok=True)


def members() -> set[int]:
    """Every process in the lab's groups."""
    return {
        int(line)
        for root in _lab_groups()
        for procs in root.rglob("cgroup.procs")
        for line in _lines(procs)
    }


def remove() -> None:
    """Take the groups away, deepest first. The kernel empties them a little after the end."""
    for root in _lab_groups():
        if not wait_until(partial(_removed, root), _EMPTY_TIMEOUT_S):
            raise LabError(f"{root} still holds processes: {sorted(members())}")


def _removed(root: Path) -> bool:
    for directory, _, _ in os.walk(root, topdown=False):
        try:
            Path(directory).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def _lines(procs: Path) -> list[str]:
    try:
        return procs.read_text().split()
    except OSError:  # the group went away, or is one of threads
        return []


def _lab_groups() -> list[Path]:
    groups = [Path(target) / _LAB for target, _ in _hierarchies()]
    return [group for group in groups if group.is_dir()]


def require_unified() -> Path:
    """Where the unified hierarchy is mounted."""
    for target, kind in _hierarchies():
        if kind == "cgroup2":
            return Path(target)
    raise LabError("no cgroup2 hierarchy is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")


def _hierarchies() -> list[tuple[str, str]]:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [(target, kind) for _, target, kind, *_ in mounts if kind in ("cgroup", "cgroup2")]
