# SPDX-License-Identifier: Apache-2.0
"""Copies of a service's packets, before and after translation (`ebpfmesh capture`).

Packet sockets see what comes in at a link before tc, and what goes out after it: so every packet is
seen on both sides of what was done to it. XDP takes packets away before that; while a capture runs
tc does its part, as it does where there is no XDP at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from typing import NamedTuple

import structlog

import ebpfmesh
from ebpfmesh import pcapng
from ebpfmesh.agent.keeper import Keeper
from ebpfmesh.agent.worker import Worker
from ebpfmesh.capturing import Capture, Instruction, by_addresses, by_ports
from ebpfmesh.datapath.attach import Role
from ebpfmesh.datapath.errors import AttachError
from ebpfmesh.datapath.links import links_of
from ebpfmesh.datapath.tap import Copy, Tap
from ebpfmesh.model import Attachment, Backend, Frontend, FrontendKind, MeshState
from ebpfmesh.swarm.local import LocalContainer

log = structlog.get_logger(__name__)

MAX_CAPTURES = 4
MAX_PLACES = 64
_MOST = 500  # packets at a time
_SILENCE_S = 0.2
_PAUSE_S = 0.02


class NothingToCapture(Exception):
    """No packet of that service can be seen here; the message is for people."""


class TooManyCaptures(Exception):
    """No more can run; the message is for people."""


class Place(NamedTuple):
    """A link to look at; `netns` is the path of its namespace, empty for the node's own."""

    netns: str
    ifindex: int
    name: str
    description: str
    wanted: tuple[Instruction, ...]


class Known(NamedTuple):
    """What the places are found from."""

    mesh: MeshState
    frontends: Iterable[Frontend]
    backends: Iterable[Backend]
    attached: Iterable[Attachment]
    containers: Iterable[LocalContainer]


# -- where a service's packets pass --------------------------------------------------------


def places(service: str, known: Known, tunnel_port: int) -> list[Place]:
    """Those of a service, by name. Blocks on netlink; raises `NothingToCapture`."""
    ids = {each.id for each in known.mesh.services.values() if each.name == service}
    frontends = [each for each in known.frontends if each.pool and each.pool.service_id in ids]
    backends = [each for each in known.backends if each.pool.service_id in ids]
    if not ids:
        raise NothingToCapture(f"no service is called {service}")
    found = [
        *_at_nics(frontends, known.attached, tunnel_port),
        *_in_tasks(frontends, backends, known.containers),
        *_on_overlays(frontends, backends, known),
    ]
    if not found:
        raise NothingToCapture(
            f"nothing of {service} passes here: it publishes no port, and no container of its "
            "networks is on this node"
        )
    if len(found) > MAX_PLACES:
        log.warning("capture.cut_short", places=len(found), looked_at=MAX_PLACES)
    return found[:MAX_PLACES]


def _published(frontends: Iterable[Frontend]) -> list[Frontend]:
    return [each for each in frontends if each.kind is FrontendKind.PORT]


def _at_nics(
    frontends: Iterable[Frontend], attached: Iterable[Attachment], tunnel_port: int
) -> Iterator[Place]:
    ports = {(each.key.protocol, each.key.port) for each in _published(frontends)}
    if not ports:
        return
    wanted = tuple(by_ports(ports, tunnel_port))
    for one in attached:
        if one.role in {Role.NIC, Role.EDGE}:
            text = f"{one.name} of the node: as clients and other nodes see it"
            yield Place("", one.ifindex, one.name, text, wanted)


def _in_tasks(
    frontends: Iterable[Frontend],
    backends: Iterable[Backend],
    containers: Iterable[LocalContainer],
) -> Iterator[Place]:
    ports = {(each.key.protocol, each.target_port) for each in _published(frontends)}
    sandboxes = {each.task_id: each.sandbox for each in containers if each.sandbox}
    for backend in backends if ports else ():
        path = sandboxes.get(backend.key.task_id)
        if path is None or backend.gateway is None:
            continue
        link = _link_with(path, backend.gateway.address)
        if link:
            name = f"task {backend.key.task_id[:12]}"
            text = f"{name}, published ports: as the task sees it"
            yield Place(path, link, name, text, tuple(by_ports(ports)))


def _link_with(netns: str, address: str) -> int:
    """The link that holds an address there; 0 if there is none, or no such namespace."""
    try:
        with links_of(netns) as links:
            return next((a.index for a in links.addresses() if a.address == address), 0)
    except OSError:
        return 0


def _on_overlays(
    frontends: Iterable[Frontend], backends: Sequence[Backend], known: Known
) -> Iterator[Place]:
    names = {network.vni: network.name for network in known.mesh.networks.values()}
    overlays = [each for each in known.attached if each.role == Role.OVERLAY]
    for frontend in frontends:
        if frontend.kind is not FrontendKind.VIP:
            continue
        vni = frontend.key.vni
        own = [backend.address for backend in backends if backend.key.vni == vni]
        wanted = tuple(by_addresses([frontend.key.address, *own]))
        here = [each for each in overlays if each.vni == vni]
        network = names.get(vni, str(vni))
        for one in here:
            text = f"{one.name} on {network}: as one of its containers sees it"
            yield Place(one.netns, one.ifindex, f"{one.name} on {network}", text, wanted)
        for netns in sorted({each.netns for each in here}):
            for index, name in _tunnels(netns):
                text = f"{name} on {network}: as other nodes see it"
                yield Place(netns, index, f"{name} on {network}", text, wanted)


def _tunnels(netns: str) -> list[tuple[int, str]]:
    try:
        with links_of(netns) as links:
            return [(link.index, link.name) for link in links.links() if link.vni]
    except OSError:
        return []


# -- one capture ---------------------------------------------------------------------------


class Recording:
    """Taps at some places; what they see as blocks of a pcapng file."""

    def __init__(self, at: Sequence[Place], asked: Capture) -> None:
        """Raises `NothingToCapture` if nothing is left of the places."""
        self._asked = asked
        self._taps: list[Tap] = []
        self._places: list[Place] = []
        self._left = asked.count
        self._end = time.monotonic() + asked.seconds
        for place in at:
            self._open(place)
        if not self._taps:
            raise NothingToCapture("what there was to look at has gone")

    def _open(self, place: Place) -> None:
        try:
            tap = Tap(place.netns, place.ifindex, place.wanted, self._asked.snaplen)
        except OSError as error:
            log.info("capture.place_gone", place=place.name, error=str(error))
            return
        self._taps.append(tap)
        self._places.append(place)

    @property
    def over(self) -> bool:
        """Whether all that was asked for is there."""
        return self._left <= 0 or time.monotonic() >= self._end

    def head(self) -> bytes:
        """The beginning of the file."""
        blocks = [
            pcapng.interface(place.name, place.description, self._asked.snaplen)
            for place in self._places
        ]
        return pcapng.section(f"ebpfmesh {ebpfmesh.__version__}") + b"".join(blocks)

    def more(self) -> bytes:
        """What has come, in the order of time; statistics if nothing has for a while. Blocks.

        These tell till when all has been told: who ends a capture waits for that.
        """
        looked_ns = time.time_ns()
        wait_s = max(0.0, min(_SILENCE_S, self._end - time.monotonic()))
        ready, _, _ = select.select(self._taps, (), (), wait_s)
        found = [(number, copy) for number, copy in self._taken(ready)]
        found.sort(key=lambda each: each[1].time_ns)
        found = found[: self._left]
        self._left -= len(found)
        return b"".join(
            pcapng.packet(number, c.time_ns, c.data, c.length, outbound=c.outbound)
            for number, c in found
        ) or self.statistics(looked_ns)

    def _taken(self, ready: Sequence[Tap]) -> Iterator[tuple[int, Copy]]:
        for tap in ready:
            number = self._taps.index(tap)
            for _ in range(max(1, _MOST // len(ready))):
                try:
                    copy = tap.take()
                except OSError:
                    break  # its link has gone
                if copy is None:
                    break
                yield number, copy

    def statistics(self, at_ns: int = 0) -> bytes:
        """What each place has seen, and lost, till `at_ns`; if that is 0, till now."""
        at_ns = at_ns or time.time_ns()
        return b"".join(
            pcapng.statistics(number, at_ns, *tap.counts()) for number, tap in enumerate(self._taps)
        )

    def close(self) -> None:
        """Ends it."""
        for tap in self._taps:
            tap.close()


class Capturer:
    """Runs captures. While one is on that wants so, there is no XDP on the node's NIC."""

    def __init__(self, keeper: Keeper, links: Worker, tunnel_port: int) -> None:
        self._keeper = keeper
        self._links = links
        self._tunnel_port = tunnel_port
        self._running = 0
        self._without_xdp = 0
        self._turn = asyncio.Lock()

    async def run(self, asked: Capture) -> AsyncGenerator[bytes, None]:
        """The bytes of the file. Raises `NothingToCapture`, `TooManyCaptures`, `DatapathError`."""
        if self._running >= MAX_CAPTURES:
            raise TooManyCaptures(f"{MAX_CAPTURES} captures run already: end one of them")
        self._running += 1
        try:
            found = await asyncio.to_thread(places, asked.service, self._known(), self._tunnel_port)
            async with contextlib.AsyncExitStack() as stack:
                if not asked.xdp:
                    await stack.enter_async_context(self._no_xdp())
                recording = await asyncio.to_thread(Recording, found, asked)
                stack.callback(recording.close)
                yield recording.head()
                while not recording.over:
                    yield await asyncio.to_thread(recording.more)
                    await asyncio.sleep(_PAUSE_S)
                yield recording.statistics()
        finally:
            self._running -= 1

    def _known(self) -> Known:
        keeper, actual = self._keeper, self._keeper.reconciler.actual
        return Known(
            keeper.mesh,
            tuple(actual.frontends.values()),
            tuple(actual.backends.values()),
            tuple(keeper.reconciler.attached),
            keeper.containers,
        )

    @contextlib.asynccontextmanager
    async def _no_xdp(self) -> AsyncIterator[None]:
        await self._count_without_xdp(1)
        try:
            yield
        finally:
            # Whoever asked may have gone, and this be cancelled: XDP comes back all the same.
            with contextlib.suppress(AttachError):
                await asyncio.shield(self._count_without_xdp(-1))

    async def _count_without_xdp(self, more: int) -> None:
        async with self._turn:
            before, self._without_xdp = self._without_xdp, self._without_xdp + more
            if bool(before) != bool(self._without_xdp):
                paused = bool(self._without_xdp)
                try:
                    await self._links(self._keeper.reconciler.pause_xdp, paused=paused)
                except AttachError as error:
                    log.error("xdp.not_changed", paused=paused, error=str(error))
                    raise
                log.info("xdp.paused" if paused else "xdp.resumed", cause="a capture")
