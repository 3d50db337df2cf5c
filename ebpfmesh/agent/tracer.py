# SPDX-License-Identifier: Apache-2.0
"""Tells everyone who listens what the programs decide (`ebpfmesh trace`).

A ring has one reader: the agent, which gives to each listener what that has asked for. The programs
are asked for it only while someone listens, and for a few seconds at a time: an agent that dies
over it leaves nothing on. However much happens, the agent reads a bounded number of events per
second, a listener that is slow has a bounded number waiting, and what is lost is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import structlog

from ebpfmesh import frame
from ebpfmesh.agent.naming import Naming
from ebpfmesh.datapath.errors import DatapathError
from ebpfmesh.datapath.events import Event, Ring
from ebpfmesh.model import Protocol
from ebpfmesh.tracing import TRACE_VERSION, Kind, Path, Reasons, Told, Watch

log = structlog.get_logger(__name__)

MAX_LISTENERS = 8
_INTERVAL_S = 0.1
_MOST = 400  # events at a time
_LEASE_S = 3.0
_WAITING = 2000  # events, for one listener
_PATHS = tuple(Path)


class TooManyListeners(Exception):
    """No more can listen; the message is for people."""


class Listener:
    """One who listens; `told` is what he has not taken yet."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.began = asyncio.Event()
        self.ended = False
        self._news = asyncio.Event()
        self._waiting: list[Told] = []
        self._lost = 0

    def give(self, told: list[Told], lost: int) -> None:
        """Keeps what there is room for."""
        room = _WAITING - len(self._waiting)
        self._waiting += told[:room]
        self._lost += lost + len(told[room:])
        if self._waiting or self._lost:
            self._news.set()

    def end(self) -> None:
        """Nothing comes any more."""
        self.ended = True
        self._news.set()

    async def take(self, timeout_s: float) -> list[Told]:
        """What has come; nothing if nothing comes for so long, or ever again (`ended`)."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout_s)
        self._news.clear()
        told, self._waiting = self._waiting, []
        if self._lost:
            told.append(Told(TRACE_VERSION, time.time(), Kind.LOST, lost=self._lost))
            self._lost = 0
        return told


class Tracer:
    """Reads the ring while there are listeners.

    `open_ring` and `naming` are called in threads; `reasons` are those of the programs.
    """

    def __init__(
        self,
        open_ring: Callable[[], Ring],
        naming: Callable[[], Naming],
        *,
        reasons: Reasons,
        tunnel_port: int = 4789,
    ) -> None:
        self.reasons = reasons
        self._open_ring = open_ring
        self._naming = naming
        self._tunnel_port = tunnel_port
        self._listeners: set[Listener] = set()
        self._reading: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def listen(self, watch: Watch) -> AsyncIterator[Listener]:
        """From here on the programs tell; raises `TooManyListeners`, `DatapathError`."""
        if len(self._listeners) >= MAX_LISTENERS:
            raise TooManyListeners(f"{MAX_LISTENERS} traces run already: end one of them")
        listener = Listener(watch)
        self._listeners.add(listener)
        try:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read(), name="trace")
            await self._wait_begun(listener)
            yield listener
        finally:
            self._listeners.discard(listener)

    async def _wait_begun(self, listener: Listener) -> None:
        """Raises what keeps the ring from being read."""
        assert self._reading is not None
        begun = asyncio.create_task(listener.began.wait())
        await asyncio.wait({begun, self._reading}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        if not listener.began.is_set():
            await self._reading

    async def _read(self) -> None:
        ring = await asyncio.to_thread(self._open_ring)
        try:
            while self._listeners:
                listeners = tuple(self._listeners)
                told, lost = await asyncio.to_thread(self._look, ring, listeners)
                for listener, each in zip(listeners, told, strict=True):
                    listener.began.set()
                    listener.give(each, lost)
                await asyncio.sleep(_INTERVAL_S)
        except DatapathError as error:
            log.warning("trace.failed", error=str(error))
            raise
        finally:
            ring.close()
            for listener in self._listeners:
                listener.end()

    def _look(self, ring: Ring, listeners: tuple[Listener, ...]) -> tuple[list[list[Told]], int]:
        """Returns what each is to be told, and how much was lost. Blocks on system calls."""
        wanted = 0
        for listener in listeners:
            wanted |= listener.watch.mask(self.reasons)
        ring.want(wanted, _LEASE_S)
        events = ring.read(_MOST)
        naming = self._naming() if events else None
        found = [self._told(event, naming) for event in events if naming]
        told = [[each for each, ends in found if one.watch.lets(each, ends)] for one in listeners]
        return told, ring.lost()

    def _told(self, event: Event, naming: Naming) -> tuple[Told, tuple[str, str]]:
        """In words, and the addresses of both ends."""
        kind, reason = self.reasons.get(event.what, (Kind.FLOW, ""))
        number, seen = _seen(event, self._tunnel_port)
        ends = ((seen.destination, seen.destination_port), (seen.source, seen.source_port))
        named = next(filter(any, (naming.of_end(event.vni, *end, number) for end in ends)), None)
        backend = naming.backend(event.backend)
        if backend:
            named = naming.of_backend(backend)
        told = Told(
            version=TRACE_VERSION,
            at=time.time() - (time.monotonic_ns() - event.time_ns) / 1e9,
            kind=Kind(kind),
            reason=reason,
            path=_PATHS[event.path],
            program=event.program,
            protocol=seen.protocol,
            source=frame.end(seen.source, seen.source_port),
            destination=frame.end(seen.destination, seen.destination_port),
            flags=seen.flags,
            info=seen.info,
            length=event.length,
            service=named.service if named else "",
            network=named.network if named else "",
            backend=backend.address if backend else "",
            task=backend.key.task_id if backend else "",
            node=naming.node(backend.vtep) if backend else "",
            entry=naming.node(event.entry) if event.entry else "",
        )
        return told, (seen.source, seen.destination)


def _seen(event: Event, tunnel_port: int) -> tuple[int, frame.Frame]:
    """Protocol number, and the packet as far as it is known."""
    if event.head:
        seen = frame.read(event.head, tunnel_port)
        number = next((p for p in Protocol if p and seen.protocol == p.name.lower()), 0)
        return number, seen
    flags = frame.tcp_flags(event.tcp_flags) if event.protocol == Protocol.TCP else ""
    return event.protocol, frame.Frame(
        frame.protocol_name(event.protocol) if event.protocol else "",
        event.source,
        event.source_port,
        event.destination,
        event.destination_port,
        flags,
    )
