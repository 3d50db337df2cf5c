# SPDX-License-Identifier: Apache-2.0
"""HTTP over a unix socket: how dockerd and the agent are asked by what has no event loop."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

TIMEOUT_S = 10.0


class Answer(NamedTuple):
    """Of one request."""

    status: int
    body: bytes


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def get(path: Path, target: str, timeout_s: float = TIMEOUT_S) -> Answer:
    """A GET. Raises `OSError` while nobody listens, `http.client.HTTPException` for nonsense."""
    connection = _UnixConnection(path, timeout_s)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        return Answer(response.status, response.read())
    finally:
        connection.close()


@contextmanager
def stream(
    path: Path, target: str, timeout_s: float = TIMEOUT_S
) -> Iterator[http.client.HTTPResponse]:
    """A GET whose answer comes bit by bit: `timeout_s` is for each. Raises as `get` does."""
    connection = _UnixConnection(path, timeout_s)
    try:
        connection.request("GET", target)
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()
