# SPDX-License-Identifier: Apache-2.0
"""HTTP over a unix socket: how dockerd and the agent are asked."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any

import msgspec

from ebpfmesh.lab.errors import LabError

_TIMEOUT_S = 10.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def get(path: Path, target: str, timeout_s: float = _TIMEOUT_S) -> tuple[int, bytes]:
    """Status and body of a GET; OSError while nobody listens."""
    connection = _UnixConnection(path, timeout_s)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answers(path: Path, target: str) -> bool:
    """Whether somebody listens and says 200."""
    try:
        status, _ = get(path, target, timeout_s=2)
    except (OSError, http.client.HTTPException):
        return False
    return status == http.HTTPStatus.OK


def get_json(path: Path, target: str) -> Any:
    """The decoded body of a GET that must succeed."""
    try:
        status, body = get(path, target)
    except (OSError, http.client.HTTPException) as error:
        raise LabError(f"nobody answers on {path}: {error}") from error
    if status != http.HTTPStatus.OK:
        raise LabError(f"{path} answers GET {target} with {status}: {body.decode().strip()}")
    return msgspec.json.decode(body)
