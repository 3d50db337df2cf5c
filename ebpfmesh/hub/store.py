# SPDX-License-Identifier: Apache-2.0
"""The last mesh state on disk, for a node that starts while no manager answers."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import msgspec
import structlog
from msgspec.structs import replace

from ebpfmesh.hub.errors import StoreError
from ebpfmesh.model import MeshState
from ebpfmesh.typed import prepare

MAGIC = b"ebpfmesh state 1\n"
CHECKSUM_BYTES = 4

log = structlog.get_logger(__name__)


class Saved(msgspec.Struct, frozen=True):
    """A state, and the Swarm that it is of: versions of two Swarms do not compare."""

    swarm_id: str
    state: MeshState


class StateStore:
    """One file: a line with the format's version, a checksum, the state.

    Both methods block on the disk: call them in a thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, swarm_id: str, state: MeshState) -> None:
        """Replace the file as a whole: a crash leaves the old one or the new one."""
        # To whoever reads it, it is no change that has just happened.
        body = msgspec.msgpack.encode(Saved(swarm_id, replace(state, origin_ns=0)))
        checksum = zlib.crc32(body).to_bytes(CHECKSUM_BYTES, "big")
        try:
            self._write(MAGIC + checksum + body)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror}") from error

    def _write(self, content: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._path.with_suffix(".new")
        try:
            with open(draft, "wb", opener=_private) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError:
            # Half a draft would keep a full disk full.
            draft.unlink(missing_ok=True)
            raise
        _sync_directory(self._path.parent)

    def load(self, swarm_id: str) -> MeshState | None:
        """The saved state of this Swarm; None, with a line in the log, if there is no good one."""
        try:
            saved = _parse(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            log.warning("hub.saved_state_ignored", path=str(self._path), error=str(error))
            return None
        if saved.swarm_id != swarm_id:
            log.info("hub.saved_state_ignored", path=str(self._path), error="of another Swarm")
            return None
        return saved.state


def _parse(content: bytes) -> Saved:
    if not content.startswith(MAGIC):
        raise ValueError("not a saved state, or of another release")
    checksum = content[len(MAGIC) : len(MAGIC) + CHECKSUM_BYTES]
    body = content[len(MAGIC) + CHECKSUM_BYTES :]
    if zlib.crc32(body).to_bytes(CHECKSUM_BYTES, "big") != checksum:
        raise ValueError("the file is damaged")
    return msgspec.msgpack.decode(body, type=Saved)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_directory(path: Path) -> None:
    """The new name must survive a power cut too."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


prepare(Saved)
