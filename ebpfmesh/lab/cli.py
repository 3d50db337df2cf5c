# SPDX-License-Identifier: Apache-2.0
"""`ebpfmesh lab`: thin, over `Lab`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from types import FrameType
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from ebpfmesh.lab import teardown
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.lab import Lab, Node
from ebpfmesh.lab.paths import ENGINE_VARIABLE, lab_paths
from ebpfmesh.lab.plan import (
    BRIDGE_ADDRESS,
    CLIENT_ADDRESS,
    MAX_NODES,
    METRICS_PORT,
    Place,
)

STATUS_VERSION = 1

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NO_LAB = 3
EXIT_INTERRUPTED = 130

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)

app = typer.Typer(
    help="A real Swarm of N nodes on this machine, in network namespaces.",
    no_args_is_help=True,
)


class Output(StrEnum):
    """For people, or for programs."""

    TABLE = "table"
    JSON = "json"


@app.command()
def up(
    nodes: Annotated[int, typer.Option(min=1, max=MAX_NODES, help="Nodes in all.")] = 3,
    managers: Annotated[int, typer.Option(min=1, help="Managers among them.")] = 1,
    agents: Annotated[bool, typer.Option(help="Start an ebpfmesh agent on each node.")] = True,
    engine: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            envvar=ENGINE_VARIABLE,
            help="A Debian system in a directory, whose Docker Engine to run; else the machine's.",
        ),
    ] = "",
) -> None:
    """Bring up a Swarm; Ctrl-C takes away what there is of it."""
    began_s = time.monotonic()

    def say(step: str) -> None:
        typer.echo(f"{time.monotonic() - began_s:5.1f} s  {step}", err=True)

    with _errors_for_people(), _signals_unwind():
        lab = Lab.up(nodes, managers, agents, progress=say, engine=engine)
    say(f"up: {', '.join(lab.places)}")


@app.command()
def down() -> None:
    """End the lab, and leave nothing of it."""
    with _errors_for_people():
        was_up = teardown.down()
    typer.echo("the lab is down" if was_up else "there is no lab", err=True)


@app.command()
def status(
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print it.")] = (
        Output.TABLE
    ),
) -> None:
    """Each node's addresses and sockets; exit code 3 when no lab is up."""
    with _errors_for_people():
        lab = Lab.find()
    if output is Output.JSON:
        typer.echo(msgspec.json.encode(_report(lab)).decode())
    elif lab is None:
        typer.echo(f"no lab is up in {lab_paths().root}", err=True)
    else:
        Console().print(_table(lab))
    raise typer.Exit(EXIT_NO_LAB if lab is None else 0)


@app.command(
    "exec",
    # Whatever follows the node's name is the command's, even if it looks like an option.
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def execute(
    where: Annotated[str, typer.Argument(metavar="NODE", help="node1.., client or lan")],
    command: Annotated[list[str], typer.Argument(metavar="-- CMD...")],
) -> None:
    """Run a command inside a node, the client or the LAN."""
    with _errors_for_people():
        lab = Lab.load()
    if command[0] == "--":  # some versions of click leave it to us
        command = command[1:]
    try:
        argv = lab.command(where, command)
    except LabError as error:
        _fail(error, EXIT_USAGE)
    sys.stdout.flush()
    os.execvpe(argv[0], argv, lab.environment(where))


def _report(lab: Lab | None) -> dict[str, Any]:
    if lab is None:
        return {"version": STATUS_VERSION, "up": False, "nodes": []}
    return {
        "version": STATUS_VERSION,
        "up": True,
        "nodes": [_report_node(node) for node in lab.nodes],
        Place.CLIENT: {"namespace": Place.CLIENT, "address": CLIENT_ADDRESS},
        Place.LAN: {"namespace": Place.LAN, "address": BRIDGE_ADDRESS},
    }


def _report_node(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "role": node.role,
        "namespace": node.netns,
        "address": node.address,
        "docker_socket": str(node.docker_socket),
        "agent_socket": str(node.agent_socket),
        "metrics_address": f"{node.address}:{METRICS_PORT}",
        "dockerd_pid": node.pid,
        "agent_pid": node.agent_pid,
    }


def _table(lab: Lab) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("NAME", "ROLE", "ADDRESS", "DOCKERD", "AGENT", "DOCKER SOCKET"):
        table.add_column(heading, overflow="fold")
    for node in lab.nodes:
        pids = (str(pid or "-") for pid in (node.pid, node.agent_pid))
        table.add_row(node.name, node.role, node.address, *pids, str(node.docker_socket))
    table.add_row(Place.CLIENT, "", CLIENT_ADDRESS)
    table.add_row(Place.LAN, "", BRIDGE_ADDRESS)
    return table


@contextmanager
def _errors_for_people() -> Iterator[None]:
    try:
        yield
    except LabError as error:
        _fail(error, EXIT_FAILED)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """SIGTERM ends the program as Ctrl-C does: half a lab would stay behind otherwise.

    SIGINT, too, is set, as a shell has its background jobs ignore it.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(error: LabError, code: int) -> NoReturn:
    typer.echo(f"ebpfmesh lab: {error}", err=True)
    raise typer.Exit(code)
