# SPDX-License-Identifier: Apache-2.0
"""`ebpfmesh capture`: a service's packets, before and after translation, for Wireshark."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, BinaryIO

import typer

from ebpfmesh import pcapng
from ebpfmesh.capturing import MAX_COUNT, MAX_SECONDS, MAX_SNAPLEN, Capture
from ebpfmesh.cli import exits
from ebpfmesh.cli.ask import find
from ebpfmesh.cli.client import fetch_status, follow_capture, socket_path
from ebpfmesh.cli.complete import service_names
from ebpfmesh.cli.options import SocketOption
from ebpfmesh.pcapng import Block

_USUAL = Capture("")
_AHEAD_NS = 500_000_000


def capture(
    service: Annotated[
        str,
        typer.Argument(
            help="A name, an id or the beginning of either.", autocompletion=service_names
        ),
    ],
    write: Annotated[
        Path | None,
        typer.Option("--write", "-w", metavar="FILE", help="Where to; otherwise standard output."),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=MAX_COUNT, help="End after so many packets.")
    ] = _USUAL.count,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=MAX_SECONDS, help="End after that time.")
    ] = _USUAL.seconds,
    snaplen: Annotated[
        int,
        typer.Option("--snaplen", min=64, max=MAX_SNAPLEN, help="Keep so many bytes of each."),
    ] = _USUAL.snaplen,
    keep_xdp: Annotated[
        bool,
        typer.Option("--keep-xdp", help="Leave XDP on: what it takes is not seen at the NIC."),
    ] = False,
    socket: SocketOption = None,
) -> None:
    """Copy a service's packets on this node, before and after translation, as pcapng.

    An interface in the file is a link that they pass: the NIC, a task's own link, the links of an
    overlay network. While it runs, tc does the work of XDP, before which no packet is seen.
    """
    if write is None and sys.stdout.isatty():
        exits.fail("a terminal does not show packets: give a file with --write, or a pipe", 2)
    query = {"count": str(count), "seconds": str(seconds), "snaplen": str(snaplen)}
    query |= {"xdp": "1"} if keep_xdp else {}
    with exits.errors_for_people():
        path = socket_path(socket)
        query["service"] = find(service, fetch_status(path).services)[0].name
        with _file(write) as file:
            _say(_copy(follow_capture(path, query), file))


@contextmanager
def _file(write: Path | None) -> Iterator[BinaryIO]:
    try:
        with nullcontext(sys.stdout.buffer) if write is None else write.open("wb") as file:
            yield file
    except OSError as error:
        if write is None:
            raise
        exits.fail(f"{write}: {error.strerror or error}")


def _copy(blocks: Iterable[Block], file: BinaryIO) -> tuple[int, int]:
    """Returns how many packets there were, and how many were lost. Ctrl-C ends it, too.

    What has passed until then is still on its way here, and is waited for; a second Ctrl-C ends
    that. Statistics come again and again, to say that the agent is there: the last ones count.
    """
    packets = places = 0
    last: dict[int, Block] = {}
    with suppress(KeyboardInterrupt), _ctrl_c() as pressed:
        for block in blocks:
            packets += block.kind == pcapng.PACKET
            places += block.kind == pcapng.INTERFACE
            if block.kind == pcapng.STATISTICS:
                last[block.place] = block
            else:
                file.write(block.data)
            file.flush()
            if pressed and _is_later(block, pressed[0], places):
                break
    for block in last.values():
        file.write(block.data)
    file.flush()
    return packets, sum(block.dropped for block in last.values())


@contextmanager
def _ctrl_c() -> Iterator[list[int]]:
    """When Ctrl-C was pressed first; the second time is as usual."""
    pressed: list[int] = []

    def press(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        pressed.append(time.time_ns())

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _is_later(block: Block, pressed_ns: int, places: int) -> bool:
    """Whether all that was seen till then has come before this block.

    Statistics say so where no packet comes; where they come all the time, those of one place may
    be ahead of another's for a moment.
    """
    if block.kind == pcapng.STATISTICS:
        return block.place == places - 1 and block.time_ns >= pressed_ns
    return block.kind == pcapng.PACKET and block.time_ns >= pressed_ns + _AHEAD_NS


def _say(counted: tuple[int, int]) -> None:
    packets, lost = counted
    typer.echo(f"{packets} packets" + (f", {lost} lost" if lost else ""), err=True)
