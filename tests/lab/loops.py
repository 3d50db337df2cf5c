# SPDX-License-Identifier: Apache-2.0
"""`lab.closedloop` from the tests' side: clients in a closed loop, and what they counted."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from subprocess import Popen
from typing import Self, TypeVar

import msgspec

from .traffic import Place, Script

STOP_TIMEOUT_S = 60

T = TypeVar("T", "Mode", "Seen")


class End(msgspec.Struct, frozen=True):
    """Something that happened to a client; times are of the machine's monotonic clock.

    `target` is what it asked, `host` who had answered it before, `port` its own.
    """

    at_s: float
    mode: str
    target: str
    port: int
    host: str


class Failure(End, frozen=True):
    """A request that came to nothing: what kind, at which stage of it, after how long."""

    kind: str
    stage: str
    took_s: float

    @property
    def asked_s(self) -> float:
        return self.at_s - self.took_s


class Moved(End, frozen=True):
    """Datagrams of one socket: `now` answers them."""

    now: str


class Mode(msgspec.Struct, frozen=True):
    """Requests of one kind; `opened` connections or sockets, `closed` by the server as it may.

    `reused`: sockets of datagrams with a port that an earlier one had towards the same target.
    """

    ok: int = 0
    failed: int = 0
    opened: int = 0
    reused: int = 0
    closed: int = 0
    slow: int = 0
    slowest_s: float = 0.0

    def __add__(self, other: Mode) -> Mode:
        return Mode(
            self.ok + other.ok,
            self.failed + other.failed,
            self.opened + other.opened,
            self.reused + other.reused,
            self.closed + other.closed,
            self.slow + other.slow,
            max(self.slowest_s, other.slowest_s),
        )


class Seen(msgspec.Struct, frozen=True):
    """What one server has answered, and when the last new flow to it was asked for."""

    answers: int
    opened: int
    first_s: float
    last_s: float
    last_opened_s: float

    def __add__(self, other: Seen) -> Seen:
        return Seen(
            self.answers + other.answers,
            self.opened + other.opened,
            min(self.first_s, other.first_s),
            max(self.last_s, other.last_s),
            max(self.last_opened_s, other.last_opened_s),
        )


class Report(msgspec.Struct, frozen=True):
    """What came of all requests."""

    began_s: float
    lasted_s: float
    modes: dict[str, Mode]
    failures: list[Failure]
    closed: list[End]
    moved: list[Moved]
    hosts: dict[str, Seen]

    @property
    def total(self) -> Mode:
        return sum(self.modes.values(), Mode())

    def of_modes(self, *modes: str) -> Mode:
        return sum((self.modes.get(mode, Mode()) for mode in modes), Mode())

    def __add__(self, other: Report) -> Report:
        return Report(
            min(self.began_s, other.began_s),
            max(self.lasted_s, other.lasted_s),
            _added(self.modes, other.modes),
            sorted([*self.failures, *other.failures], key=lambda failure: failure.at_s),
            self.closed + other.closed,
            self.moved + other.moved,
            _added(self.hosts, other.hosts),
        )

    def assert_none_failed(self) -> Self:
        assert self.total.failed == 0, describe(self.failures, self.began_s)
        assert self.total.ok > 0
        return self


def _added(one: dict[str, T], other: dict[str, T]) -> dict[str, T]:
    both = dict(one)
    for key, value in other.items():
        both[key] = both[key] + value if key in both else value
    return both


def describe(failures: Collection[Failure], since_s: float) -> str:
    """How many of each kind, and when, for people."""
    kinds: dict[tuple[str, ...], list[Failure]] = {}
    for failure in failures:
        key = (failure.mode, failure.target, failure.kind, failure.stage, failure.host)
        kinds.setdefault(key, []).append(failure)
    lines = [
        f"{len(found):4} x {' '.join(key)}: asked {found[0].asked_s - since_s:.2f} s"
        f" to {found[-1].asked_s - since_s:.2f} s, ports {[f.port for f in found[:3]]}"
        for key, found in kinds.items()
    ]
    return "\n".join(lines) or "nothing failed"


class Running:
    """Clients that go on until they are stopped."""

    def __init__(self, process: Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stdout.readline() == "{}\n"
        self._process = process
        self._report: Report | None = None

    def stop(self) -> Report:
        if self._report is None:
            output, _ = self._process.communicate(timeout=STOP_TIMEOUT_S)
            self._report = decode(output)
        return self._report


def decode(output: str) -> Report:
    """The script's own times count from its start."""
    raw = msgspec.json.decode(output)
    began_s = raw["began_s"]
    for event in (*raw["failures"], *raw["closed"], *raw["moved"]):
        event["at_s"] += began_s
    for seen in raw["hosts"].values():
        for name in ("first_s", "last_s", "last_opened_s"):
            seen[name] += began_s
    return msgspec.convert(raw, Report)


class Loops(Script):
    """Starts the clients somewhere in a lab."""

    NAME = "lab.closedloop"

    @contextmanager
    def running(
        self,
        place: Place,
        *targets: str,
        modes: Collection[str] = ("keep", "once", "udp"),
        clients: int = 32,
        held: int = 0,
        pause_ms: int = 100,
        timeout_s: float,
    ) -> Iterator[Running]:
        how = [
            *(f"--modes={','.join(modes)}", f"--clients={clients}", f"--held={held}"),
            *(f"--pause-ms={pause_ms}", f"--timeout-s={timeout_s}"),
        ]
        with self._popen(place, "run", *targets, *how) as process:
            try:
                yield Running(process)
            finally:
                process.kill()
