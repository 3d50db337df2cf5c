# SPDX-License-Identifier: Apache-2.0
"""`ebpfmesh check`."""

from __future__ import annotations

import os
from pathlib import Path

import structlog
from rich.text import Text

from ebpfmesh.check.facts import Level, Verdict
from ebpfmesh.check.judge import judge, passed
from ebpfmesh.cli import exits, text
from ebpfmesh.cli.client import answers
from ebpfmesh.cli.options import Given, Output, OutputOption
from ebpfmesh.config import Config, load

log = structlog.get_logger(__name__)


def run(file: str | None, given: Given, output: OutputOption = Output.TABLE) -> None:
    """Can this node run it? Says what to do; exit code 1 if it cannot."""
    from ebpfmesh.check.probe import probe  # noqa: PLC0415 - aiohttp takes its time

    with exits.errors_for_people():
        config = load(file, os.environ, given)
    verdicts = judge(probe(config, agent=answers(Path(config.socket))), config)
    if output is Output.JSON:
        text.show_list("checks", verdicts)
    else:
        console = text.console()
        for verdict in verdicts:
            console.print(_line(verdict))
    if not passed(verdicts):
        exits.fail("this node cannot run ebpfmesh yet")


def look(config: Config) -> None:
    """As an agent starts: what it minds goes to its log. Ports may be its own by now."""
    from ebpfmesh.check.probe import probe  # noqa: PLC0415 - as above

    for verdict in judge(probe(config, agent=True), config):
        if verdict.level in {Level.WARNING, Level.FAILURE}:
            log.warning(
                f"check.{verdict.level}", of=verdict.subject, found=verdict.text, todo=verdict.todo
            )


def _line(verdict: Verdict) -> Text:
    line = Text.assemble(
        (f"{verdict.level:<8}", text.style_of(verdict.level)),
        f"{verdict.subject:<13}",
        text.clean(verdict.text),
    )
    if verdict.todo:
        line.append(f"\n{'':<21}-> {text.clean(verdict.todo)}")
    return line
