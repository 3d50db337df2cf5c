# SPDX-License-Identifier: Apache-2.0
"""`ebpfmesh events`: what has changed lately on this node, and why."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from ebpfmesh.changes import Change
from ebpfmesh.cli import exits, text
from ebpfmesh.cli.client import fetch_changes, socket_path
from ebpfmesh.cli.complete import service_names
from ebpfmesh.cli.options import Output, OutputOption, SocketOption
from ebpfmesh.cli.text import clean, table


def events(
    service: Annotated[
        str | None,
        typer.Option(
            "--service", metavar="NAME", help="Only those of it.", autocompletion=service_names
        ),
    ] = None,
    number: Annotated[
        int, typer.Option("--number", "-n", min=1, metavar="N", help="At most so many.")
    ] = 20,
    output: OutputOption = Output.TABLE,
    socket: SocketOption = None,
) -> None:
    """List what has changed lately on this node, and why; the last one at the end."""
    with exits.errors_for_people():
        found = fetch_changes(socket_path(socket))
    if service is not None:
        found = [change for change in found if change.fields.get("service") == service]
    found = found[:number][::-1]
    if output is Output.JSON:
        text.show_list("events", found)
    else:
        text.show(event_table(found))


def event_table(found: Iterable[Change]) -> Table:
    """A row for each."""
    rows = table("TIME", "EVENT", "WHAT", "CAUSE", "TOOK", numbers=("TOOK",))
    for change in found:
        rows.add_row(
            datetime.fromtimestamp(change.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            change.event,
            "  ".join(f"{name}={clean(value)}" for name, value in change.fields.items()),
            clean(change.cause) or "-",
            "-" if change.took_s is None else f"{change.took_s * 1000:.1f}ms",
        )
    return rows
