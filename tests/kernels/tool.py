# SPDX-License-Identifier: Apache-2.0
"""Runs a program so that it ends with this process, whatever ends this process."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


class Failed(Exception):
    """What went wrong, for a person to read."""


def bound(command: Sequence[str | Path]) -> list[str]:
    """The command, killed by the kernel when its parent is gone."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)]


def run(command: Sequence[str | Path], log: Path) -> None:
    """Runs it to its end, its output appended to `log`. Raises `Failed` with the last of it."""
    with log.open("ab") as output:
        try:
            subprocess.run(
                bound(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=True
            )
        except subprocess.CalledProcessError as error:
            lines = log.read_text(errors="replace").splitlines()[-15:]
            raise Failed(
                "\n".join([f"{command[0]} failed ({error.returncode}):", *lines])
            ) from None


def run_in_namespace(command: Sequence[str | Path], log: Path) -> None:
    """As `run`; no mount and no process of the command's stays behind."""
    run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *command], log)
