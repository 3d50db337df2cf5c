# SPDX-License-Identifier: Apache-2.0
"""`ebpfmesh trace`: what the programs decide on this node, as they do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from ebpfmesh.cli import exits, text
from ebpfmesh.cli.ask import find
from ebpfmesh.cli.client import fetch_status, follow_trace, socket_path
from ebpfmesh.cli.complete import service_names
from ebpfmesh.cli.options import Output, OutputOption, SocketOption
from ebpfmesh.cli.text import clean
from ebpfmesh.tracing import Kind, Told

_COLOURS = {
    Kind.FLOW: "green",
    Kind.DROP: "red",
    Kind.HANDBACK: "yellow",
    Kind.RETRY: "cyan",
    Kind.LOST: "red",
}
_KINDS = ", ".join(kind for kind in Kind if kind is not Kind.LOST)


def trace(
    service: Annotated[
        str,
        typer.Option(
            "--service", metavar="NAME", help="Only of this one.", autocompletion=service_names
        ),
    ] = "",
    client: Annotated[
        str,
        typer.Option("--client", metavar="ADDRESS[/LENGTH]", help="Only from there, or to there."),
    ] = "",
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", metavar="KIND", help=f"Only of this kind: {_KINDS}. May be repeated."
        ),
    ] = None,
    reason: Annotated[
        list[str] | None,
        typer.Option(
            "--reason", metavar="REASON", help="Only for this one, as counted. May be repeated."
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", "-a", help="Also what is left to the kernel as no service's."),
    ] = False,
    count: Annotated[
        int | None,
        typer.Option("--count", "-n", min=1, metavar="N", help="End after so many."),
    ] = None,
    output: OutputOption = Output.TABLE,
    socket: SocketOption = None,
) -> None:
    """Show what is decided about packets on this node, as it happens, until Ctrl-C.

    A line for each new flow, packet dropped or left to the kernel, and flow that gets another
    backend. Flows that go on are not touched by it.
    """
    query = [("kind", one) for one in kind or ()] + [("reason", one) for one in reason or ()]
    query += [("client", client)] if client else []
    query += [("every", "1")] if every else []
    try:
        with exits.errors_for_people():
            path = socket_path(socket)
            if service:
                query.append(("service", find(service, fetch_status(path).services)[0].name))
            shown = 0
            for told in _after_heading(follow_trace(path, query), output):
                _show(told, output)
                shown += told.kind is not Kind.LOST
                if shown == count:
                    break
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _after_heading(lines: Iterator[Told | None], output: Output) -> Iterator[Told]:
    """The heading says that the agent listens."""
    for number, told in enumerate(lines):
        if number == 0 and output is Output.TABLE:
            text.console().print(heading())
            sys.stdout.flush()
        if told is not None:
            yield told


def _show(told: Told, output: Output) -> None:
    if output is Output.JSON:
        text.show_json(told)
    else:
        text.console().print(line(told))
    sys.stdout.flush()


def heading() -> Text:
    """Over the columns of `line`."""
    return Text(f"{'TIME':<13} {'KIND':<8} {'WHY':<16} {'PROTOCOL':<8} PACKET", "bold")


def line(told: Told) -> Text:
    """One event, for people."""
    at = datetime.fromtimestamp(told.at, UTC).strftime("%H:%M:%S.%f")[:-3] + "Z"
    if told.kind is Kind.LOST:
        return Text(f"{at:<13} {told.lost} events were lost: there were too many", "red")
    return Text.assemble(
        f"{at:<13} ",
        (f"{told.kind:<8}", _COLOURS[told.kind]),
        f" {clean(told.reason or told.path):<16} {clean(told.protocol) or '-':<8} ",
        clean(" ".join(_words(told))),
    )


def _words(told: Told) -> Iterator[str]:
    """Who to whom, and what became of it."""
    if told.source or told.destination:
        yield f"{told.source or 'a process'} -> {told.destination or 'this node'}"
    for word in (told.flags, told.info and f"({told.info})"):
        if word:
            yield word
    if told.backend:
        verb = "was for" if told.kind is Kind.RETRY else "to"
        yield f"{verb} {told.backend} on {told.node or 'an unknown node'}"
    if told.entry:
        yield f"entered at {told.entry}"
    if told.service:
        network = f" ({told.network})" if told.network else ""
        yield f"of {told.service}{network}"
