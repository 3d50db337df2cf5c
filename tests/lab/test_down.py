# SPDX-License-Identifier: Apache-2.0
"""A lab that is taken down leaves nothing. It has a lab of its own, before all others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ebpfmesh.lab.lab import Lab
from ebpfmesh.lab.paths import lab_paths


def processes() -> set[str]:
    """Of user space, but for this test's own helpers; zombies have ended."""
    listed = run("ps", "-e", "--no-headers", "-o", "pid,ppid,stat,comm")
    others = {str(os.getpid()), "2"}
    rows = [line.split(maxsplit=3) for line in listed.splitlines()]
    return {
        f"{pid} {name}"
        for pid, parent, state, name in rows
        if parent not in others and state[0] != "Z"
    }


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def groups() -> set[str]:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [Path(target) for _, target, kind, *_ in mounts if kind.startswith("cgroup")]
    return {str(path) for root in roots for path in root.rglob("ebpfmesh*")}


def world() -> dict[str, object]:
    return {
        "namespaces": run("ip", "netns"),
        "links": [line.split(": ")[1] for line in run("ip", "-o", "link").splitlines()],
        "mounts": Path("/proc/self/mounts").read_text(),
        "bpf": sorted(map(str, Path("/sys/fs/bpf").rglob("*"))),
        "groups": groups(),
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "directory": lab_paths().root.exists(),
    }


def test_down_leaves_nothing() -> None:
    if os.geteuid() != 0:
        pytest.fail("a lab makes namespaces: run this as root", pytrace=False)
    before, running = world(), processes()
    lab = Lab.up(nodes=1)
    try:
        lab.deploy("vote", replicas=2, publish=["8080:80"])
        lab.wait_for_replicas("vote", 2)
        assert processes() - running
    finally:
        lab.down()
    assert world() == before
    left = {line for line in processes() - running if "ebpfmesh" in line or is_of_lab(line)}
    assert left == set()


def is_of_lab(line: str) -> bool:
    names = ("dockerd", "containerd", "runc", "echo-server", "sleep", "python")
    return line.split(maxsplit=1)[1].startswith(names)
