# SPDX-License-Identifier: Apache-2.0
"""The agent's side of a connection to one hub, kept up for as long as it is wanted."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Callable

import msgspec
import structlog

from ebpfmesh.hub.delta import apply
from ebpfmesh.hub.errors import (
    BaseMismatch,
    CertificateError,
    HubError,
    PeerSilent,
    ProtocolError,
    Refused,
)
from ebpfmesh.hub.protocol import (
    MAX_FROM_AGENT,
    MAX_FROM_HUB,
    PROTOCOL_VERSION,
    Delta,
    Follow,
    FromAgent,
    FromHub,
    Full,
    Hello,
    Ping,
    Pong,
    Refusal,
    Report,
    Welcome,
    check_version,
    decode_from_hub,
    encode,
)
from ebpfmesh.hub.race import race
from ebpfmesh.hub.stream import MessageStream
from ebpfmesh.hub.tls import MANAGER_ROLE, Certificates, peer_identity, why_not_valid
from ebpfmesh.latest import Latest
from ebpfmesh.model import MeshState

log = structlog.get_logger(__name__)


class HubAddress(msgspec.Struct, frozen=True):
    """Where a hub may be: a manager's address and the hubs' port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class LinkSettings(msgspec.Struct, frozen=True):
    """The agent's patience. A hub that is followed is missed after `silence_s`.

    A hub counts as cut off once the Swarm has not confirmed its state for `stale_after_s`.
    """

    connect_timeout_s: float = 2.0
    silence_s: float = 1.0
    standby_silence_s: float = 4.0
    send_timeout_s: float = 5.0
    first_retry_s: float = 0.1
    longest_retry_s: float = 2.0
    stale_after_s: float = 15.0
    max_from_hub: int = MAX_FROM_HUB
    max_from_agent: int = MAX_FROM_AGENT


class LinkStatus(msgspec.Struct, frozen=True):
    """One hub, as the agent sees it."""

    address: str
    node_id: str
    connected: bool
    following: bool
    since_s: float
    last_error: str


class HubLink:
    """Connects, reports, and, if told to follow, keeps a copy of the hub's state.

    `confirmed_at` is when the Swarm last confirmed the hub's state, by our own clock.
    Every hub is linked, so that each one gets every node's reports, and so that to leave a
    dead hub takes one message instead of a handshake.
    """

    def __init__(
        self,
        address: HubAddress,
        certificates: Certificates,
        *,
        reports: Latest[Report | None],
        on_change: Callable[[HubLink], None],
        settings: LinkSettings,
        agent: str = "",
    ) -> None:
        self.address = address
        self.state: MeshState | None = None
        self.node_id = ""
        self.last_error = ""
        self.following = False
        self.confirmed_at: float | None = None
        self._certificates = certificates
        self._reports = reports
        self._on_change = on_change
        self._settings = settings
        self._agent = agent
        self._stream: MessageStream[FromHub] | None = None
        self._changed_at = time.monotonic()
        self._followed_at = 0.0
        self._wishes: asyncio.Queue[FromAgent] = asyncio.Queue()

    # --- what the client asks -----------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the hub has welcomed us."""
        return self._stream is not None

    @property
    def fresh(self) -> bool:
        """Whether the hub is connected and itself in touch with the Swarm."""
        if self._stream is None or self.confirmed_at is None:
            return False
        return time.monotonic() - self.confirmed_at <= self._settings.stale_after_s

    @property
    def confirmed(self) -> bool:
        """Whether the Swarm confirmed the hub's state after we began to follow it."""
        return self.confirmed_at is not None and self.confirmed_at > self._followed_at

    @property
    def status(self) -> LinkStatus:
        """What there is to know of the link."""
        return LinkStatus(
            address=str(self.address),
            node_id=self.node_id,
            connected=self.connected,
            following=self.following,
            since_s=time.monotonic() - self._changed_at,
            last_error=self.last_error,
        )

    def follow(self, active: bool) -> None:
        """Ask for the hub's state from now on, or no longer."""
        self.following = active
        self._followed_at = time.monotonic()
        self.state = None
        if self._stream is not None:
            settings = self._settings
            self._stream.silence_s = settings.silence_s if active else settings.standby_silence_s
            self._wishes.put_nowait(Follow(active))

    # --- the connection -----------------------------------------------------------------

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        pause_s = self._settings.first_retry_s
        while True:
            try:
                await self._session()
            except (HubError, OSError) as error:
                reason = str(error) or type(error).__name__
            else:
                reason = "the hub closed the connection"
            was_connected = self.connected
            self._lost(reason)
            if was_connected:
                pause_s = self._settings.first_retry_s
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause_s = min(2 * pause_s, self._settings.longest_retry_s)

    async def _session(self) -> None:
        stream = await self._connect()
        try:
            await self._greet(stream)
            self._up(stream)
            await race(self._receive(stream), self._send_wishes(stream), self._send_reports(stream))
        finally:
            await stream.close()

    async def _connect(self) -> MessageStream[FromHub]:
        """Open the connection, with the newest certificates, to a manager and nobody else."""
        self._renew_certificates()
        reader, writer = await self._open()
        try:
            self._check_hub(writer)
        except CertificateError:
            writer.transport.abort()
            raise
        return MessageStream(
            reader,
            writer,
            decode=decode_from_hub,
            limit=self._settings.max_from_hub,
            silence_s=self._settings.standby_silence_s,
        )

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        limit_s = self._settings.connect_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.open_connection(
                    self.address.host,
                    self.address.port,
                    ssl=self._certificates.client_context,
                    server_hostname=MANAGER_ROLE,
                )
        except TimeoutError as error:
            raise PeerSilent(f"no connection to {self.address} within {limit_s:g} s") from error
        except ssl.SSLCertVerificationError as error:
            why = why_not_valid(error)
            raise CertificateError(
                f"the certificate of {self.address} is not valid: {why}"
            ) from error

    def _renew_certificates(self) -> None:
        """The old ones may still do where the new ones cannot be read (yet)."""
        try:
            self._certificates.reload_if_changed()
        except CertificateError as error:
            log.debug("hub.certificates_not_renewed", error=str(error))

    def _check_hub(self, writer: asyncio.StreamWriter) -> None:
        hub = peer_identity(writer.get_extra_info("ssl_object"), self._certificates.identity)
        if not hub.is_manager:
            raise CertificateError(f"{hub.node_id} serves as a hub, but it is a {hub.role}")

    async def _greet(self, stream: MessageStream[FromHub]) -> None:
        own_id = self._certificates.identity.node_id
        hello = Hello(protocol=PROTOCOL_VERSION, node_id=own_id, agent=self._agent)
        await self._send(stream, hello)
        match await stream.first(self._settings.connect_timeout_s):
            case Welcome(protocol=protocol, node_id=node_id):
                check_version(protocol)
                self.node_id = node_id
            case Refusal(reason=reason):
                raise Refused(f"the hub {self.address} refuses: {reason}")
            case _:
                raise ProtocolError("the hub's first message is no welcome")

    # --- what the hub says --------------------------------------------------------------

    async def _receive(self, stream: MessageStream[FromHub]) -> None:
        async for message in stream.messages():
            match message:
                case Ping(age_s=age_s):
                    self._ping(age_s)
                case Full(state=state):
                    self._take(state)
                case Delta():
                    self._take_delta(message)
                case Refusal(reason=reason):
                    raise Refused(f"the hub {self.address} refuses: {reason}")
                case Welcome():
                    raise ProtocolError("a second welcome")

    def _ping(self, age_s: float) -> None:
        self._wishes.put_nowait(Pong())
        self.confirmed_at = time.monotonic() - age_s if age_s >= 0 else None
        self._on_change(self)

    def _take(self, state: MeshState) -> None:
        if self.following:
            self.state = state
            self._on_change(self)

    def _take_delta(self, delta: Delta) -> None:
        """Apply a change; one that does not fit means that the whole state is needed."""
        if not self.following or self.state is None:
            return
        try:
            self._take(apply(self.state, delta))
        except BaseMismatch as error:
            log.warning("hub.delta_mismatch", hub=str(self.address), error=str(error))
            self.state = None
            self._wishes.put_nowait(Follow())

    # --- what the hub is told -----------------------------------------------------------

    async def _send_wishes(self, stream: MessageStream[FromHub]) -> None:
        while True:
            await self._send(stream, await self._wishes.get())

    async def _send_reports(self, stream: MessageStream[FromHub]) -> None:
        async for report in self._reports.changes():
            if report is not None:
                await self._send(stream, report)

    async def _send(self, stream: MessageStream[FromHub], message: FromAgent) -> None:
        frame = encode(message, self._settings.max_from_agent)
        await stream.send(frame, self._settings.send_timeout_s)

    # --- up and down --------------------------------------------------------------------

    def _up(self, stream: MessageStream[FromHub]) -> None:
        self._wishes = asyncio.Queue()
        self._stream = stream
        self._changed_at = time.monotonic()
        self.last_error = ""
        log.info("hub.connected", hub=str(self.address), node_id=self.node_id)
        self._on_change(self)

    def _lost(self, reason: str) -> None:
        """Forget the connection; one line when it was up, or when the reason is new."""
        was_connected = self.connected
        self._stream, self.confirmed_at, self.state = None, None, None
        self.following = False
        if was_connected:
            self._changed_at = time.monotonic()
        if was_connected or reason != self.last_error:
            log.warning("hub.disconnected", hub=str(self.address), error=reason)
        self.last_error = reason
        self._on_change(self)
