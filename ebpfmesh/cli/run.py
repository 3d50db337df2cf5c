# SPDX-License-Identifier: Apache-2.0
"""The commands that act on the node itself: agent and detach."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import structlog
import typer

from ebpfmesh.cli import exits, logs, text
from ebpfmesh.cli.check import look
from ebpfmesh.cli.client import answers
from ebpfmesh.cli.options import Given
from ebpfmesh.config import Config, load

log = structlog.get_logger(__name__)

_SWITCH_S = 0.0005


def agent(file: str | None, given: Given) -> None:
    """Run on a node, in the foreground, until SIGTERM or Ctrl-C.

    What it has attached stays attached, and goes on working. Settings come from the file, then the
    environment, then these options.
    """
    with exits.errors_for_people():
        config = load(file, os.environ, given)
    _need_root("the agent loads programs into the kernel")
    logs.configure(config.log_level, config.log_format)
    _take_place(config.niceness)
    with _failures_for_people():
        asyncio.run(_until_told_to_end(config))


def _take_place(niceness: int) -> None:
    """Before there are threads: they inherit it. Without the right to, it is said once.

    Python's threads wait for each other as well: for news, not as long as they do by themselves.
    """
    sys.setswitchinterval(_SWITCH_S)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    except OSError as error:
        effect = "on a busy node news are late"
        log.warning("agent.not_preferred", error=str(error), niceness=niceness, effect=effect)


async def _until_told_to_end(config: Config) -> None:
    from ebpfmesh.agent import Agent  # noqa: PLC0415 - bcc takes its time, and may be missing

    # Beside the agent, which waits for nobody; and nobody waits for it.
    threading.Thread(target=look, args=(config,), name="check", daemon=True).start()
    running = asyncio.create_task(Agent(config).run(), name="agent")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


def detach(
    file: str | None,
    given: Given,
    drain: Annotated[
        str | None,
        typer.Option(
            "--drain",
            metavar="TIME",
            help="First leave new flows to Docker's own path, and wait until the known ones have "
            "ended, at most so long: 30s, 5m, 1h. Ctrl-C: as before.",
        ),
    ] = None,
) -> None:
    """Take every program and map off this node: Docker's own path serves again."""
    with exits.errors_for_people():
        config = load(file, os.environ, given)
    _need_root("programs are taken off")
    with exits.errors_for_people():
        limit_s = None if drain is None else text.seconds(drain)
    runs = answers(Path(config.socket))
    if runs and limit_s is None:
        exits.fail(f"the agent on {config.socket} would attach all of it again: stop it first")
    if limit_s is not None:
        _drain(config, limit_s)
    if runs:
        exits.fail("new flows are left to the kernel: stop the agent, then run `ebpfmesh detach`")
    with _failures_for_people():
        from ebpfmesh.agent import detach_all  # noqa: PLC0415 - as above

        done = detach_all(config)
    for line in done or ["nothing was attached"]:
        typer.echo(line)


def _drain(config: Config, limit_s: float) -> None:
    """SIGTERM ends the wait like Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _failures_for_people():
        from ebpfmesh.agent import drain, pinned_node  # noqa: PLC0415 - as above

        try:
            with pinned_node(config) as node:
                if node is not None:
                    drain(node, limit_s, typer.echo, grace_s=config.takeover_grace_s)
        except KeyboardInterrupt:
            exits.fail("interrupted: new flows are balanced again", exits.INTERRUPTED)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _need_root(why: str) -> None:
    if os.geteuid() != 0:
        exits.fail(f"{why}: run this as root")


@contextmanager
def _failures_for_people() -> Iterator[None]:
    """The errors of dependencies and of the datapath say by themselves what is wrong."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "bcc":
            raise
        exits.fail(
            "the module bcc is missing: install Debian's python3-bpfcc, and make the virtual "
            "environment with --system-site-packages"
        )
    except (OSError, RuntimeError) as error:
        exits.fail(error)
