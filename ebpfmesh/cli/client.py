# SPDX-License-Identifier: Apache-2.0
"""Asks the agent on its socket."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import urlencode

import msgspec

from ebpfmesh import pcapng, unix_http
from ebpfmesh.changes import Change
from ebpfmesh.config import load, settings
from ebpfmesh.explanation import BadQuestion, Explanation, Question
from ebpfmesh.pcapng import Block
from ebpfmesh.status import STATUS_VERSION, FlowStatus, Status
from ebpfmesh.tracing import Told

T = TypeVar("T")
SILENCE_S = 5.0


class AgentError(Exception):
    """The agent did not answer as it should; the message says what to do."""


class NoAgent(AgentError):
    """No agent answers on the socket."""


def socket_path(option: str | None) -> Path:
    """Where the agent is: as told on the command line, in the environment, in the file."""
    told = option or os.environ.get(settings()["socket"].variable)
    return Path(told or load(None, os.environ).socket)


def fetch_status(path: Path) -> Status:
    """All that the agent says of itself."""
    return _decode(get(path, "/status"), Status)


def fetch_flows(path: Path) -> list[FlowStatus]:
    """The flows that the agent's node translates."""
    return _decode(get(path, "/flows"), list[FlowStatus])


def fetch_changes(path: Path) -> list[Change]:
    """The last changes of what the agent's node balances, the newest first."""
    return _decode(get(path, "/changes"), list[Change])


def fetch_explanation(path: Path, asked: Question) -> Explanation:
    """Which backend a packet would get on the agent's node, and why."""
    query = {
        "client": asked.client_text,
        "frontend": asked.frontend_text,
        "network": asked.network,
    }
    return _decode(get(path, f"/explain?{urlencode(query)}"), Explanation)


def follow_trace(path: Path, query: Sequence[tuple[str, str]]) -> Iterator[Told | None]:
    """What the agent's node decides, as it does; None at first, and when nothing happens.

    Raises `NoAgent`, `AgentError`, or `BadQuestion` for what the agent does not understand.
    """
    with (
        _agent_errors(path, SILENCE_S),
        unix_http.stream(path, f"/trace?{urlencode(query)}", SILENCE_S) as answer,
    ):
        if answer.status != http.HTTPStatus.OK:
            _refused(path, answer.status, answer.read())
        for line in answer:
            yield _decode(line, Told) if line.strip() else None
    raise AgentError(f"the agent on {path} has ended the trace: its log says why")


def follow_capture(path: Path, query: Mapping[str, str]) -> Iterator[Block]:
    """The blocks of a pcapng file, as they come. Raises as `follow_trace`."""
    target = f"/capture?{urlencode(query)}"
    with _agent_errors(path, SILENCE_S), unix_http.stream(path, target, SILENCE_S) as answer:
        if answer.status != http.HTTPStatus.OK:
            _refused(path, answer.status, answer.read())
        yield from pcapng.blocks(answer.read)


def _refused(path: Path, status: int, body: bytes) -> NoReturn:
    said = body.decode(errors="replace").strip()
    if status == http.HTTPStatus.BAD_REQUEST:
        raise BadQuestion(said)
    if status == http.HTTPStatus.NOT_FOUND:
        said = "it is of a version of ebpfmesh that tells nothing"
    raise AgentError(f"the agent on {path} answers {status}: {said}")


def answers(path: Path) -> bool:
    """Whether an agent runs there."""
    try:
        get(path, "/healthz")
    except AgentError:
        return False
    return True


def get(path: Path, target: str, timeout_s: float = unix_http.TIMEOUT_S) -> bytes:
    """The body of an answer. Raises `NoAgent` or `AgentError`."""
    with _agent_errors(path, timeout_s):
        status, body = unix_http.get(path, target, timeout_s)
    if status != http.HTTPStatus.OK:
        raise AgentError(f"the agent on {path} answers {status}: its log says why")
    return body


@contextmanager
def _agent_errors(path: Path, timeout_s: float) -> Iterator[None]:
    """In words that say what to do."""
    try:
        yield
    except PermissionError as error:
        raise NoAgent(f"no right to ask the agent on {path}: run this as root") from error
    except TimeoutError as error:
        raise AgentError(f"the agent on {path} has not answered in {timeout_s:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise NoAgent(
            f"no agent answers on {path} ({_cause(error)}): start one with `ebpfmesh agent`, "
            "or name its socket with --socket; one that waits for Docker says so in its log"
        ) from error


def _cause(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise AgentError(
            f"the agent's answer is not of version {STATUS_VERSION}, which this command reads: "
            "it is of another version of ebpfmesh"
        ) from error
