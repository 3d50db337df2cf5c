# SPDX-License-Identifier: Apache-2.0
"""Where a bench runs: kernel, CPU, commit, command line, date."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bench.result import Machine

ROOT = Path(__file__).resolve().parent.parent


def this_machine(notes: Sequence[str] = ()) -> Machine:
    """What to say of this machine now; `notes` tell what else ran."""
    return Machine(
        kernel=platform.release(),
        cpu=cpu_model(Path("/proc/cpuinfo").read_text()),
        cpus=os.cpu_count() or 1,
        commit=_commit(),
        command=" ".join(["python", *_command(sys.orig_argv)]),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        load=os.getloadavg()[0],
        notes=tuple(notes),
    )


def _command(argv: Sequence[str]) -> list[str]:
    """The command line without the interpreter's path: that is the machine's own."""
    return list(argv[1:])


def cpu_model(cpuinfo: str) -> str:
    """The CPU's name, from ``/proc/cpuinfo``, with family and model where it has them."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name", platform.machine())
    if "cpu family" not in fields:
        return name
    return f"{name} (family {fields['cpu family']}, model {fields.get('model', '?')})"


def _commit() -> str:
    """The checkout's commit; ``+`` says that something in it, but for results, is changed."""
    told = ("git", "-C", str(ROOT))
    short = subprocess.run(
        [*told, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False
    )
    if short.returncode:
        return "unknown"
    changed = subprocess.run(
        [*told, "status", "--porcelain", "--", ".", ":!bench/results"],
        capture_output=True,
        text=True,
        check=True,
    )
    return short.stdout.strip() + ("+" if changed.stdout else "")


def pin(cpu: int) -> None:
    """Keep this process on one CPU."""
    os.sched_setaffinity(0, {cpu})


def last_cpu() -> int:
    """The highest CPU of this process: the first ones have the interrupts."""
    return max(os.sched_getaffinity(0))


@contextmanager
def no_collections() -> Iterator[None]:
    """Python's garbage is collected before, and not meanwhile."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def resident_mb(pid: int | str = "self") -> float:
    """Resident memory of a process, in MB (10^6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
