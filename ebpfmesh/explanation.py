# SPDX-License-Identifier: Apache-2.0
"""What ``ebpfmesh explain`` asks an agent, and what that answers. Pure."""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address

from ebpfmesh.model import Frozen, Protocol

_CLIENT = re.compile(r"(?P<address>[^:/]+)(:(?P<port>\d{1,5}))?", re.ASCII)
_FRONTEND = re.compile(
    r"(?P<address>[^:/]+):(?P<port>\d{1,5})(/(?P<protocol>[a-z]+))?", re.ASCII | re.IGNORECASE
)
_PROTOCOLS = {"tcp": Protocol.TCP, "udp": Protocol.UDP, "sctp": Protocol.SCTP}
_MAX_PORT = 65535


class BadQuestion(ValueError):
    """It cannot be read; the message says what is wanted."""


class Question(Frozen, frozen=True):
    """A packet of `client` to `address` and `port`; `client_port` 0: from any port.

    `network` names the overlay where several have that address.
    """

    client: str
    client_port: int
    address: str
    port: int
    protocol: Protocol
    network: str = ""

    @property
    def client_text(self) -> str:
        """As it was asked."""
        return f"{self.client}:{self.client_port}" if self.client_port else self.client

    @property
    def frontend_text(self) -> str:
        """As it was asked, the protocol always said."""
        return f"{self.address}:{self.port}/{self.protocol.name.lower()}"


def question(client: str, frontend: str, network: str = "") -> Question:
    """Read ``192.0.2.100[:5000]`` and ``192.0.2.11:8080[/tcp]``. Raises `BadQuestion`."""
    who = _CLIENT.fullmatch(client)
    if who is None:
        raise BadQuestion(f"{client!r} is no client; wanted: 192.0.2.100 or 192.0.2.100:5000")
    asked = _FRONTEND.fullmatch(frontend)
    if asked is None:
        raise BadQuestion(
            f"{frontend!r} is no frontend; wanted: 192.0.2.11:8080/tcp, or 10.0.1.2:80 for TCP"
        )
    protocol = (asked["protocol"] or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise BadQuestion(f"{protocol!r} is not balanced; wanted: {', '.join(_PROTOCOLS)}")
    return Question(
        client=_address(who["address"]),
        client_port=_port(who["port"]) if who["port"] else 0,
        address=_address(asked["address"]),
        port=_port(asked["port"]),
        protocol=_PROTOCOLS[protocol],
        network=network,
    )


def _address(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except AddressValueError as error:
        raise BadQuestion(f"{text!r} is no IPv4 address") from error


def _port(text: str) -> int:
    if not 0 < int(text) <= _MAX_PORT:
        raise BadQuestion(f"{text} is no port; wanted: 1 to {_MAX_PORT}")
    return int(text)


class Outcome(StrEnum):
    """`ANY`: one of several backends, and nobody can tell which before the packet comes."""

    BACKEND = "backend"
    ANY = "any"
    KERNEL = "kernel"
    DROPPED = "dropped"


class Choice(StrEnum):
    """What decides: the flow that is known, the slot of its hash, or a scheduler by its state."""

    NONE = ""
    FLOW = "flow"
    SLOT = "slot"
    SCHEDULER = "scheduler"


class Candidate(Frozen, frozen=True, omit_defaults=False):
    """A backend; `share` is the part (0 to 1) of the new flows that it gets."""

    id: int
    task: str
    address: str
    node: str
    vtep: str
    local: bool
    state: str
    share: float


class Step(Frozen, frozen=True, omit_defaults=False):
    """A line of the reasoning."""

    subject: str
    text: str


class Explanation(Frozen, frozen=True, omit_defaults=False):
    """The answer. `reason` is that of the counters where a packet is not balanced.

    `hash` and `slot` are -1 where none is computed. `backends` is the one that gets the packet, or
    all that may.
    """

    version: int
    client: str
    frontend: str
    outcome: Outcome
    reason: str = ""
    choice: Choice = Choice.NONE
    service: str = ""
    network: str = ""
    hash: int = -1
    slot: int = -1
    slots: int = 0
    backends: tuple[Candidate, ...] = ()
    steps: tuple[Step, ...] = ()
