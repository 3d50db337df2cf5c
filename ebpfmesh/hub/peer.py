# SPDX-License-Identifier: Apache-2.0
"""The hub's side of one agent's connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec
import structlog
from msgspec.structs import replace

from ebpfmesh.hub.delta import update
from ebpfmesh.hub.errors import ProtocolError
from ebpfmesh.hub.protocol import (
    MAX_FROM_AGENT,
    MAX_FROM_HUB,
    PROTOCOL_VERSION,
    Follow,
    FromAgent,
    FromHub,
    Hello,
    Ping,
    Pong,
    Refusal,
    Report,
    Welcome,
    check_version,
    encode,
)
from ebpfmesh.hub.race import race
from ebpfmesh.hub.stream import MessageStream
from ebpfmesh.hub.tls import Identity
from ebpfmesh.model import BackendState, MeshState

ReportSink = Callable[[str, str, dict[str, BackendState], int], None]
"""Takes a node's id, its VTEP, the states of its tasks, and when that came to be."""

log = structlog.get_logger(__name__)


class StateView(Protocol):
    """Where the hub's state comes from: `ebpfmesh.latest.Latest` is one."""

    @property
    def value(self) -> MeshState:
        """The newest state; version 0 while there is none."""
        ...


class ServerSettings(msgspec.Struct, frozen=True):
    """The hub's patience and limits. Agents that only stand by are pinged less often.

    A stranger is who has not shown a certificate yet.
    """

    ping_interval_s: float = 0.25
    standby_ping_interval_s: float = 0.5
    handshake_timeout_s: float = 3.0
    silence_s: float = 5.0
    send_timeout_s: float = 10.0
    reload_interval_s: float = 30.0
    max_connections: int = 4096
    max_strangers: int = 256
    max_of_one_address: int = 16
    max_from_agent: int = MAX_FROM_AGENT
    max_from_hub: int = MAX_FROM_HUB


class PeerStatus(msgspec.Struct, frozen=True):
    """A connected agent; `sent_version` is 0 while it only stands by."""

    node_id: str
    agent: str
    following: bool
    sent_version: int
    since_s: float


class UpdateEncoder:
    """Encodes the way from one state to another once for all peers that need it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._target: MeshState | None = None
        self._frames: dict[tuple[int, int], bytes] = {}

    def frame(self, base: MeshState | None, target: MeshState, origin_ns: int) -> bytes:
        """The frame that takes a peer from `base` to `target`, for what happened at `origin_ns`."""
        if target is not self._target:
            self._target, self._frames = target, {}
        key = (base.version if base else 0, origin_ns)
        if key not in self._frames:
            changed = replace(target, origin_ns=origin_ns)
            self._frames[key] = encode(update(base, changed), self._limit)
        return self._frames[key]


class HubParts(msgspec.Struct, frozen=True):
    """What all peers of one hub share."""

    hub_id: str
    states: StateView
    encoder: UpdateEncoder
    on_report: ReportSink
    age_s: Callable[[], float]
    settings: ServerSettings
    on_heard: Callable[[str], None] = lambda _: None


class Peer:
    """One agent: takes its reports, and keeps it at the newest state.

    Nothing queues up for a slow agent: whenever it has taken one frame, the next is made
    from what it has and what is newest.
    """

    def __init__(self, stream: MessageStream[FromAgent], identity: Identity, hub: HubParts) -> None:
        self._stream = stream
        self._identity = identity
        self._hub = hub
        self._settings = hub.settings
        self._wake = asyncio.Event()
        self._sent: MeshState | None = None
        self._following = False
        self._agent = ""
        self._ping_due = 0.0
        self._origin_ns = 0
        self._since = time.monotonic()

    @property
    def status(self) -> PeerStatus:
        """What there is to know of the connection."""
        return PeerStatus(
            node_id=self._identity.node_id,
            agent=self._agent,
            following=self._following,
            sent_version=self._sent.version if self._sent else 0,
            since_s=time.monotonic() - self._since,
        )

    @property
    def node_id(self) -> str:
        """The node, as its certificate says."""
        return self._identity.node_id

    def hang_up(self) -> None:
        """End the connection, whatever it is doing."""
        self._stream.abort()

    def wake(self, origin_ns: int = 0) -> None:
        """There is a new state; of those that are skipped the first one's origin counts."""
        if origin_ns:
            self._origin_ns = min(origin_ns, self._origin_ns or origin_ns)
        self._wake.set()

    async def run(self) -> None:
        """Serve the agent until it leaves; raises what ended it otherwise."""
        await self._greet()
        await race(self._receive(), self._feed())

    # --- the handshake ------------------------------------------------------------------

    async def _greet(self) -> None:
        hello = await self._stream.first(self._settings.handshake_timeout_s)
        try:
            self._check(hello)
        except ProtocolError as error:
            await self._send(Refusal(str(error)))
            raise
        await self._send(Welcome(protocol=PROTOCOL_VERSION, node_id=self._hub.hub_id))

    def _check(self, hello: FromAgent) -> None:
        if not isinstance(hello, Hello):
            raise ProtocolError("the first message is not a hello")
        check_version(hello.protocol)
        if hello.node_id != self._identity.node_id:
            raise ProtocolError(
                f"the agent says to be {hello.node_id}, its certificate {self._identity.node_id}"
            )
        self._agent = hello.agent

    # --- what it says -------------------------------------------------------------------

    async def _receive(self) -> None:
        async for message in self._stream.messages():
            self._hub.on_heard(self.node_id)
            match message:
                case Pong():
                    continue
                case Follow(active=active):
                    self._follow(active)
                case Report():
                    self._report(message)
                case Hello():
                    raise ProtocolError("a second hello")

    def _follow(self, active: bool) -> None:
        """Begin with the whole state: equal versions of two hubs need not be equal states."""
        self._following = active
        self._sent = None
        self._ping_due = 0.0
        self._wake.set()

    def _report(self, report: Report) -> None:
        """Nobody speaks for another node, managers neither."""
        if report.node_id != self._identity.node_id:
            log.warning(
                "hub.report_refused", node_id=self._identity.node_id, claimed=report.node_id
            )
            return
        self._hub.on_report(report.node_id, report.vtep, report.tasks, report.origin_ns)

    # --- what it is told ----------------------------------------------------------------

    async def _feed(self) -> None:
        """Send the newest state whenever it is newer, and pings however often it changes."""
        while True:
            self._wake.clear()
            if self._following and self._hub.states.value is not self._sent:
                await self._send_state()
            if time.monotonic() >= self._ping_due:
                self._ping_due = time.monotonic() + self._ping_interval_s
                await self._send(Ping(self._confirmed()))
            await self._woken()

    async def _send_state(self) -> None:
        state = self._hub.states.value
        if not state.version:
            self._sent = state
            return
        base = self._sent if self._sent and self._sent.version else None
        frame = self._hub.encoder.frame(base, state, self._origin_ns or state.origin_ns)
        self._sent, self._origin_ns = state, 0
        await self._stream.send(frame, self._settings.send_timeout_s)

    async def _woken(self) -> None:
        """Wait for a new state or wish, until the next ping is due."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._ping_due - time.monotonic()):
                await self._wake.wait()

    @property
    def _ping_interval_s(self) -> float:
        settings = self._settings
        return settings.ping_interval_s if self._following else settings.standby_ping_interval_s

    def _confirmed(self) -> float:
        age_s = self._hub.age_s()
        return age_s if age_s < float("inf") else -1.0

    async def _send(self, message: FromHub) -> None:
        frame = encode(message, self._settings.max_from_hub)
        await self._stream.send(frame, self._settings.send_timeout_s)
