# SPDX-License-Identifier: Apache-2.0
"""What hubs and agents say to each other, and how it is framed. Pure, no I/O.

A frame is its length in 4 bytes, most significant first, and one MessagePack message.
An agent says `Hello`, then `Follow` on the one hub that it wants the state from, and
`Report` to every hub, so that all hubs know the same. The hub says `Welcome` or `Refusal`,
then `Full` and `Delta` to followers, and `Ping` to all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Annotated, TypeVar

import msgspec

from ebpfmesh.hub.errors import ProtocolError
from ebpfmesh.model import BackendState, MeshState, Network, Node, Service, Task

PROTOCOL_VERSION = 1

MAX_FROM_HUB = 64 << 20
MAX_FROM_AGENT = 1 << 20

_LENGTH = struct.Struct(">I")


Name = Annotated[str, msgspec.Meta(max_length=64)]
"""An id, an address or a version: what others send of these goes into logs and maps of ours."""


class Message(msgspec.Struct, frozen=True, tag_field="t", tag=str.lower, omit_defaults=True):
    """Base of all messages; unknown fields are ignored, so fields may be added."""


class Hello(Message, frozen=True):
    """The agent's first message. Its first two fields never change, in any version."""

    protocol: int
    node_id: Name
    agent: Name = ""


class Follow(Message, frozen=True):
    """Send me the whole state and then its changes; or, not `active`, stop it."""

    active: bool = True


class Report(Message, frozen=True):
    """What a node knows of itself: all of it, each time.

    `origin_ns` is when the latest change of it happened, by the node's own clock; 0: not known.
    """

    node_id: Name
    vtep: Name = ""
    tasks: dict[Name, BackendState] = {}
    origin_ns: int = 0

    def says(self) -> tuple[str, dict[str, BackendState]]:
        """What it says, whenever that came to be."""
        return self.vtep, self.tasks


class Pong(Message, frozen=True):
    """I am here."""


class Welcome(Message, frozen=True):
    """The hub's first message."""

    protocol: int
    node_id: str


class Refusal(Message, frozen=True):
    """Why the hub closes the connection."""

    reason: str


class Full(Message, frozen=True):
    """The whole state."""

    state: MeshState


class Delta(Message, frozen=True):
    """What makes the state `version` out of the state `base`; `origin_ns` as in `MeshState`."""

    base: int
    version: int
    nodes: dict[str, Node] = {}
    networks: dict[str, Network] = {}
    services: dict[str, Service] = {}
    tasks: dict[str, Task] = {}
    gone_nodes: tuple[str, ...] = ()
    gone_networks: tuple[str, ...] = ()
    gone_services: tuple[str, ...] = ()
    gone_tasks: tuple[str, ...] = ()
    origin_ns: int = 0

    @property
    def changes(self) -> int:
        """How many objects it speaks of."""
        return sum(len(getattr(self, field)) for field in self.__struct_fields__[2:-1])


class Ping(Message, frozen=True):
    """Are you there? The hub's state was confirmed by the Swarm `age_s` seconds ago.

    Negative: never yet, or the Swarm does not answer the hub just now.
    """

    age_s: float


FromAgent = Hello | Follow | Report | Pong
FromHub = Welcome | Refusal | Full | Delta | Ping

M = TypeVar("M")

_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_hub: msgspec.msgpack.Decoder[FromHub] = msgspec.msgpack.Decoder(FromHub)


def encode(message: FromAgent | FromHub, limit: int) -> bytes:
    """Make a frame; the limit is the receiver's."""
    payload = _encoder.encode(message)
    if len(payload) > limit:
        raise ProtocolError(f"a message of {len(payload)} bytes exceeds the limit of {limit}")
    return _LENGTH.pack(len(payload)) + payload


def decode_from_agent(payload: bytes) -> FromAgent:
    """Read what an agent sent."""
    return _decode(_from_agent, payload)


def decode_from_hub(payload: bytes) -> FromHub:
    """Read what a hub sent."""
    return _decode(_from_hub, payload)


def _decode(decoder: msgspec.msgpack.Decoder[M], payload: bytes) -> M:
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the peer sent a message that does not decode: {error}") from error


def check_version(theirs: int) -> None:
    """Both sides must speak the same protocol."""
    if theirs != PROTOCOL_VERSION:
        raise ProtocolError(
            f"the peer speaks protocol version {theirs}, this side {PROTOCOL_VERSION}; "
            "run the same release of ebpfmesh on every node"
        )


class FrameBuffer:
    """Cuts a stream of bytes into payloads; holds at most one frame that is not whole."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add bytes, and yield each payload that they complete."""
        self._buffer += data
        while (end := self._end()) is not None and len(self._buffer) >= end:
            payload = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield payload

    def _end(self) -> int | None:
        """Where the first frame ends, once its length is known."""
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > self._limit:
            raise ProtocolError(
                f"the peer announced a message of {length} bytes, the limit is {self._limit}"
            )
        return _LENGTH.size + int(length)
