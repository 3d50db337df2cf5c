# SPDX-License-Identifier: Apache-2.0
"""Messages over one TLS connection, with a bound on every wait."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from ebpfmesh.hub.errors import PeerSilent, ProtocolError
from ebpfmesh.hub.protocol import FrameBuffer

M = TypeVar("M")

CHUNK = 1 << 16
_TCP_NOTSENT_LOWAT = 25  # linux/tcp.h
# A wait that took so many times what it should has been a pause of ours.
_PAUSED = 1.25


class MessageStream(Generic[M]):
    """Decodes what arrives, sends what is already encoded.

    `silence_s` bounds the wait for any byte rather than for a whole message: a peer in the
    middle of a long message over a slow line is alive. So is one that takes a long message from
    us: what would make it answer is behind that.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        decode: Callable[[bytes], M],
        limit: int,
        silence_s: float,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decode = decode
        self._frames = FrameBuffer(limit)
        self._taken_at = float("-inf")
        self.silence_s = silence_s
        _keep_little(writer)

    async def messages(self) -> AsyncIterator[M]:
        """Yield messages, those left over from `first` too, until the peer hangs up."""
        data = b""
        while True:
            for payload in self._frames.feed(data):
                yield self._decode(payload)
            if not (data := await self._read()):
                return

    async def first(self, within_s: float) -> M:
        """The first message, whole, in time."""
        try:
            async with asyncio.timeout(within_s):
                async for message in self.messages():
                    return message
        except TimeoutError as error:
            raise PeerSilent(f"the peer said nothing whole within {within_s:g} s") from error
        raise ProtocolError("the peer closed the connection before its first message")

    async def _read(self) -> bytes:
        """Nobody was silent while it was us who paused."""
        while True:
            began = time.monotonic()
            try:
                return await self._read_within(self.silence_s)
            except TimeoutError as error:
                with suppress(TimeoutError):
                    return await self._read_within(0)  # it came in the turn that the time was up
                waited = time.monotonic() - began
                if waited > _PAUSED * self.silence_s:
                    continue
                if time.monotonic() - self._taken_at > self.silence_s:
                    raise PeerSilent(f"the peer was silent for {self.silence_s:g} s") from error

    async def _read_within(self, seconds: float) -> bytes:
        async with asyncio.timeout(seconds):
            return await self._reader.read(CHUNK)

    async def send(self, frame: bytes, within_s: float) -> None:
        """Write a frame and wait until the peer has taken enough of it.

        It may take as long as it needs for the whole, but `within_s` at most for any part.
        """
        for at in range(0, len(frame), CHUNK):
            self._writer.write(frame[at : at + CHUNK])
            try:
                async with asyncio.timeout(within_s):
                    await self._writer.drain()
            except TimeoutError as error:
                raise PeerSilent(f"the peer took nothing for {within_s:g} s") from error
            if len(frame) > CHUNK:
                self._taken_at = time.monotonic()

    def abort(self) -> None:
        """Cut the connection; who reads from it sees its end."""
        self._writer.transport.abort()

    async def close(self, within_s: float = 1.0) -> None:
        """Say goodbye; a peer that does not answer is cut off."""
        self._writer.close()
        with suppress(OSError):  # what has failed is closed
            try:
                async with asyncio.timeout(within_s):
                    await self._writer.wait_closed()
            except TimeoutError:
                self.abort()


def _keep_little(writer: asyncio.StreamWriter) -> None:
    """Leave what the peer has not taken to us: what lies in buffers looks as if it had been."""
    writer.transport.set_write_buffer_limits(CHUNK)
    connection = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, CHUNK)
