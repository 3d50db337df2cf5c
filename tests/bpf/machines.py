# SPDX-License-Identifier: Apache-2.0
"""Machines with a network of their own, on a cable to the node under test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Machine:
    """A network namespace; it is gone with its last process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def ip(self, *lines: str) -> None:
        """Lines for `ip -batch`."""
        self._run(["ip", "-batch", "-"], "\n".join(lines))

    def sysctl(self, name: str, value: str) -> None:
        self._run(["tee", f"/proc/sys/{name}"], value)

    def _run(self, command: list[str], given: str) -> None:
        subprocess.run(
            ["nsenter", "-t", str(self.pid), "-n", *command],
            input=given,
            text=True,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def start(self, script: str) -> subprocess.Popen[str]:
        """A Python script, with its output piped."""
        return subprocess.Popen(
            ["nsenter", "-t", str(self.pid), "-n", sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, script: str) -> str:
        """What a Python script prints; of an error, the last line."""
        with self.start(script) as process:
            out, _ = process.communicate(timeout=30)
        return out.strip().rpartition("\n")[2]


@contextmanager
def machine() -> Iterator[Machine]:
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        try:
            yield Machine(process.pid)
        finally:
            process.stdin.close()
