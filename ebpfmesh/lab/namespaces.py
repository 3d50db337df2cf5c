# SPDX-License-Identifier: Apache-2.0
"""The way into a namespace: command lines that run another command inside.

`nsenter`, never `ip netns exec`: that one remounts /sys and hides the control groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ebpfmesh.lab import cgroup

_DIRECTORY = Path("/run/netns")
_JOIN_GROUP = 'echo 0 >"$0" && exec "$@"'
_OWN_RESOLVER = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


def path(name: str) -> Path:
    """Where `ip netns` keeps a namespace."""
    return _DIRECTORY / name


def inode(name: str) -> int | None:
    """The identity of the namespace that has this name now, if one has."""
    try:
        return path(name).stat().st_ino
    except FileNotFoundError:
        return None


def in_network(name: str, argv: Sequence[str]) -> list[str]:
    """Inside the network namespace only."""
    return ["nsenter", f"--net={path(name)}", "--", *argv]


def in_place(name: str, argv: Sequence[str]) -> list[str]:
    """Inside the client or the LAN: network namespace and control group."""
    return _in_group(name, in_network(name, argv))


def in_node(name: str, holder: int, argv: Sequence[str]) -> list[str]:
    """Inside a node: network, mount and host name namespaces, and control group."""
    directory = f"--wdns={_working_directory()}"
    enter = ["nsenter", f"--target={holder}", "--net", "--mount", "--uts", directory, "--"]
    return _in_group(name, [*enter, *argv])


def in_container(name: str, holder: int, pid: int, resolver: str, argv: Sequence[str]) -> list[str]:
    """The node's tools in a container's network: with its addresses, routes and name service."""
    enter = ["nsenter", f"--target={holder}", "--mount", "--uts", f"--net=/proc/{pid}/ns/net"]
    private = ["unshare", "--mount", "sh", "-c", _OWN_RESOLVER, resolver]
    return _in_group(name, [*enter, "--", *private, *argv])


def _in_group(name: str, argv: Sequence[str]) -> list[str]:
    return ["sh", "-c", _JOIN_GROUP, str(cgroup.of_daemons(name) / "cgroup.procs"), *argv]


def _working_directory() -> Path:
    """Where we are, unless a node has something else there."""
    here = Path.cwd()
    return Path("/") if here.is_relative_to("/run") else here


def inhabitants(inodes: set[int]) -> set[int]:
    """The processes whose network or mount namespace is one of these."""
    processes = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {pid for pid in processes if not inodes.isdisjoint(inodes_of(pid).values())}


def inodes_of(pid: int) -> dict[str, int]:
    """The namespaces that a process is in; none of one that is gone, or not ours to look at."""
    directory = Path(f"/proc/{pid}/ns")
    try:
        return {kind: (directory / kind).stat().st_ino for kind in ("net", "mnt")}
    except OSError:
        return {}
