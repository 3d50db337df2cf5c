# SPDX-License-Identifier: Apache-2.0
"""The commands that act on the node itself: agent and detach."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from ebpfmesh.cli import exits, logs
from ebpfmesh.cli.client import answers
from ebpfmesh.cli.options import Given
from ebpfmesh.config import Config, load


def agent(file: str | None, given: Given) -> None:
    """Run on a node, in the foreground, until SIGTERM or Ctrl-C.

    What it has attached stays attached, and goes on working. Settings come from the file, then the
    environment, then these options.
    """
    with exits.errors_for_people():
        config = load(file, os.environ, given)
    _need_root("the agent loads programs into the kernel")
    logs.configure(config.log_level, config.log_format)
    with _failures_for_people():
        asyncio.run(_until_told_to_end(config))


async def _until_told_to_end(config: Config) -> None:
    from ebpfmesh.agent import Agent  # noqa: PLC0415 - bcc takes its time, and may be missing

    running = asyncio.create_task(Agent(config).run(), name="agent")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


def detach(file: str | None, given: Given) -> None:
    """Take every program and map off this node: Docker's own path serves again."""
    with exits.errors_for_people():
        config = load(file, os.environ, given)
    _need_root("programs are taken off")
    if answers(Path(config.socket)):
        exits.fail(f"the agent on {config.socket} would attach all of it again: stop it first")
    with _failures_for_people():
        from ebpfmesh.agent import detach_all  # noqa: PLC0415 - as above

        done = detach_all(config)
    for line in done or ["nothing was attached"]:
        typer.echo(line)


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
