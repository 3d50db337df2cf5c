# SPDX-License-Identifier: Apache-2.0
"""The command ``ebpfmesh``: renders what the agent answers, and starts what runs in front."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

__all__ = ["main"]

_NICENESS = -10  # as `Config` has it, which is not read yet


def main() -> None:
    """Run the command line."""
    hurry(sys.argv[1:])
    from ebpfmesh.cli.app import app  # noqa: PLC0415 - by then an agent is in a hurry

    app(prog_name="ebpfmesh")


def hurry(arguments: Sequence[str]) -> None:
    """Give an agent that starts its place among the processes at once.

    Half of its start is spent on imports: seconds, on a busy node, and as long as no agent is there
    nobody notices which tasks end. Its settings decide as soon as they are read; that says, too, if
    it is not allowed.
    """
    if arguments[:1] == ["agent"]:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
