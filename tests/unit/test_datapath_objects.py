# SPDX-License-Identifier: Apache-2.0
"""Where objects come from. The compiler is a stub that counts its calls."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ebpfmesh.datapath import objects
from ebpfmesh.datapath.errors import LoadError
from ebpfmesh.datapath.object import Object, seal
from ebpfmesh.datapath.objects import cached, load_object, write
from ebpfmesh.datapath.shipped import shipped

OBJECT = Object(2, {"MTU": 1500}, {"MAX_FLOWS": 10}, (), (), {})


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory of programs."""
    (tmp_path / "bpf").mkdir()
    (tmp_path / "bpf" / "ebpfmesh.c").write_text("int one;\n")
    return tmp_path / "bpf"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was compiled."""
    calls: list[Path] = []

    def run(made: Path, directory: Path) -> None:
        calls.append(directory)
        made.write_bytes(seal(OBJECT))

    monkeypatch.setattr(objects, "_run_compiler", run)
    return calls


def test_only_the_first_start_compiles(cache: Path, programs: Path, compiled: list[Path]) -> None:
    with capture_logs() as logs:
        assert load_object(cache, programs) == load_object(cache, programs) == OBJECT
    assert compiled == [programs]
    assert [entry["event"] for entry in logs] == ["object.compiled"]


@pytest.mark.timeout(20)  # else it waits for ever
def test_nobody_waits_for_the_compiler_who_needs_none(cache: Path, programs: Path) -> None:
    load_object(cache, programs)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert load_object(cache, programs) == OBJECT


def test_changed_programs_are_compiled(cache: Path, programs: Path, compiled: list[Path]) -> None:
    load_object(cache, programs)
    (programs / "ebpfmesh.c").write_text("int two;\n")
    load_object(cache, programs)
    assert len(compiled) == 2


@pytest.mark.parametrize("what", ["bcc_version", "headers"])
def test_the_name_tells_what_it_was_made_of(
    monkeypatch: pytest.MonkeyPatch, cache: Path, programs: Path, what: str
) -> None:
    before = cached(cache, programs)
    other = {"bcc_version": lambda: b"0", "headers": lambda: [programs / "ebpfmesh.c"]}
    monkeypatch.setattr(objects, what, other[what])
    assert cached(cache, programs) != before


def test_a_damaged_one_is_told_and_made_again(
    cache: Path, programs: Path, compiled: list[Path]
) -> None:
    load_object(cache, programs)
    path = cached(cache, programs)
    path.write_bytes(path.read_bytes()[:-1])
    with capture_logs() as logs:
        assert load_object(cache, programs) == OBJECT
    assert [entry["event"] for entry in logs] == ["object.ignored", "object.compiled"]
    assert logs[0]["file"] == str(path)
    assert "cut short" in logs[0]["error"]
    assert load_object(cache, programs) == OBJECT
    assert len(compiled) == 2


def test_a_directory_that_cannot_be_written_is_told(
    tmp_path: Path, programs: Path, compiled: list[Path]
) -> None:
    (tmp_path / "file").touch()
    with capture_logs() as logs:
        assert load_object(tmp_path / "file" / "objects", programs) == OBJECT
    assert [entry["event"] for entry in logs] == ["object.compiled", "object.not_kept"]
    assert len(compiled) == 1


def test_one_that_was_shipped_needs_no_compiler(
    monkeypatch: pytest.MonkeyPatch, cache: Path, programs: Path, compiled: list[Path]
) -> None:
    file = cache.parent / shipped(programs).name
    monkeypatch.setattr(objects, "shipped", lambda _: file)
    write(file, seal(OBJECT))
    assert load_object(cache, programs) == OBJECT
    assert (compiled, cache.exists()) == ([], False)


def test_old_ones_are_removed(cache: Path, programs: Path) -> None:
    for number in range(6):
        (programs / "ebpfmesh.c").write_text(f"int v{number};\n")
        load_object(cache, programs)
        os.utime(cached(cache, programs), (number, number))
    assert len(list(cache.glob("*.object"))) == 3
    assert cached(cache, programs).exists()


def test_nothing_is_left_of_a_write_that_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "objects" / "one", b"x")
    assert list((tmp_path / "objects").iterdir()) == []


def test_what_clang_says_is_in_the_error(
    monkeypatch: pytest.MonkeyPatch, cache: Path, programs: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", "/bin/ls")
    with pytest.raises(LoadError, match=r"did not compile: .*ls"):
        load_object(cache, programs)
