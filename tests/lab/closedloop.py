# SPDX-License-Identifier: Apache-2.0
"""Clients in a closed loop that count every request: each asks, waits for the answer, rests, asks.

`run` goes on until standard input ends. Each mode has `--clients` of them, which share the targets:

- ``keep``: one connection for as long as the server keeps it
- ``once``: a connection for each request
- ``udp``: a socket for each datagram
- ``udp-kept``: one socket for all of them
- ``hold``: `--held` connections in all, asked in turn; one that has ended is not opened again

A datagram is sent again after `--again-s`, as resolvers do.

What is no failure: a server that closes a kept connection between two requests, or says with an
answer that it will. Everything else is: no answer within `--timeout-s`, an end before the answer,
a reset of an idle connection, and an answer by another server than before on one connection.
"""

from __future__ import annotations

import argparse
import errno
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .frame import CHUNK, Command, Target, allow_many_sockets, connected_udp, parser, run, tell

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
MAX_FAILURES = 2000
SLOW_S = 0.9
"""What takes longer has most likely lost a packet: TCP sends a SYN again after a second."""

_KINDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ETIMEDOUT: "timeout",
}


class Failed(Exception):
    """A request came to nothing."""

    def __init__(self, kind: str, stage: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.stage = stage

    @classmethod
    def by(cls, error: OSError, stage: str) -> Failed:
        kind = "timeout" if isinstance(error, TimeoutError) else _KINDS.get(error.errno or 0)
        return cls(kind or type(error).__name__, stage)


class Tally:
    """What came of all requests; the clients share it."""

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self._lock = threading.Lock()
        self.modes: dict[str, dict[str, float]] = {}
        self.failures: list[dict[str, Any]] = []
        self.closed: list[dict[str, Any]] = []
        self.moved: list[dict[str, Any]] = []
        self.hosts: dict[str, dict[str, float]] = {}
        self._datagrams: set[tuple[Target, int]] = set()

    def answer(self, mode: str, client: Session, took_s: float, *, opened: bool) -> None:
        now_s, host = time.monotonic() - self.began_s, client.host
        with self._lock:
            counts = self._mode(mode)
            reused = opened and self._is_used(mode, client)
            counts["ok"] += 1
            counts["opened"] += opened
            counts["reused"] += reused
            counts["slow"] += took_s > SLOW_S
            counts["slowest_s"] = max(counts["slowest_s"], took_s)
            seen = self.hosts.setdefault(
                host, {"answers": 0, "opened": 0, "first_s": now_s, "last_opened_s": 0.0}
            )
            seen["answers"] += 1
            seen["opened"] += opened
            seen["last_s"] = now_s
            if opened and not reused:
                seen["last_opened_s"] = now_s - took_s

    def failure(self, mode: str, client: Session, failed: Failed, took_s: float) -> None:
        with self._lock:
            self._mode(mode)["failed"] += 1
            self._is_used(mode, client)
            if len(self.failures) < MAX_FAILURES:
                what = {"kind": failed.kind, "stage": failed.stage, "took_s": took_s}
                self.failures.append(self._event(mode, client) | what)

    def end(self, mode: str, client: Session) -> None:
        """The server has closed a connection, as it may."""
        with self._lock:
            self._mode(mode)["closed"] += 1
            if mode == "hold":
                self.closed.append(self._event(mode, client))

    def move(self, mode: str, client: Session, now: str) -> None:
        """Another server has answered a datagram than the one before."""
        with self._lock:
            self.moved.append(self._event(mode, client) | {"now": now})

    def _is_used(self, mode: str, client: Session) -> bool:
        """Whether a socket has had an earlier one's port: to those on the way, that goes on."""
        if not mode.startswith("udp"):
            return False
        known = len(self._datagrams)
        self._datagrams.add((client.target, client.port))
        return len(self._datagrams) == known

    def _mode(self, mode: str) -> dict[str, float]:
        zero: dict[str, float] = {
            **dict.fromkeys(("ok", "failed", "opened", "reused", "closed", "slow"), 0),
            "slowest_s": 0.0,
        }
        return self.modes.setdefault(mode, zero)

    def _event(self, mode: str, client: Session) -> dict[str, Any]:
        return {
            "at_s": time.monotonic() - self.began_s,
            "mode": mode,
            "target": "{}:{}".format(*client.target),
            "port": client.port,
            "host": client.host,
        }

    def result(self) -> dict[str, Any]:
        return {
            "began_s": self.began_s,
            "lasted_s": time.monotonic() - self.began_s,
            "modes": self.modes,
            "failures": self.failures,
            "closed": self.closed,
            "moved": self.moved,
            "hosts": self.hosts,
        }


class Session(Protocol):
    """What is asked: `host` is who has answered last, `port` is this end's."""

    target: Target
    host: str
    port: int

    def ask(self) -> bool:
        """One request; says whether it has opened something new. Raises `Failed`."""


class Http:
    """One connection at a time."""

    def __init__(self, target: Target, timeout_s: float, *, keep: bool, ended: Ended) -> None:
        self.target = target
        self.host = ""
        self.port = 0
        self._keep = keep
        self._ended = ended
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def ask(self) -> bool:
        self.look()
        opened = self._socket is None
        connection = self._socket or self._connect()
        try:
            host, stays = _answer(connection)
        except OSError as error:
            self.close()
            raise Failed.by(error, "answer") from error
        except Failed:
            self.close()
            raise
        before, self.host = self.host, host
        if not opened and host != before:
            self.close()
            raise Failed("moved", "answer")
        if not (stays and self._keep):
            self.close()
            if self._keep:
                self._ended(self)
        return opened

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def look(self) -> None:
        """Whether the connection has ended since the last answer, and how."""
        if self._socket is None:
            return
        try:
            self._socket.settimeout(0)
            rest = self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            self._socket.settimeout(self._timeout_s)
            return
        except OSError as error:
            self.close()
            raise Failed.by(error, "idle") from error
        self.close()
        if rest:
            raise Failed("unasked", "idle")
        self._ended(self)

    def _connect(self) -> socket.socket:
        made = socket.socket()
        made.settimeout(self._timeout_s)
        try:
            made.connect(self.target)
        except OSError as error:
            self.port = made.getsockname()[1]
            made.close()
            raise Failed.by(error, "connect") from error
        self.port = made.getsockname()[1]
        self._socket = made
        return made


def _answer(connection: socket.socket) -> tuple[str, bool]:
    """Who answers a request, and whether the connection stays."""
    connection.sendall(REQUEST)
    got = b""
    while not got.endswith(b"}\n"):
        more = connection.recv(CHUNK)
        if not more:
            raise Failed("cut" if got else "unanswered", "answer")
        got += more
    head, _, body = got.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise Failed(head[9:12].decode(errors="replace"), "answer")
    return json.loads(body)["host"], b"Connection: close" not in head


class Udp:
    """Datagrams with numbers."""

    def __init__(
        self, target: Target, timeout_s: float, again_s: float, *, keep: bool, moved: Moved
    ) -> None:
        self.target = target
        self.host = ""
        self.port = 0
        self._keep = keep
        self._moved = moved
        self._timeout_s = timeout_s
        self._again_s = again_s
        self._number = 0
        self._socket: socket.socket | None = None

    def ask(self) -> bool:
        opened = self._socket is None
        connected = self._socket or connected_udp(self.target, self._timeout_s)
        self.port = connected.getsockname()[1]
        self._number += 1
        try:
            datagram = b"%016d" % self._number
            host = _echo(connected, datagram, self._timeout_s, self._again_s)
        except OSError as error:
            raise Failed.by(error, "answer") from error
        finally:
            self._socket = connected if self._keep else None
            if not self._keep:
                connected.close()
        if not opened and host != self.host:
            self._moved(self, host)
        self.host = host
        return opened


def _echo(connected: socket.socket, datagram: bytes, timeout_s: float, again_s: float) -> str:
    until_s = time.monotonic() + timeout_s
    while (left_s := until_s - time.monotonic()) > 0:
        connected.send(datagram)
        again_at_s = time.monotonic() + min(again_s, left_s)
        while (wait_s := again_at_s - time.monotonic()) > 0:
            connected.settimeout(wait_s)
            try:
                answer = connected.recv(CHUNK)
            except TimeoutError:
                break
            if answer.endswith(datagram):  # and not of one that was given up
                return str(json.loads(answer[: -len(datagram)])["host"])
    raise TimeoutError


Ended = Callable[["Http"], None]
Moved = Callable[["Udp", str], None]


class Loops:
    """All clients: a thread each, and one for all connections that are held."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._tally = Tally()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop, args=(mode, self._session(mode, number), number))
            for mode in options.modes
            for number in range(options.clients)
        ]
        if options.held:
            self._threads.append(threading.Thread(target=self._hold))

    def run(self) -> dict[str, Any]:
        for thread in self._threads:
            thread.start()
        tell({})  # it has begun
        sys.stdin.read()
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self._tally.result()

    def _session(self, mode: str, number: int) -> Session:
        target = self._options.targets[number % len(self._options.targets)]
        keep = mode in {"keep", "udp-kept", "hold"}
        timeout_s = self._options.timeout_s
        if mode.startswith("udp"):
            return Udp(
                target,
                timeout_s,
                self._options.again_s,
                keep=keep,
                moved=lambda client, host: self._tally.move(mode, client, host),
            )
        return Http(target, timeout_s, keep=keep, ended=lambda c: self._tally.end(mode, c))

    def _loop(self, mode: str, session: Session, number: int) -> None:
        """They do not all begin at once, but each asks once at least."""
        pause_s = self._options.pause_ms / 1000
        self._stop.wait(pause_s * number / self._options.clients)
        self._ask(mode, session)
        while not self._stop.wait(pause_s):
            self._ask(mode, session)

    def _ask(self, mode: str, session: Session) -> None:
        began_s = time.monotonic()
        try:
            opened = session.ask()
        except Failed as failed:
            self._tally.failure(mode, session, failed, time.monotonic() - began_s)
        else:
            took_s = time.monotonic() - began_s
            self._tally.answer(mode, session, took_s, opened=opened)

    def _hold(self) -> None:
        """Each once a round; a round takes `--round-s`."""
        options, held = self._options, []
        for number in range(options.held):
            session = self._session("hold", number)
            assert isinstance(session, Http)
            self._ask("hold", session)
            held.append(session)
        while not self._stop.is_set():
            round_began_s = time.monotonic()
            held = [session for session in held if session.is_open]
            for number, session in enumerate(held):
                due_s = round_began_s + options.round_s * number / len(held)
                if self._stop.wait(max(0.0, due_s - time.monotonic())):
                    return
                self._ask_held(session)
            self._stop.wait(max(0.0, round_began_s + options.round_s - time.monotonic()))

    def _ask_held(self, session: Http) -> None:
        """Unless it ended, as it may: that is told, and no other is opened."""
        try:
            session.look()
        except Failed as failed:
            self._tally.failure("hold", session, failed, 0.0)
        if session.is_open:
            self._ask("hold", session)


def closed_loop(options: argparse.Namespace) -> Mapping[str, Any]:
    """Until standard input ends."""
    allow_many_sockets()
    return Loops(options).run()


COMMANDS: dict[str, Command] = {"run": closed_loop}


def main() -> None:
    made = parser(__doc__, COMMANDS)
    made.add_argument("--modes", type=lambda text: text.split(","), default=["keep", "once", "udp"])
    made.add_argument("--clients", type=int, default=32)
    made.add_argument("--held", type=int, default=0)
    made.add_argument("--round-s", type=float, default=2.0)
    made.add_argument("--pause-ms", type=float, default=100.0)
    made.add_argument("--timeout-s", type=float, default=5.0)
    made.add_argument("--again-s", type=float, default=1.0)
    run(made, COMMANDS)


if __name__ == "__main__":
    main()
