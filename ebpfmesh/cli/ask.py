# SPDX-License-Identifier: Apache-2.0
"""The commands that ask a running agent: status, service and flow."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from ebpfmesh.cli import exits, report, text
from ebpfmesh.cli.client import AgentError, fetch_flows, fetch_status, socket_path
from ebpfmesh.cli.complete import service_names
from ebpfmesh.cli.examples import below
from ebpfmesh.cli.options import Output, OutputOption, SocketOption
from ebpfmesh.status import ServiceStatus, Status

services = typer.Typer(help="Services, as this node balances them.", no_args_is_help=True)
flows = typer.Typer(help="Flows that this node translates.", no_args_is_help=True)


def status(
    output: OutputOption = Output.TABLE,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again and again, until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks of --watch.")
    ] = 1.0,
    socket: SocketOption = None,
) -> None:
    """Node, datapath, hub, services. Exit code: 0 healthy, 1 degraded, 3 no agent."""
    with exits.errors_for_people():
        path = socket_path(socket)
        if watch:
            _watch(path, output, interval)
        answer = fetch_status(path)
    _show_status(answer, output)
    for problem in answer.problems:
        if output is Output.JSON:
            typer.echo(f"ebpfmesh: degraded: {text.clean(problem)}", err=True)
    raise typer.Exit(exits.DEGRADED if answer.problems else 0)


def _watch(path: Path, output: Output, interval_s: float) -> None:
    """Go on while the agent is away: it may come back."""
    try:
        while True:
            if sys.stdout.isatty():
                typer.echo("\x1b[H\x1b[2J", nl=False)
            try:
                _show_status(fetch_status(path), output)
            except AgentError as error:
                typer.echo(f"ebpfmesh: {error}", err=True)
            sys.stdout.flush()
            time.sleep(interval_s)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _show_status(answer: Status, output: Output) -> None:
    if output is Output.JSON:
        text.show_json(answer)
        return
    console = text.console()
    for line in report.summary(answer):
        console.print(line)
    console.print()
    console.print(report.status_table(answer.services))


@services.command("ls", epilog=below("service ls"))
def list_services(output: OutputOption = Output.TABLE, socket: SocketOption = None) -> None:
    """List every service on each of its networks."""
    with exits.errors_for_people():
        found = fetch_status(socket_path(socket)).services
    if output is Output.JSON:
        text.show_list("services", found)
    else:
        text.show(report.service_table(found))


@services.command("inspect", epilog=below("service inspect"))
def inspect_service(
    name: Annotated[
        str,
        typer.Argument(
            help="A name, an id or the beginning of either.", autocompletion=service_names
        ),
    ],
    output: OutputOption = Output.TABLE,
    socket: SocketOption = None,
) -> None:
    """Show a service's frontends and backends, with state and counters."""
    with exits.errors_for_people():
        known = fetch_status(socket_path(socket)).services
    found = find(name, known)
    if output is Output.JSON:
        text.show_list("services", found)
        return
    console = text.console()
    for index, service in enumerate(found):
        if index:
            console.print()
        for line in report.service_lines(service):
            console.print(line)


def find(wanted: str, known: Iterable[ServiceStatus]) -> list[ServiceStatus]:
    """One service, on all its networks; or say why not, and what there is."""
    known = list(known)
    found = (
        [service for service in known if wanted in (service.name, service.id)]
        or [service for service in known if wanted and service.id.startswith(wanted)]
        or [service for service in known if wanted and service.name.startswith(wanted)]
    )
    shown = text.clean(wanted)
    if not found:
        exits.fail(f"no service {shown}: {_candidates(wanted, known)}")
    if len({service.id for service in found}) > 1:
        exits.fail(f"{shown} could be any of {_names(found)}: give more of it")
    return found


def _candidates(wanted: str, known: list[ServiceStatus]) -> str:
    if not known:
        return "this node knows of none"
    close = get_close_matches(wanted, {service.name for service in known})
    if close:
        return f"did you mean {', '.join(map(text.clean, close))}?"
    return f"there are {_names(known)}"


def _names(found: Iterable[ServiceStatus]) -> str:
    return ", ".join(sorted({text.clean(service.name) for service in found}))


@flows.command("ls", epilog=below("flow ls"))
def list_flows(
    service: Annotated[
        str | None,
        typer.Option(
            "--service",
            metavar="NAME",
            help="Only those of a service.",
            autocompletion=service_names,
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
    socket: SocketOption = None,
) -> None:
    """List live flows."""
    with exits.errors_for_people():
        path = socket_path(socket)
        found = fetch_flows(path)
        names = {one.name for one in find(service, fetch_status(path).services)} if service else ()
    if service:
        found = [flow for flow in found if flow.service in names]
    if output is Output.JSON:
        text.show_list("flows", found)
    else:
        text.show(report.flow_table(found))
