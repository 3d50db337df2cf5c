# SPDX-License-Identifier: Apache-2.0
"""`ebpfmesh demo`."""

from __future__ import annotations

import subprocess
import time

import typer

from ebpfmesh import demo
from ebpfmesh.cli import exits


def run() -> None:
    """Bring up a Swarm of three nodes, send requests through it, take it down (root)."""
    began_s = time.monotonic()
    try:
        demo.run(typer.echo)
    except KeyboardInterrupt:
        exits.fail("interrupted; everything was taken down", exits.INTERRUPTED)
    except (demo.DemoError, demo.LabError, OSError, subprocess.SubprocessError) as error:
        exits.fail(error)
    typer.echo(f"all requests were answered; done in {time.monotonic() - began_s:.0f} s")
