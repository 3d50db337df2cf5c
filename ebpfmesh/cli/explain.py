# SPDX-License-Identifier: Apache-2.0
"""`ebpfmesh explain`: which backend a packet would get, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ebpfmesh.cli import exits, text
from ebpfmesh.cli.client import fetch_explanation, socket_path
from ebpfmesh.cli.options import Output, OutputOption, SocketOption
from ebpfmesh.cli.text import clean, percent, table
from ebpfmesh.explanation import (
    BadQuestion,
    Candidate,
    Explanation,
    Outcome,
    Question,
    question,
)

_ARROWS = ("->", "→")
_WIDTH = 10
_COLOURS = {
    Outcome.BACKEND: "green",
    Outcome.ANY: "green",
    Outcome.KERNEL: "yellow",
    Outcome.DROPPED: "red",
}


def explain(
    packet: Annotated[
        list[str],
        typer.Argument(
            metavar="CLIENT[:PORT] FRONTEND:PORT[/PROTOCOL]",
            help="Who asks, and what: an address of this node and a published port, or a VIP and "
            "any port. An arrow between them is fine, in quotes.",
        ),
    ],
    network: Annotated[
        str, typer.Option("--network", metavar="NAME", help="Of a VIP that several networks have.")
    ] = "",
    output: OutputOption = Output.TABLE,
    socket: SocketOption = None,
) -> None:
    """Say which backend a packet would get on this node, and why.

    The packet is the next one of a flow that this node knows, and else the first of a new one.
    """
    with exits.errors_for_people():
        asked = _question(packet, network)
        answer = fetch_explanation(socket_path(socket), asked)
    if output is Output.JSON:
        text.show_json(answer)
        return
    console = text.console()
    for line in lines(answer):
        console.print(line)


def _question(words: list[str], network: str) -> Question:
    if words[1:2] == ["-"]:
        raise BadQuestion("your shell has taken '>' for itself: leave the arrow out, or quote it")
    ends = [word for word in words if word not in _ARROWS]
    if len(ends) != 2:  # noqa: PLR2004 - two ends
        raise BadQuestion("wanted: a client and a frontend, as in --help")
    return question(ends[0], ends[1], network)


def lines(answer: Explanation) -> Iterable[Text | Table]:
    """The answer first, then why."""
    yield Text.assemble(
        f"{answer.client} -> {answer.frontend}: ",
        (clean(_verdict(answer)), _COLOURS[answer.outcome]),
    )
    for step in answer.steps:
        yield Text.assemble((f"  {clean(step.subject):<{_WIDTH}}", "bold"), clean(step.text))
    if answer.outcome is Outcome.ANY:
        yield Text()
        yield _candidates(answer.backends)


def _verdict(answer: Explanation) -> str:
    match answer.outcome:
        case Outcome.BACKEND:
            (one,) = answer.backends
            return f"{one.address} on {one.node or one.vtep or 'an unknown node'}"
        case Outcome.ANY:
            return f"one of {len(answer.backends)} backends"
        case Outcome.KERNEL:
            return f"left to the kernel ({answer.reason})"
    return f"dropped ({answer.reason})"


def _candidates(backends: Iterable[Candidate]) -> Table:
    rows = table("TASK", "ADDRESS", "NODE", "STATE", "SHARE", numbers=("SHARE",))
    for one in backends:
        here = " (here)" if one.local else ""
        node = f"{clean(one.node) or one.vtep or '-'}{here}"
        state = Text(one.state, text.style_of(one.state))
        rows.add_row(clean(one.task), one.address, node, state, percent(one.share))
    return rows
