# SPDX-License-Identifier: Apache-2.0
"""How the lab asks dockerd and the agent."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Any

import msgspec

from ebpfmesh.lab.errors import LabError
from ebpfmesh.unix_http import get


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
