# SPDX-License-Identifier: Apache-2.0
"""The other processes of the bench. Each prints lines of JSON, and ends with its standard input."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.machine import ROOT, resident_mb
from bench.swarm import Size


class Child:
    """One of them."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def line(self) -> str:
        """The next thing that it says."""
        assert self._process.stdout
        text = self._process.stdout.readline()
        if not text:
            raise ChildProcessError(f"{self._process.args!r} ended: {self._process.wait()}")
        return text.decode().strip()

    def event(self, kind: str) -> dict[str, Any]:
        """The next of this kind."""
        while True:
            found: dict[str, Any] = msgspec.json.decode(self.line())
            if found["event"] == kind:
                return found

    @property
    def cpu_s(self) -> float:
        """CPU time of its threads so far (kernel: sched-stats)."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(path.read_text().split()[0]) for path in threads) / 1e9

    @property
    def resident_mb(self) -> float:
        """Resident memory, in MB."""
        return resident_mb(self.pid)


@contextmanager
def child(module: str, *arguments: str) -> Iterator[Child]:
    """Runs ``python -m bench.scale.<module>``; it is gone when left."""
    command = [sys.executable, "-m", f"bench.scale.{module}", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        try:
            yield Child(process)
        finally:
            assert process.stdin
            process.stdin.close()


@contextmanager
def dockerd(path: Path, size: Size) -> Iterator[Child]:
    """A made-up dockerd, ready."""
    with child("dockerd", str(path), msgspec.json.encode(size).decode()) as process:
        process.line()
        yield process


def change(path: Path, *, gone: list[str] | None = None, put: list[Any] | None = None) -> None:
    """Tells the made-up dockerd what has changed in its Swarm."""
    body = msgspec.json.encode({"gone": gone or [], "put": put or []})
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    connection.request("POST", "/change", body)
    assert connection.getresponse().status == http.client.OK
    connection.close()
