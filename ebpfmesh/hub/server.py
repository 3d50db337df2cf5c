# SPDX-License-Identifier: Apache-2.0
"""The hub: on a manager, serves the mesh state to every agent of the Swarm."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import structlog

from ebpfmesh.accepting import Room, accepted
from ebpfmesh.hub.errors import HubError
from ebpfmesh.hub.hearing import Hearing, HearingSink
from ebpfmesh.hub.peer import HubParts, Peer, PeerStatus, ReportSink, ServerSettings, UpdateEncoder
from ebpfmesh.hub.protocol import FromAgent, decode_from_agent
from ebpfmesh.hub.race import race
from ebpfmesh.hub.silence import Patience
from ebpfmesh.hub.stream import MessageStream
from ebpfmesh.hub.tls import Certificates, Identity, peer_identity
from ebpfmesh.latest import Latest
from ebpfmesh.model import MeshState

__all__ = ["HubServer", "PeerStatus", "ServerSettings"]

BACKLOG = 128

# Connections of one node: some, for the last one of an agent that is back is not given up yet.
MOST_OF_ONE_NODE = 4

_COMPLAINT_GAP_S = 1.0

log = structlog.get_logger(__name__)


class HubServer:
    """Listens, authenticates, and has a `Peer` serve each connection.

    `on_report` takes what nodes report; `age_s` says how long ago the Swarm confirmed the
    state, so that an agent can leave a hub that is cut off from it. `on_hearing` takes which nodes
    have fallen silent, and which are there (`ebpfmesh.hub.silence`).

    Who has not shown a certificate yet has a place among a few, and of one address only a few of
    these: nobody outside the Swarm can take what agents need.
    """

    def __init__(
        self,
        certificates: Certificates,
        states: Latest[MeshState],
        on_report: ReportSink,
        age_s: Callable[[], float],
        settings: ServerSettings | None = None,
        *,
        on_hearing: HearingSink = lambda *_: None,
        patience: Patience | None = None,
    ) -> None:
        self._certificates = certificates
        self._states = states
        self._settings = settings or ServerSettings()
        self._hearing = Hearing(
            certificates.identity.node_id,
            age_s=age_s,
            is_up=self._is_up,
            port=lambda: self.port,
            on_hearing=on_hearing,
            patience=patience,
        )
        self._parts = HubParts(
            hub_id=certificates.identity.node_id,
            states=states,
            encoder=UpdateEncoder(self._settings.max_from_hub),
            on_report=on_report,
            age_s=age_s,
            settings=self._settings,
            on_heard=self._hearing.heard,
        )
        self._peers: list[Peer] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._strangers = Room(self._settings.max_strangers, self._settings.max_of_one_address)
        self._socket: socket.socket | None = None
        self._listening: asyncio.Task[None] | None = None
        self._complained_at = 0.0

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
        self._listening = asyncio.create_task(self._listen(self._socket), name="hub-listen")
        log.info("hub.listening", host=host, port=self.port)

    async def run(self) -> None:
        """Serve until cancelled, then close everything."""
        assert self._listening is not None
        try:
            await race(
                self._fan_out(),
                self._renew(),
                self._hearing.run(),
                self._ended(self._listening),
            )
        finally:
            await self.close()

    @staticmethod
    async def _ended(task: asyncio.Task[None]) -> None:
        """Wait until it has; raises what ended it."""
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def close(self) -> None:
        """Stop listening and drop every agent; they go to another hub."""
        tasks = [*self._connections, *([self._listening] if self._listening else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

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
                if self._certificates.reload_if_changed():
                    log.info("hub.certificates_renewed")
            except HubError as error:
                log.warning("hub.certificates_not_renewed", error=str(error))

    # --- connections --------------------------------------------------------------------

    async def _listen(self, listening: socket.socket) -> None:
        """Take in who comes, for as long as there is room."""
        async for connection, address in accepted(listening):
            if not self._strangers.enter(address):
                connection.close()
                self._complain(address, "too many that have not shown a certificate")
                continue
            task = asyncio.create_task(self._receive(connection, address), name="hub-agent")
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _receive(self, connection: socket.socket, address: str) -> None:
        try:
            reader, writer = await self._shake_hands(connection)
        except OSError as error:
            # Of a connection that has just ended asyncio has no words.
            self._complain(address, str(error) or "it hung up before it had shown a certificate")
            return
        finally:
            self._strangers.leave(address)
        if len(self._peers) >= self._settings.max_connections:
            log.warning("hub.full", connections=len(self._peers))
            writer.transport.abort()
            return
        await self._serve(reader, writer)

    async def _shake_hands(
        self, connection: socket.socket
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Have the peer show its certificate, with ours as it is now. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, protocol = await loop.connect_accepted_socket(
            lambda: asyncio.StreamReaderProtocol(reader),
            connection,
            ssl=self._certificates.server_context,
            ssl_handshake_timeout=self._settings.handshake_timeout_s,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def _complain(self, address: str, error: str) -> None:
        """A line for who is not let in; not one for each, lest they fill the log."""
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAINT_GAP_S:
            self._complained_at = now
            log.warning("hub.stranger_refused", address=address, error=error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream: MessageStream[FromAgent] = MessageStream(
            reader,
            writer,
            decode=decode_from_agent,
            limit=self._settings.max_from_agent,
            silence_s=self._settings.silence_s,
        )
        address = writer.get_extra_info("peername")[0]
        try:
            await self._serve_peer(stream, writer, address)
        except (HubError, OSError) as error:
            log.warning("hub.agent_dropped", address=address, error=str(error))
        finally:
            await stream.close()

    async def _serve_peer(
        self, stream: MessageStream[FromAgent], writer: asyncio.StreamWriter, address: str
    ) -> None:
        own = self._certificates.identity
        identity = peer_identity(writer.get_extra_info("ssl_object"), own)
        self._make_room_for(identity)
        peer = Peer(stream, identity, self._parts)
        self._peers.append(peer)
        log.info("hub.agent_connected", node_id=identity.node_id, address=address)
        self._hearing.came(identity.node_id, address)
        closed = False
        try:
            await peer.run()
            closed = True
            log.info("hub.agent_left", node_id=identity.node_id)
        except ConnectionResetError:
            closed = True
            raise
        finally:
            self._peers.remove(peer)
            if closed and all(other.node_id != identity.node_id for other in self._peers):
                self._hearing.left(identity.node_id)

    def _is_up(self, node_id: str) -> bool:
        node = self._states.value.nodes.get(node_id)
        return node is None or node.up

    def _make_room_for(self, identity: Identity) -> None:
        """No node may take the others' places: its oldest connection goes."""
        of_it = [peer for peer in self._peers if peer.node_id == identity.node_id]
        if len(of_it) >= MOST_OF_ONE_NODE:
            of_it[0].hang_up()
