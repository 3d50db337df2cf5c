# SPDX-License-Identifier: Apache-2.0
"""The node's own processes: a cgroup with the socket programs, and scripts that run in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ebpfmesh.datapath.cgroup import (
    HOST_PROGRAMS,
    attach_socket_programs,
    detach_socket_programs,
)
from ebpfmesh.datapath.loader import Module

_PREFIX = "ebpfmesh-test-"
_JOIN = "import os, socket; open(os.environ['CGROUP'] + '/cgroup.procs', 'w').write('0')\n"


class Asking:
    """A script that runs, and waits for a line now and then."""

    def __init__(self, running: subprocess.Popen[str]) -> None:
        self._running = running

    def line(self) -> str:
        """What it prints next."""
        assert self._running.stdout is not None
        return self._running.stdout.readline().strip()

    def go_on(self) -> None:
        """Gives it the line that it waits for."""
        assert self._running.stdin is not None
        self._running.stdin.write("\n")
        self._running.stdin.flush()


class Processes:
    """Runs Python scripts as processes of the node."""

    def __init__(self, cgroup: Path) -> None:
        self.cgroup = cgroup

    def run(self, script: str) -> str:
        """What the script prints; `socket` and `os` are imported already."""
        done = subprocess.run(
            [sys.executable, "-c", _JOIN + script],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return (done.stdout or done.stderr.strip().rpartition("\n")[2]).strip()

    @contextmanager
    def start(self, script: str) -> Iterator[Asking]:
        """The same of a script that is spoken with; it has to end by itself."""
        with subprocess.Popen(
            [sys.executable, "-c", _JOIN + script],
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as running:
            try:
                yield Asking(running)
                running.wait(20)
            finally:
                running.kill()

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CGROUP": str(self.cgroup)}


def _remove_left(root: Path) -> None:
    """Of those who were killed: their programs go with the cgroup."""
    for left in root.glob(f"{_PREFIX}*"):
        if not Path(f"/proc/{left.name.removeprefix(_PREFIX)}").exists():
            with suppress(FileNotFoundError):  # another worker was quicker
                left.rmdir()


@contextmanager
def node_processes(
    module: Module, pins: Path, programs: Mapping[str, int] = HOST_PROGRAMS
) -> Iterator[Processes]:
    """Processes of a cgroup of their own, with the programs of `module` at their sockets."""
    root = pins.with_name(f"{pins.name}-cgroups")  # goes with the sandbox, whatever ends it
    root.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "none", root], check=True)
    _remove_left(root)
    cgroup = root / f"{_PREFIX}{os.getpid()}"
    cgroup.mkdir()
    try:
        attach_socket_programs(module, str(cgroup), pins, programs)
        yield Processes(cgroup)
    finally:
        detach_socket_programs(str(cgroup), pins)
        cgroup.rmdir()
        subprocess.run(["umount", root], check=True)
        root.rmdir()
