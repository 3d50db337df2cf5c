# SPDX-License-Identifier: Apache-2.0
"""`lab.corner` from the tests' side: corner cases of sockets, and what came of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen
from typing import IO, Self

import msgspec

from .traffic import Place, Script


class Refused(msgspec.Struct, frozen=True):
    """How often each error was met; `slowest_s` is for people, no test may depend on it."""

    tcp: dict[str, int]
    udp: dict[str, int]
    slowest_s: float


class Reuse(msgspec.Struct, frozen=True):
    done: int
    errors: list[str]
    lost_syns: int

    def assert_all_at_once(self, count: int) -> Self:
        """None failed, and no SYN was lost."""
        assert self == Reuse(count, [], 0), self
        return self


class PathMtu(msgspec.Struct, frozen=True):
    """What the sender was told, and what it has learned of the way."""

    mtu: int
    error: str


class Hops(msgspec.Struct, frozen=True):
    """By target, who says "time exceeded" to each TTL from 1 on; the next one arrived."""

    tcp: list[list[str]]
    udp: list[list[str]]


class HalfClosed(msgspec.Struct, frozen=True):
    crc32: list[int]


class Kept:
    """Sockets that stay open. Who answers on each, or the name of the error that ended it."""

    def __init__(self, process: Popen[str]) -> None:
        self._process = process
        self.opened = self._answer()

    def says(self) -> list[str]:
        return self.begun_again("")

    def begun_again(self, host: str) -> list[str]:
        """The same, after those to `host` vanished, and began again from the same ports."""
        to = _pipe(self._process.stdin)
        to.write(f"{host}\n")
        to.flush()
        return self._answer()

    def _answer(self) -> list[str]:
        return msgspec.json.decode(_pipe(self._process.stdout).readline(), type=list[str])


class Waiting:
    """Half-closed connections with answers under way."""

    def __init__(self, process: Popen[str]) -> None:
        self._process = process
        assert _pipe(process.stdout).readline() == "{}\n"

    def read_on(self) -> HalfClosed:
        output, _ = self._process.communicate("go\n", timeout=100)
        return msgspec.json.decode(output, type=HalfClosed)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


class Corners(Script):
    """Starts the script somewhere in a lab."""

    NAME = "lab.corner"

    def refused(self, place: Place, *targets: str, count: int = 1) -> Refused:
        return self._run(place, Refused, "refused", *targets, f"--count={count}")

    def reuse(
        self, place: Place, *targets: str, source_port: int, count: int, reset: bool
    ) -> Reuse:
        how = [f"--source-port={source_port}", f"--count={count}", *["--reset"] * reset]
        return self._run(place, Reuse, "reuse", *targets, *how)

    def path_mtu(self, place: Place, target: str, size: int) -> PathMtu:
        return self._run(place, PathMtu, "path-mtu", target, f"--size={size}")

    def hops(self, place: Place, *targets: str) -> Hops:
        return self._run(place, Hops, "hops", *targets)

    def flood(self, place: Place, target: str, count: int) -> None:
        self._run(place, dict[str, str], "flood", target, f"--count={count}")

    @contextmanager
    def kept(
        self, place: Place, *targets: str, count: int = 1, udp: bool = False
    ) -> Iterator[Kept]:
        """So many sockets to each target."""
        how = [f"--count={count}", *["--udp"] * udp]
        with self._popen(place, "keep", *targets, *how) as process:
            try:
                yield Kept(process)
            finally:
                process.kill()

    @contextmanager
    def half_closed(self, place: Place, *targets: str, size: int) -> Iterator[Waiting]:
        with self._popen(place, "half-closed", *targets, f"--size={size}") as process:
            try:
                yield Waiting(process)
            finally:
                process.kill()
