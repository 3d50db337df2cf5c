# SPDX-License-Identifier: Apache-2.0
"""Processes: start several at once, know them again, end those that are ours."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.state import ProcessId

_POLL_S = 0.02
_STARTED_FIELD = 19  # of /proc/PID/stat, counted after the command's closing bracket
_STATE_FIELD = 0


def boot_id() -> str:
    """Another one after every boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> ProcessId:
    """The process that has this number now."""
    return ProcessId(pid, int(_stat(pid)[_STARTED_FIELD]))


def identify_self() -> ProcessId:
    """This process."""
    return identify(os.getpid())


def is_alive(process: ProcessId | None) -> bool:
    """Whether this very process still runs."""
    stat = None if process is None else _stat_if_any(process.pid)
    if process is None or stat is None:
        return False
    return int(stat[_STARTED_FIELD]) == process.started and _runs(stat)


def runs(pid: int) -> bool:
    """Whether some process has this number, and has not ended."""
    stat = _stat_if_any(pid)
    return stat is not None and _runs(stat)


def _runs(stat: list[str]) -> bool:
    """A zombie has ended; only, nobody has asked yet how."""
    return stat[_STATE_FIELD] not in "ZX"


def _stat_if_any(pid: int) -> list[str] | None:
    try:
        return _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def reap(pids: Iterable[int]) -> None:
    """Collect those that this process itself started, or they stay as zombies."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue  # not ours: init collects it


def end(process: ProcessId | None, with_signal: signal.Signals, timeout_s: float) -> None:
    """Send the signal and wait for the end; one that is gone already is a success."""
    if process is None or not is_alive(process):
        return
    handle = os.pidfd_open(process.pid)
    try:
        signal.pidfd_send_signal(handle, with_signal)
        ended, _, _ = select.select([handle], [], [], timeout_s)
    finally:
        os.close(handle)
    if not ended:
        raise LabError(f"process {process.pid} outlived {with_signal.name} by {timeout_s:g} s")
    reap([process.pid])


def wait_until(condition: Callable[[], bool], timeout_s: float, poll_s: float = _POLL_S) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True


def spawn(argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> ProcessId:
    """Start a daemon: a session of its own, so that Ctrl-C at a terminal is not for it."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
    process.returncode = 0  # it is meant to outlive us: no warning that it still runs
    return identify(process.pid)


def run(command: Sequence[str], *, stdin: str | None = None, timeout_s: float = 60) -> str:
    """Run one command of the lab's own and return what it printed; its failure is the lab's."""
    with _started(command) as process:
        return _finish(process, command, timeout_s, stdin)


def run_all(commands: Sequence[Sequence[str]], timeout_s: float = 60) -> list[str]:
    """Run commands side by side; what each printed. The first failure ends the others."""
    with ExitStack() as running:
        started = [running.enter_context(_started(command)) for command in commands]
        pairs = zip(started, commands, strict=True)
        return [_finish(process, command, timeout_s) for process, command in pairs]


@contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _finish(
    process: subprocess.Popen[str],
    command: Sequence[str],
    timeout_s: float,
    stdin: str | None = None,
) -> str:
    try:
        output, errors = process.communicate(stdin, timeout_s)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{shlex.join(command)}` took longer than {timeout_s:g} s") from error
    if process.returncode != 0:
        raise LabError(f"`{shlex.join(command)}` failed: {(errors or output).strip()}")
    return output


def last_lines(log: Path, count: int = 8, without: str | None = None) -> str:
    """The end of a log, to put into an error; lines that have `without` in them do not count."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return f"(no {log})"
    if without is not None:
        lines = [line for line in lines if without not in line]
    return "\n".join(lines[-count:])
