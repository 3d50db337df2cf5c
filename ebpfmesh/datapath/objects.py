# SPDX-License-Identifier: Apache-2.0
"""Where objects come from: shipped with the package, kept from an earlier start, or compiled."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import structlog

from ebpfmesh.datapath.errors import LoadError, ObjectDamaged
from ebpfmesh.datapath.object import Object, unseal
from ebpfmesh.datapath.shim import headers
from ebpfmesh.datapath.shipped import digest, programs, shipped
from ebpfmesh.datapath.source import source_dir

log = structlog.get_logger(__name__)

_KEPT = 3  # of different programs: an agent that is put back to an earlier version finds its own
_LAST_WORDS = 2000  # characters of what the compiler says


def cached(cache: Path, directory: Path) -> Path:
    """Where an object lies that was compiled here, of these programs, by this bcc and headers."""
    made_of = [programs(directory), bcc_version()]
    made_of += [path.read_bytes() for path in headers()]
    return cache / f"{digest(*made_of)}.object"


def bcc_version() -> bytes:
    """What tells this bcc from another, without loading it. Raises `ModuleNotFoundError`."""
    spec = find_spec("bcc")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("no bcc to compile the programs with", name="bcc")
    return Path(spec.origin).with_name("version.py").read_bytes()


def load_object(cache: Path, directory: Path | None = None) -> Object:
    """The object of the programs in `directory`; compiles them where `cache` has none.

    Who comes meanwhile for the same waits for that one. Raises `LoadError`.
    """
    directory = directory or source_dir()
    found = _read(shipped(directory))
    if found:
        return found
    path = cached(cache, directory)
    found = _read(path, tell=False)  # nobody waits while other programs are compiled
    if found:
        return found
    with _alone(cache):
        return _read(path) or _compile(path, directory)


def write(path: Path, data: bytes) -> None:
    """Writes a file in one step: it is there whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as new:
        try:
            new.write(data)
            new.flush()
            os.fsync(new.fileno())
            Path(new.name).replace(path)
        except BaseException:
            Path(new.name).unlink()
            raise


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One at a time; where the cache cannot be written, everyone for himself."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            cache.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((cache / "lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path, *, tell: bool = True) -> Object | None:
    try:
        return unseal(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ObjectDamaged) as error:
        if tell:
            log.warning("object.ignored", file=str(path), error=str(error))
        return None


def _compile(path: Path, directory: Path) -> Object:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ebpfmesh-") as room:
        made = Path(room) / "object"
        _run_compiler(made, directory)
        data = made.read_bytes()
    log.info("object.compiled", file=str(path), seconds=round(time.monotonic() - began, 1))
    try:
        write(path, data)
        _remove_old(path.parent)
    except OSError as error:
        log.warning("object.not_kept", file=str(path), error=str(error))
    return unseal(data)


def _run_compiler(made: Path, directory: Path) -> None:
    command = [sys.executable, "-m", "ebpfmesh.datapath.compile", str(made), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadError(f"the programs did not compile: {done.stderr[-_LAST_WORDS:].strip()}")


def _remove_old(cache: Path) -> None:
    objects = sorted(cache.glob("*.object"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in objects[_KEPT:]:
        path.unlink(missing_ok=True)
