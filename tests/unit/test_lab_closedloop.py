# SPDX-License-Identifier: Apache-2.0
"""The clients in a closed loop, themselves tested: whatever goes wrong is in their report."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.lab.closedloop import Tally, Udp
from tests.lab.loops import Failure, Report, Running

TESTS = Path(__file__).parents[1]
LINGER_0 = struct.pack("ii", 1, 0)
ENOUGH = 6
TIMEOUT_S = 20

Connection = socket.socket
Serve = Callable[["Server", Connection], None]


class Server:
    """Does with each connection what it is told to, and counts the requests."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._more = threading.Condition()
        self._requests = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: Connection) -> None:
        with connection, suppress(OSError):
            self._serve(self, connection)

    def request(self, connection: Connection) -> bool:
        if not connection.recv(4096):
            return False
        with self._more:
            self._requests += 1
            self._more.notify_all()
        return True

    def wait_asked(self, count: int) -> None:
        with self._more:
            assert self._more.wait_for(lambda: self._requests >= count, TIMEOUT_S)

    def close(self) -> None:
        self._listener.close()


def answer(connection: Connection, host: str = "one", stays: str = "keep-alive") -> None:
    body = json.dumps({"host": host}) + "\n"
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: {stays}\r\n\r\n"
    connection.sendall((head + body).encode())


def reset(connection: Connection) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)


def always(server: Server, connection: Connection) -> None:
    while server.request(connection):
        answer(connection)


def once(server: Server, connection: Connection) -> None:
    server.request(connection)
    answer(connection)


def once_and_says_so(server: Server, connection: Connection) -> None:
    server.request(connection)
    answer(connection, stays="close")
    connection.recv(1)


def never(server: Server, connection: Connection) -> None:
    server.request(connection)


def silence(server: Server, connection: Connection) -> None:
    server.request(connection)
    connection.recv(1)


def half(server: Server, connection: Connection) -> None:
    server.request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")


def error(server: Server, connection: Connection) -> None:
    server.request(connection)
    connection.sendall(b"HTTP/1.1 503 Unavailable\r\n\r\n{}\n")


def reset_at_once(server: Server, connection: Connection) -> None:
    server.request(connection)
    reset(connection)


def reset_when_idle(server: Server, connection: Connection) -> None:
    server.request(connection)
    answer(connection)
    reset(connection)


def two_hosts(server: Server, connection: Connection) -> None:
    server.request(connection)
    answer(connection)
    while server.request(connection):
        answer(connection, "two")


@contextmanager
def clients(target: str, *options: str) -> Iterator[Running]:
    argv = [sys.executable, "-m", "lab.closedloop", "run", target, "--clients=2", "--pause-ms=10"]
    with subprocess.Popen(
        [*argv, "--timeout-s=20", "--round-s=0.02", *options],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def report_of(serve: Serve, *options: str) -> Report:
    """After some requests to a server that behaves in this way."""
    server = Server(serve)
    try:
        with clients(f"127.0.0.1:{server.port}", *options) as running:
            server.wait_asked(ENOUGH)
            return running.stop()
    finally:
        server.close()


def kinds(failures: list[Failure]) -> Counter[tuple[str, str]]:
    return Counter((failure.kind, failure.stage) for failure in failures)


@pytest.mark.parametrize("mode", ["keep", "once"])
@pytest.mark.parametrize("serve", [always, once, once_and_says_so])
def test_a_clean_end_is_no_failure(serve: Serve, mode: str) -> None:
    report = report_of(serve, f"--modes={mode}").assert_none_failed()
    found = report.modes[mode]
    assert report.hosts["one"].answers == found.ok >= ENOUGH
    if mode == "once":
        assert found.opened == found.ok
    elif serve is always:
        assert (found.opened, found.closed) == (2, 0)
    else:
        assert found.closed >= found.opened - 2 > 0


@pytest.mark.parametrize(
    ("serve", "expected"),
    [
        (never, {("unanswered", "answer")}),
        (half, {("cut", "answer")}),
        (error, {("503", "answer")}),
        (silence, {("timeout", "answer")}),
        (reset_at_once, {("reset", "answer")}),
    ],
)
@pytest.mark.parametrize("mode", ["keep", "once"])
def test_every_request_that_comes_to_nothing_is_told(
    serve: Serve, expected: set[tuple[str, str]], mode: str
) -> None:
    patience = ["--timeout-s=0.2"] * (serve is silence)
    report = report_of(serve, f"--modes={mode}", *patience)
    assert report.total.ok == 0
    assert report.total.failed == len(report.failures) >= ENOUGH
    assert set(kinds(report.failures)) == expected
    with pytest.raises(AssertionError, match=next(iter(expected))[0]):
        report.assert_none_failed()


def test_a_reset_between_two_requests_is_told() -> None:
    report = report_of(reset_when_idle, "--modes=keep")
    assert ("reset", "idle") in kinds(report.failures)
    assert {failure.host for failure in report.failures} == {"one"}


def test_another_server_on_one_connection_is_told() -> None:
    report = report_of(two_hosts, "--modes=keep")
    assert set(kinds(report.failures)) == {("moved", "answer")}


@pytest.mark.parametrize("mode", ["keep", "once", "udp", "udp-kept"])
def test_nobody_there_is_told(mode: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        target = "{}:{}".format(*probe.getsockname())
        with clients(target, f"--modes={mode}") as running:
            report = running.stop()
    assert report.total.failed == len(report.failures) >= 2
    stage = "answer" if mode.startswith("udp") else "connect"
    assert set(kinds(report.failures)) == {("refused", stage)}
    for failure in report.failures:
        assert (failure.mode, failure.target, failure.host) == (mode, target, "")
        assert failure.port > 0
        assert report.began_s < failure.asked_s < failure.at_s


def test_held_connections_end_only_once() -> None:
    report = report_of(once, "--modes=keep", "--clients=1", "--held=3").assert_none_failed()
    assert report.modes["hold"].closed == len(report.closed)
    report = report_of(reset_when_idle, "--modes=keep", "--clients=1", "--held=3")
    assert report.modes["hold"].opened == 3
    assert report.modes["hold"].failed <= 3


def test_a_datagram_is_sent_again_before_it_counts_as_lost() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(TIMEOUT_S)
        target = "{}:{}".format(*server.getsockname())
        with clients(target, "--modes=udp", "--clients=1", "--again-s=0.05") as running:
            lost, client = server.recvfrom(4096)
            again, client_too = server.recvfrom(4096)
            assert (again, client_too) == (lost, client)
            server.sendto(json.dumps({"host": "one"}).encode() + b"\n" + again, client)
            while server.recvfrom(4096)[1] == client:
                pass  # the next one has been asked
            server.close()
            report = running.stop()
    assert report.modes["udp"].ok == 1


@pytest.mark.parametrize("mode", ["udp", "udp-kept"])
def test_datagrams_without_an_answer_are_told(mode: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        target = "{}:{}".format(*silent.getsockname())
        with clients(target, f"--modes={mode}", "--timeout-s=0.2") as running:
            report = running.stop()
    assert set(kinds(report.failures)) == {("timeout", "answer")}


def test_who_answers_datagrams_may_change_and_is_told() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(TIMEOUT_S)
        target = "{}:{}".format(*server.getsockname())
        with clients(target, "--modes=udp-kept", "--clients=1", "--timeout-s=1") as running:
            for host in ("one", "one", "two"):
                datagram, client = server.recvfrom(4096)
                line = json.dumps({"host": host}) + "\n"
                server.sendto(line.encode() + datagram, client)
            report = running.stop()
    assert [(moved.host, moved.now) for moved in report.moved] == [("one", "two")]


def test_a_port_that_had_been_used_for_datagrams_is_counted() -> None:
    tally = Tally()
    for target, port in [("one", 7), ("one", 8), ("two", 7), ("one", 7), ("one", 8)]:
        client = Udp((target, 80), 1.0, 1.0, keep=False, moved=lambda *_: None)
        client.port = port
        tally.answer("udp", client, 0.0, opened=True)
    assert (tally.modes["udp"]["opened"], tally.modes["udp"]["reused"]) == (5, 2)
