"""The echo server, compiled and asked; it listens on the loopback address only to us."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from ebpfmesh.lab import images

pytestmark = pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("busybox")), reason="needs gcc and busybox-static"
)

BINARY = "bin/echo-server"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.tar"
    images.build(path)
    return path


@pytest.fixture(scope="module")
def program(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("program")
    with tarfile.open(archive) as outer:
        layer = outer.extractfile("layer.tar")
        assert layer is not None
        with tarfile.open(fileobj=layer) as inner:
            inner.extract(BINARY, target)
    return target / BINARY


@pytest.fixture(scope="module")
def port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture
def server(program: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    ports = ["--http", str(port), "--udp", str(port)]
    with subprocess.Popen([program, *ports]) as process:
        wait_for(port)
        yield process
        process.kill()


def wait_for(port: int) -> None:
    for _ in range(200):
        with suppress(ConnectionRefusedError), closing(connect(port)):
            return
        time.sleep(0.01)
    raise TimeoutError


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


@pytest.fixture
def client(server: object, port: int) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        yield connection


def ask(
    client: http.client.HTTPConnection, method: str, target: str, body: bytes | None = None
) -> tuple[int, bytes]:
    client.request(method, target, body)
    response = client.getresponse()
    return response.status, response.read()


def test_it_says_whom_it_sees(client: http.client.HTTPConnection, port: int) -> None:
    status, body = ask(client, "GET", "/")
    assert status == http.HTTPStatus.OK
    own_port = client.sock.getsockname()[1]
    assert json.loads(body) == {
        "host": socket.gethostname(),
        "peer": "127.0.0.1",
        "peer_port": own_port,
        "local": "127.0.0.1",
        "local_port": port,
        "protocol": "tcp",
    }


def test_a_connection_serves_many_requests(client: http.client.HTTPConnection) -> None:
    for length in (0, 1, 65521, 65522, 200_000, 3_000_000):
        assert ask(client, "GET", f"/bytes/{length}") == (200, images.pattern(length))
        body = images.pattern(length)
        status, answer = ask(client, "PUT", "/upload", body)
        assert status == http.HTTPStatus.OK
        assert json.loads(answer) == {"length": length, "crc32": f"{zlib.crc32(body):08x}"}


def test_what_it_does_not_know_is_an_error(client: http.client.HTTPConnection) -> None:
    assert ask(client, "GET", "/nope")[0] == http.HTTPStatus.NOT_FOUND
    assert ask(client, "GET", "/bytes/-1")[0] == http.HTTPStatus.BAD_REQUEST
    assert ask(client, "DELETE", "/")[0] == http.HTTPStatus.NOT_FOUND


def test_requests_may_come_in_one_piece_or_in_many(server: object, port: int) -> None:
    with closing(connect(port)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n" * 3 + b"GET /hea")
        time.sleep(0.05)
        connection.sendall(b"lthz HTTP/1.1\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.count(b"HTTP/1.1 200 OK") == 4


def test_hundreds_at_once(server: object, port: int) -> None:
    connections = [connect(port) for _ in range(300)]
    for connection in connections:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    answers = [connection.recv(4096) for connection in connections]
    for connection in connections:
        connection.close()
    assert all(answer.startswith(b"HTTP/1.1 200 OK") for answer in answers)


@pytest.mark.parametrize("payload", [b"", b"ping", b"x" * 60000])
def test_datagrams_come_back(server: object, port: int, payload: bytes) -> None:
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as client:
        client.settimeout(10)
        client.sendto(payload, ("127.0.0.1", port))
        line, _, echo = client.recv(65535).partition(b"\n")
    assert json.loads(line)["protocol"] == "udp"
    assert json.loads(line)["local"] == "127.0.0.1"
    assert echo == payload


def test_the_health_check_asks_the_server(
    server: subprocess.Popen[bytes], program: Path, port: int
) -> None:
    check = [str(program), "check", "--http", str(port)]
    assert subprocess.run(check, check=False).returncode == 0
    server.kill()
    server.wait()
    assert subprocess.run(check, check=False).returncode == 1


def test_what_is_in_flight_is_finished(server: subprocess.Popen[bytes], port: int) -> None:
    idle, busy = connect(port), connect(port)
    busy.sendall(b"GET /bytes/20000000 HTTP/1.1\r\n\r\n")
    assert busy.recv(4).startswith(b"HTTP")
    server.send_signal(signal.SIGTERM)
    assert idle.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(port)
    received = sum(map(len, iter(lambda: busy.recv(1 << 20), b"")))
    assert received > 20_000_000
    assert server.wait(timeout=10) == 0
    idle.close()
    busy.close()


def test_kept_connections_and_datagrams_are_answered_for_a_while_yet(
    program: Path, port: int
) -> None:
    ports = ["--http", str(port), "--udp", str(port), "--linger-ms", "4000"]
    with subprocess.Popen([program, *ports]) as process:
        wait_for(port)
        idle, kept = connect(port), connect(port)
        with closing(socket.socket(type=socket.SOCK_DGRAM)) as datagrams:
            datagrams.settimeout(10)
            datagrams.connect(("127.0.0.1", port))
            process.send_signal(signal.SIGTERM)
            wait_refused(port)
            kept.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b"Connection: close" in b"".join(iter(lambda: kept.recv(4096), b""))
            datagrams.send(b"late")
            assert datagrams.recv(4096).endswith(b"late")
        assert idle.recv(1) == b""
        assert process.wait(timeout=10) == 0
        idle.close()
        kept.close()


def test_a_connection_that_rests_is_told_before_it_ends(program: Path, port: int) -> None:
    """The server ends once nobody is left to be told."""
    ports = ["--http", str(port), "--linger-ms", "1", "--idle-ms", "3600000"]
    with subprocess.Popen([program, *ports]) as process:
        wait_for(port)
        kept = connect(port)
        process.send_signal(signal.SIGTERM)
        wait_refused(port)
        time.sleep(0.1)  # the linger is over
        kept.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b"Connection: close" in b"".join(iter(lambda: kept.recv(4096), b""))
        assert process.wait(timeout=10) == 0
        kept.close()


def wait_refused(port: int) -> None:
    for _ in range(200):
        try:
            connect(port).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.01)
    raise TimeoutError


def test_both_images_are_the_same_everywhere(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as tar:
        member = tar.extractfile("manifest.json")
        assert member is not None
        manifest = json.load(member)
    assert [image["RepoTags"] for image in manifest] == [[images.ECHO], [images.BUSYBOX]]
    again = tmp_path / "again.tar"
    images.build(again)
    assert again.read_bytes() == archive.read_bytes()
