# SPDX-License-Identifier: Apache-2.0
"""The state on disk: kept whole, and never trusted when damaged."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from ebpfmesh.hub.errors import StoreError
from ebpfmesh.hub.store import MAGIC, StateStore
from ebpfmesh.model import MeshState, Node

STATE = MeshState(version=7, nodes={"n1": Node("n1", "one", "192.0.2.11")})


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "new" / "state")
    store.save("swarm", MeshState(version=1))
    store.save("swarm", STATE)
    assert store.load("swarm") == STATE
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["state"]
    assert (tmp_path / "new" / "state").stat().st_mode & 0o777 == 0o600


def test_nothing_saved_is_nothing_to_talk_about(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert StateStore(tmp_path / "state").load("swarm") is None
    assert logs == []


def test_another_swarms_state_is_ignored(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "state")
    store.save("swarm", STATE)
    assert store.load("another") is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "other format", "empty"])
def test_a_damaged_file_is_ignored_with_one_line(tmp_path: Path, damage: str) -> None:
    store = StateStore(tmp_path / "state")
    store.save("swarm", STATE)
    good = (tmp_path / "state").read_bytes()
    bad = {
        "cut": good[:-3],
        "flipped": good[:-1] + bytes([good[-1] ^ 1]),
        "other format": good.replace(MAGIC, b"ebpfmesh state 9\n"),
        "empty": b"",
    }[damage]
    (tmp_path / "state").write_bytes(bad)
    with capture_logs() as logs:
        assert store.load("swarm") is None
    assert [line["event"] for line in logs] == ["hub.saved_state_ignored"]


def test_a_file_that_cannot_be_written_is_our_own_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StoreError, match="cannot write"):
        StateStore(tmp_path / "file" / "state").save("swarm", STATE)


def test_what_is_read_again_is_no_change_that_just_happened(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "mesh.state")
    store.save("swarm", msgspec.structs.replace(STATE, origin_ns=5))
    assert store.load("swarm") == STATE


def test_half_a_draft_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = StateStore(tmp_path / "mesh.state")
    store.save("swarm", MeshState(version=1))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        store.save("swarm", STATE)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["mesh.state"]
    assert store.load("swarm") == MeshState(version=1)
