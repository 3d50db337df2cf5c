# SPDX-License-Identifier: Apache-2.0
"""Traffic from inside a namespace, and what came of it."""

from __future__ import annotations

import argparse
import json
import select
import socket
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .frame import (
    CHUNK,
    SHOWN_ERRORS,
    TIMEOUT_S,
    Command,
    Target,
    allow_many_sockets,
    family,
    name_of,
    parser,
    run,
    tell,
)


class Tally:
    """Counts answers by what they say, and failures."""

    def __init__(self) -> None:
        self.ok = 0
        self.failed = 0
        self.errors: list[str] = []
        self.seen: dict[str, Counter[str]] = {
            name: Counter() for name in ("host", "peer", "local_port", "asked")
        }

    def answer(self, answer: dict[str, Any], asked: str = "") -> None:
        self.ok += 1
        for name, counter in self.seen.items():
            counter[asked if name == "asked" else str(answer[name])] += 1

    def failure(self, error: Exception) -> None:
        self.failed += 1
        if len(self.errors) < SHOWN_ERRORS:
            self.errors.append(f"{name_of(error)}: {error}")

    def result(self) -> dict[str, Any]:
        return {"ok": self.ok, "failed": self.failed, "errors": self.errors, **self.seen}


# --- HTTP -------------------------------------------------------------------------------


class Connection:
    """One HTTP/1.1 connection, kept alive."""

    def __init__(self, to: Target, source_port: int = 0) -> None:
        self.socket = socket.socket(family(to))
        self.socket.settimeout(TIMEOUT_S)
        if source_port:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(("0.0.0.0", source_port))
        try:
            self.socket.connect(to)
        except OSError:
            self.socket.close()
            raise
        self.asked = "{}:{}".format(*self.socket.getpeername()[:2])
        self.input = self.socket.makefile("rb")

    def close(self) -> None:
        self.input.close()
        self.socket.close()

    def identity(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(b"".join(self.request("GET", "/")))
        return answer

    def request(self, method: str, path: str, body: bytes = b"") -> Iterator[bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        self.socket.sendall(head.encode())
        self.socket.sendall(body)
        status, length = self._head()
        if status != 200:
            raise OSError(f"{method} {path}: status {status}")
        while length:
            chunk = self.input.read(min(CHUNK, length))
            if not chunk:
                raise OSError(f"{method} {path}: {length} bytes are missing")
            length -= len(chunk)
            yield chunk

    def _head(self) -> tuple[int, int]:
        status = self.input.readline().split()
        if len(status) < 2:
            raise OSError("closed before an answer")
        length = 0
        while (line := self.input.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return int(status[1]), length


def ask(to: Target, tally: Tally) -> None:
    """One request on a connection of its own."""
    try:
        connection = Connection(to)
        try:
            tally.answer(connection.identity(), connection.asked)
        finally:
            connection.close()
    except (OSError, ValueError) as error:
        tally.failure(error)


def http(options: argparse.Namespace) -> dict[str, Any]:
    """So many requests to each target."""
    tally = Tally()
    for to in options.targets:
        for _ in range(options.count):
            ask(to, tally)
    return tally.result()


def http_until_eof(options: argparse.Namespace) -> dict[str, Any]:
    """Requests to the targets in turn, until standard input ends."""
    tally = Tally()
    tell({})  # it has begun
    while not select.select([sys.stdin], [], [], 0.002)[0]:
        for to in options.targets:
            ask(to, tally)
    return tally.result()


def bulk(options: argparse.Namespace) -> dict[str, Any]:
    """Down and up on one connection, so that the host is known."""
    connection = Connection(options.targets[0])
    host = connection.identity()["host"]
    down = length = 0
    for chunk in connection.request("GET", f"/bytes/{options.size}"):
        down = zlib.crc32(chunk, down)
        length += len(chunk)
    body = bytes(i * 7 % 251 for i in range(251)) * (options.size // 251 + 1)
    body = body[: options.size]
    up = json.loads(b"".join(connection.request("POST", "/upload", body)))
    connection.close()
    return {
        "host": host,
        "length": length,
        "crc32": down,
        "sent_crc32": zlib.crc32(body),
        "received_length": up["length"],
        "received_crc32": int(up["crc32"], 16),
    }


def hold(options: argparse.Namespace) -> dict[str, Any]:
    """One connection; a request now, and one for each line of standard input."""
    connection = Connection(options.targets[0])
    tell(connection.identity())
    for _ in sys.stdin:
        tell(connection.identity())
    connection.close()
    return {}


def collide(options: argparse.Namespace) -> dict[str, Any]:
    """From each source port a connection to every target, all open at once; then each is used."""
    allow_many_sockets()
    tally, connections = Tally(), []
    for port in range(options.source_port, options.source_port + options.count):
        for to in options.targets:
            try:
                connections.append(Connection(to, port))
            except OSError as error:
                tally.failure(error)
    for _ in range(options.uses):
        for connection in connections:
            try:
                tally.answer(connection.identity(), connection.asked)
            except (OSError, ValueError) as error:
                tally.failure(error)
    for connection in connections:
        connection.close()
    return tally.result()


# --- UDP --------------------------------------------------------------------------------


class Pairs:
    """Datagrams and their answers, one pair at a time; unconnected, it sees who answered."""

    def __init__(self, to: Target, *, connected: bool, size: int) -> None:
        self.to = to
        self.connected = connected
        self.size = size
        self.socket = socket.socket(family(to), socket.SOCK_DGRAM)
        if connected:
            self.socket.connect(to)
        self.lost = self.wrong = self.bytes_out = self.bytes_in = 0
        self.hosts: Counter[str] = Counter()
        self.peers: Counter[str] = Counter()

    def pair(self, number: int) -> None:
        datagram = (b"%08d" % number).ljust(self.size, b".")
        if self.connected:
            self.socket.send(datagram)
        else:
            self.socket.sendto(datagram, self.to)
        self.bytes_out += len(datagram)
        while select.select([self.socket], [], [], TIMEOUT_S)[0]:
            try:
                data, sender = self.socket.recvfrom(CHUNK)
            except ConnectionRefusedError:
                break
            self.bytes_in += len(data)
            if self._is_answer(data, sender, datagram):
                return
        self.lost += 1

    def _is_answer(self, data: bytes, sender: tuple[Any, ...], datagram: bytes) -> bool:
        if sender[:2] != self.to:
            self.wrong += 1
            return True
        if not data.endswith(datagram):
            return False  # of an earlier pair that was given up
        answer = json.loads(data[: -len(datagram)])
        self.hosts[answer["host"]] += 1
        self.peers[answer["peer"]] += 1
        return True


def udp(options: argparse.Namespace) -> dict[str, Any]:
    """`count` pairs, spread over so many sockets, to the targets in turn."""
    targets = options.targets
    sockets = [
        Pairs(targets[i % len(targets)], connected=options.connected, size=options.size)
        for i in range(options.sockets)
    ]
    for number in range(options.count):
        sockets[number % len(sockets)].pair(number)
    return {
        "pairs": options.count,
        "lost": sum(s.lost for s in sockets),
        "wrong": sum(s.wrong for s in sockets),
        "bytes_out": sum(s.bytes_out for s in sockets),
        "bytes_in": sum(s.bytes_in for s in sockets),
        "host": sum((s.hosts for s in sockets), Counter()),
        "peer": sum((s.peers for s in sockets), Counter()),
    }


COMMANDS: dict[str, Command] = {
    "http": http,
    "http-until-eof": http_until_eof,
    "bulk": bulk,
    "hold": hold,
    "collide": collide,
    "udp": udp,
}


def main() -> None:
    made = parser(__doc__, COMMANDS)
    made.add_argument("--count", type=int, default=1)
    made.add_argument("--size", type=int, default=0)
    made.add_argument("--sockets", type=int, default=50)
    made.add_argument("--connected", action="store_true")
    made.add_argument("--source-port", type=int, default=0)
    made.add_argument("--uses", type=int, default=1)
    run(made, COMMANDS)


if __name__ == "__main__":
    main()
