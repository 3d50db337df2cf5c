# SPDX-License-Identifier: Apache-2.0
"""All commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

import ebpfmesh
from ebpfmesh.cli import ask, capture, check, demo, events, explain, run, top, trace
from ebpfmesh.cli.examples import below
from ebpfmesh.cli.options import with_settings
from ebpfmesh.lab.cli import app as lab

app = typer.Typer(
    help="A load balancer for Docker Swarm that runs in eBPF.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ebpfmesh {ebpfmesh.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """A load balancer for Docker Swarm that runs in eBPF."""


app.command("agent", epilog=below("agent"))(with_settings(run.agent))
app.command("status", epilog=below("status"))(ask.status)
app.command("top", epilog=below("top"))(top.top)
app.add_typer(ask.services, name="service")
app.add_typer(ask.flows, name="flow")
app.command(
    "explain",
    epilog=below("explain"),
    context_settings={"ignore_unknown_options": True},  # the arrow
)(explain.explain)
app.command("events", epilog=below("events"))(events.events)
app.command("trace", epilog=below("trace"))(trace.trace)
app.command("capture", epilog=below("capture"))(capture.capture)
app.command("check", epilog=below("check"))(with_settings(check.run))
app.command("detach", epilog=below("detach"))(with_settings(run.detach))
app.command("demo", epilog=below("demo"))(demo.run)
app.add_typer(lab, name="lab")
