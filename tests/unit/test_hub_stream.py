# SPDX-License-Identifier: Apache-2.0
"""A peer that takes its time for a long message, and one that takes nothing."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ebpfmesh.hub.errors import PeerSilent
from ebpfmesh.hub.stream import CHUNK, MessageStream

LONG = bytes(64 * CHUNK)
SILENCE_S = 2.0
ROOM = 4 * CHUNK


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[MessageStream[bytes], socket.socket]]:
    """Our end, and the peer's bare socket, which has room for little."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    peer, _ = listener.accept()
    listener.close()
    peer.setblocking(False)
    stream: MessageStream[bytes] = MessageStream(
        reader, writer, decode=bytes, limit=1, silence_s=SILENCE_S
    )
    try:
        yield stream, peer
    finally:
        peer.close()
        await stream.close()


async def take(peer: socket.socket, size: int, every_s: float) -> None:
    """Reads so much, a part at a time."""
    loop = asyncio.get_running_loop()
    while size > 0:
        size -= len(await loop.sock_recv(peer, CHUNK))
        await asyncio.sleep(every_s)


async def hear(stream: MessageStream[bytes]) -> None:
    async for _ in stream.messages():
        pass


@pytest.mark.asyncio
async def test_who_takes_a_long_message_slowly_is_neither_silent_nor_too_slow() -> None:
    async with connection() as (stream, peer):
        hearing = asyncio.create_task(hear(stream))
        taking = asyncio.create_task(take(peer, len(LONG), SILENCE_S / 40))
        await stream.send(LONG, within_s=SILENCE_S)
        assert not hearing.done()
        await taking
        with pytest.raises(PeerSilent, match="was silent"):
            await hearing


@pytest.mark.asyncio
@pytest.mark.parametrize("spoken", [True, False])
async def test_who_speaks_while_we_pause_is_not_silent(spoken: bool) -> None:
    """Nor is one of whom nothing can have been heard."""
    async with connection() as (stream, peer):
        hearing = asyncio.create_task(hear(stream))
        await asyncio.sleep(SILENCE_S / 4)
        if spoken:
            peer.send(bytes(1))
        time.sleep(SILENCE_S if spoken else 2 * SILENCE_S)  # noqa: ASYNC251 - all of us pauses
        for _ in range(10):
            await asyncio.sleep(0)
        assert not hearing.done()
        with pytest.raises(PeerSilent, match="was silent"):
            await hearing


@pytest.mark.asyncio
async def test_who_takes_nothing_is_noticed() -> None:
    async with connection() as (stream, _):
        with pytest.raises(PeerSilent, match="took nothing"):
            await stream.send(LONG, within_s=SILENCE_S)


@pytest.mark.asyncio
async def test_short_messages_that_nobody_takes_are_no_sign_of_life() -> None:
    async with connection() as (stream, _):
        hearing = asyncio.create_task(hear(stream))
        while not hearing.done():
            await stream.send(b"ping", within_s=SILENCE_S)
            await asyncio.sleep(SILENCE_S / 20)
        assert isinstance(hearing.exception(), PeerSilent)


class Cut:
    """A connection that the peer has reset: of TLS nothing is left then that could be aborted."""

    transport = None

    def close(self) -> None:
        self.transport = None

    async def wait_closed(self) -> None:
        raise ConnectionResetError


@pytest.mark.asyncio
async def test_goodbye_to_a_peer_that_has_reset_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with connection() as (stream, _):
        with monkeypatch.context() as patch:
            patch.setattr(stream, "_writer", Cut())
            await stream.close()
