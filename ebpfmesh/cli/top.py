# SPDX-License-Identifier: Apache-2.0
"""`ebpfmesh top`: what happens per second, by service and backend."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Protocol

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ebpfmesh.cli import exits, text
from ebpfmesh.cli.client import AgentError, fetch_status, socket_path
from ebpfmesh.cli.options import Output, OutputOption, SocketOption
from ebpfmesh.cli.text import clean, per_second, percent, size, table
from ebpfmesh.rates import BackendRates, Order, Rate, Rates, ServiceRates, between, ordered
from ebpfmesh.status import Status

_NUMBERS = ("BACKENDS", "SHARE", "FLOWS", "CONN/S", "PKT/S", "IN/S", "OUT/S", "ENTERED/S")


def top(
    sort: Annotated[
        Order, typer.Option("--sort", "-s", help="What comes first: the highest of it.")
    ] = Order.PACKETS,
    reverse: Annotated[bool, typer.Option("--reverse", "-r", help="The lowest first.")] = False,
    backends: Annotated[
        bool, typer.Option("--backends", "-b", help="A row for each backend, too.")
    ] = False,
    looks: Annotated[
        int | None,
        typer.Option("--count", "-n", min=1, metavar="N", help="End after so many looks."),
    ] = None,
    interval: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks.")
    ] = 1.0,
    output: OutputOption = Output.TABLE,
    socket: SocketOption = None,
) -> None:
    """Show what happens per second, by service and backend, until Ctrl-C."""
    with exits.errors_for_people():
        path = socket_path(socket)
        first = fetch_status(path)
    try:
        with _screen(output) as screen:
            for number, each in enumerate(_looks(path, first, interval), 1):
                if isinstance(each, Rates):
                    screen.show(ordered(each, sort, ascending=reverse), backends)
                else:
                    screen.complain(each)
                if number == looks:
                    break
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _looks(path: Path, before: Status, interval_s: float) -> Iterator[Rates | AgentError]:
    """Go on while the agent is away: it may come back."""
    while True:
        time.sleep(interval_s)
        try:
            after = fetch_status(path)
        except AgentError as error:
            yield error
            continue
        yield between(before, after)
        before = after


class _Screen(Protocol):
    def show(self, rates: Rates, backends: bool) -> None: ...

    def complain(self, error: AgentError) -> None: ...


@contextmanager
def _screen(output: Output) -> Iterator[_Screen]:
    if output is Output.TABLE and sys.stdout.isatty():
        with Live(console=text.console(), screen=True, auto_refresh=False) as live:
            yield _Terminal(live)
    else:
        yield _Lines(output)


class _Terminal:
    """The whole terminal, which is given back at the end."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, rates: Rates, backends: bool) -> None:
        self._live.update(Group(heading(rates), rate_table(rates, backends)), refresh=True)

    def complain(self, error: AgentError) -> None:
        self._live.update(Text(clean(str(error)), "yellow"), refresh=True)


class _Lines:
    """One look after the other, for a pipe or a file."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, rates: Rates, backends: bool) -> None:
        if self._output is Output.JSON:
            text.show_json(rates)
        else:
            console = text.console()
            console.print(heading(rates))
            console.print(rate_table(rates, backends))
            console.print()
        sys.stdout.flush()

    def complain(self, error: AgentError) -> None:
        typer.echo(f"ebpfmesh: {error}", err=True)


# --- what is shown ------------------------------------------------------------------------


def heading(rates: Rates) -> Text:
    """Of which node, over how long."""
    if not rates.seconds:
        return Text(f"{clean(rates.node)}: the agent was started again", "yellow")
    return Text(f"{clean(rates.node)}, over {rates.seconds:.1f}s", "bold")


def rate_table(rates: Rates, backends: bool) -> Table:
    """A row for each service on each of its networks, and for its backends under it."""
    rows = table(
        *("SERVICE", "NETWORK", "BACKENDS", "SHARE", "FLOWS", "CONN/S", "PKT/S", "IN/S", "OUT/S"),
        *("ENTERED/S", "STATE"),
        numbers=_NUMBERS,
    )
    for service in rates.services:
        rows.add_row(*_service(service))
        for cells in _backends(service.backends if backends else ()):
            rows.add_row(*cells)
    return rows


def _service(service: ServiceRates) -> Iterable[str | Text]:
    return (
        service.name,
        service.network,
        f"{service.ready}/{service.total}",
        "",
        str(service.flows),
        *_rate(service.rate),
        per_second(service.entered.connections),
        Text(clean(service.state), text.style_of(service.state)),
    )


def _backends(backends: Iterable[BackendRates]) -> Iterator[Iterable[str | Text]]:
    for backend in backends:
        here = " (here)" if backend.local else ""
        yield (
            f"  {backend.address}",
            f"{backend.node or '-'}{here}",
            "",
            percent(backend.share),
            "",
            *_rate(backend.rate),
            "",
            Text(clean(backend.state), text.style_of(backend.state)),
        )


def _rate(rate: Rate) -> tuple[str, str, str, str]:
    """Bytes in are those to the backend."""
    return (
        per_second(rate.connections),
        per_second(rate.packets),
        size(rate.bytes_to_backend),
        size(rate.bytes_to_client),
    )
