# SPDX-License-Identifier: Apache-2.0
"""The hub: on a manager, serves the mesh state to every agent of the Swarm."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

import structlog

from ebpfmesh.hub.errors import HubError
from ebpfmesh.hub.peer import HubParts, Peer, PeerStatus, ReportSink, ServerSettings, UpdateEncoder
from ebpfmesh.hub.protocol import FromAgent, decode_from_agent
from ebpfmesh.hub.race import race
from ebpfmesh.hub.stream import MessageStream
from ebpfmesh.hub.tls import Certificates, peer_identity
from ebpfmesh.latest import Latest
from ebpfmesh.model import MeshState

__all__ = ["HubServer", "PeerStatus", "ServerSettings"]

BACKLOG = 128

log = structlog.get_logger(__name__)


class HubServer:
    """Listens, authenticates, and has a `Peer` serve each connection.

    `on_report` takes what nodes report; `age_s` says how long ago the Swarm confirmed the
    state, so that an agent can leave a hub that is cut off from it.
    """

    def __init__(
        self,
        certificates: Certificates,
        states: Latest[MeshState],
        on_report: ReportSink,
        age_s: Callable[[], float],
        settings: ServerSettings | None = None,
    ) -> None:
        self._certificates = certificates
        self._states = states
        self._settings = settings or ServerSettings()
        self._parts = HubParts(
            hub_id=certificates.identity.node_id,
            states=states,
            encoder=UpdateEncoder(self._settings.max_from_hub),
            on_report=on_report,
            age_s=age_s,
            settings=self._settings,
        )
        self._peers: set[Peer] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._socket: socket.socket | None = None
        self._listener: asyncio.Server | None = None
        self._context: ssl.SSLContext | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; 0 while there is none."""
        return int(self._socket.getsockname()[1]) if self._socket else 0

    def peers(self) -> list[PeerStatus]:
        """The connected agents."""
        return sorted((peer.status for peer in self._peers), key=lambda status: status.node_id)

    async def start(self, host: str, port: int) -> None:
        """Listen; OSError if the address cannot be had."""
        self._socket = socket.create_server((host, port), backlog=BACKLOG)
        self._listener = await self._listen(self._socket)
        log.info("hub.listening", host=host, port=self.port)

    async def run(self) -> None:
        """Serve until cancelled, then close everything."""
        try:
            await race(self._fan_out(), self._renew())
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop listening and drop every agent; they go to another hub."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _listen(self, listening: socket.socket) -> asyncio.Server:
        """Accept with the newest certificates, on a copy of the one socket.

        A copy, so that a renewal can put a new listener beside the old one and leave no gap.
        """
        self._context = self._certificates.server_context
        return await asyncio.start_server(
            self._accept,
            sock=listening.dup(),
            ssl=self._context,
            ssl_handshake_timeout=self._settings.handshake_timeout_s,
        )

    # --- what runs beside the connections -----------------------------------------------

    async def _fan_out(self) -> None:
        """Wake every peer at every new state."""
        async for state in self._states.changes():
            for peer in self._peers:
                peer.wake(state.origin_ns)

    async def _renew(self) -> None:
        """Take up renewed certificates; who is connected stays so."""
        while True:
            await asyncio.sleep(self._settings.reload_interval_s)
            try:
                self._certificates.reload_if_changed()
            except HubError as error:
                log.warning("hub.certificates_not_renewed", error=str(error))
            if self._socket and self._certificates.server_context is not self._context:
                await self._replace_listener(self._socket)

    async def _replace_listener(self, listening: socket.socket) -> None:
        old, self._listener = self._listener, await self._listen(listening)
        if old is not None:
            old.close()
        log.info("hub.certificates_renewed")

    # --- connections --------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._settings.max_connections:
            log.warning("hub.full", connections=len(self._connections))
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="hub-agent")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream: MessageStream[FromAgent] = MessageStream(
            reader,
            writer,
            decode=decode_from_agent,
            limit=self._settings.max_from_agent,
            silence_s=self._settings.silence_s,
        )
        address = writer.get_extra_info("peername")
        try:
            await self._serve_peer(stream, writer, address)
        except (HubError, OSError) as error:
            log.warning("hub.agent_dropped", address=address, error=str(error))
        finally:
            await stream.close()

    async def _serve_peer(
        self, stream: MessageStream[FromAgent], writer: asyncio.StreamWriter, address: object
    ) -> None:
        own = self._certificates.identity
        identity = peer_identity(writer.get_extra_info("ssl_object"), own)
        peer = Peer(stream, identity, self._parts)
        self._peers.add(peer)
        log.info("hub.agent_connected", node_id=identity.node_id, address=address)
        try:
            await peer.run()
            log.info("hub.agent_left", node_id=identity.node_id)
        finally:
            self._peers.discard(peer)
