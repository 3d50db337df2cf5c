# SPDX-License-Identifier: Apache-2.0
"""The load client from the tests' side: where it runs, and what it found."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple, Self, TypeVar

import msgspec

from ebpfmesh.lab import images
from ebpfmesh.lab.lab import Lab

MB = 1_000_000

_TIMEOUT_S = 100
_ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[1])}

T = TypeVar("T")


class Place(NamedTuple):
    """A namespace of the lab, or the container of this process id on a node."""

    name: str
    pid: int | None = None

    def argv(self, argv: Sequence[str]) -> list[str]:
        enter = [] if self.pid is None else ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]
        return [*enter, *argv]


CLIENT = Place("client")


class Http(msgspec.Struct, frozen=True):
    """Requests that succeeded and failed; the rest counts answers by what they said."""

    ok: int
    failed: int
    errors: list[str]
    host: dict[str, int]
    peer: dict[str, int]
    local_port: dict[str, int]
    asked: dict[str, int]

    def assert_none_failed(self) -> Self:
        assert (self.failed, self.errors) == (0, [])
        assert self.ok > 0
        return self


class Udp(msgspec.Struct, frozen=True):
    pairs: int
    lost: int
    wrong: int
    bytes_out: int
    bytes_in: int
    host: dict[str, int]
    peer: dict[str, int]


class Bulk(msgspec.Struct, frozen=True):
    host: str
    length: int
    crc32: int
    sent_crc32: int
    received_length: int
    received_crc32: int

    def assert_intact(self, size: int) -> None:
        assert (self.length, self.crc32) == (size, pattern_crc32(size))
        assert (self.received_length, self.received_crc32) == (size, self.sent_crc32)


@cache
def pattern_crc32(size: int) -> int:
    return zlib.crc32(images.pattern(size))


class Background:
    """A load client that goes on until it is stopped."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def started(self) -> None:
        assert _pipe(self._process.stdout).readline() == "{}\n"

    def stop(self) -> Http:
        output, _ = self._process.communicate(timeout=_TIMEOUT_S)
        return msgspec.json.decode(output, type=Http)


class Held:
    """An open connection; `opened` is its first answer."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.opened = self._answer()

    def ask(self) -> dict[str, Any]:
        to = _pipe(self._process.stdin)
        to.write("again\n")
        to.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = _pipe(self._process.stdout).readline()
        assert line, "the connection is broken"
        return msgspec.json.decode(line, type=dict[str, Any])


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


class Script:
    """Runs one of the scripts beside this file somewhere in a lab."""

    NAME: str

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def _run(self, place: Place, kind: type[T], *args: str) -> T:
        argv = self._argv(place, args)
        done = self._lab.run(place.name, argv, timeout_s=_TIMEOUT_S, env=_ENVIRONMENT)
        return msgspec.json.decode(done.stdout, type=kind)

    def _popen(self, place: Place, *args: str) -> subprocess.Popen[str]:
        argv = self._argv(place, args)
        pipe = subprocess.PIPE
        return self._lab.popen(place.name, argv, stdin=pipe, stderr=None, env=_ENVIRONMENT)

    def _argv(self, place: Place, args: Sequence[str]) -> list[str]:
        return place.argv([sys.executable, "-m", self.NAME, *args])


class Load(Script):
    """Starts the load client somewhere in a lab."""

    NAME = "lab.load"

    def http(self, place: Place, *targets: str, count: int = 1) -> Http:
        return self._run(place, Http, "http", *targets, f"--count={count}")

    def collide(
        self, place: Place, *targets: str, source_port: int, count: int, uses: int = 2
    ) -> Http:
        ports = (f"--source-port={source_port}", f"--count={count}", f"--uses={uses}")
        return self._run(place, Http, "collide", *targets, *ports)

    def udp(
        self,
        place: Place,
        *targets: str,
        count: int,
        connected: bool = False,
        sockets: int = 50,
        size: int = 0,
    ) -> Udp:
        how = [f"--count={count}", f"--sockets={sockets}", f"--size={size}"]
        how += ["--connected"] * connected
        return self._run(place, Udp, "udp", *targets, *how)

    def bulk(self, place: Place, target: str, size: int) -> Bulk:
        return self._run(place, Bulk, "bulk", target, f"--size={size}")

    @contextmanager
    def background(self, place: Place, *targets: str) -> Iterator[Background]:
        """Requests all the while; `stop` tells what came of them."""
        with self._popen(place, "http-until-eof", *targets) as process:
            background = Background(process)
            background.started()
            try:
                yield background
            finally:
                process.kill()

    @contextmanager
    def held(self, place: Place, target: str) -> Iterator[Held]:
        """A connection that stays open."""
        with self._popen(place, "hold", target) as process:
            try:
                yield Held(process)
            finally:
                process.kill()
