# SPDX-License-Identifier: Apache-2.0
"""What ``ebpfmesh trace`` asks an agent to tell, and what that tells: one object per line. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from ebpfmesh.explanation import BadQuestion
from ebpfmesh.model import Frozen

TRACE_VERSION = 1

# What a node hands back of the traffic that is no service's: told only to who asks for it.
ORDINARY = frozenset(
    {"no_frontend", "not_ipv4", "other_protocol", "foreign_address", "local_socket"}
)

Reasons = Mapping[int, tuple[str, str]]


class Kind(StrEnum):
    """`FLOW`: one begins. `LOST`: events that nobody has read in time."""

    FLOW = "flow"
    DROP = "drop"
    HANDBACK = "handback"
    RETRY = "retry"
    LOST = "lost"


class Path(StrEnum):
    """How a flow gets to its backend; in the order of enum event_path in bpf/types.h."""

    UNSET = ""
    VIP = "vip"
    LOCAL = "local"
    WRAPPED = "wrapped"
    MESH = "mesh"
    SOCKET = "socket"


class Told(Frozen, frozen=True, omit_defaults=False):
    """One line. `at` is in seconds since 1970.

    Of a flow `source` is the client and `destination` the frontend that it asks; of a retry
    `backend` is the one that was to have the flow; `entry` is the node that it came in at, if that
    is another. `length` is in bytes. `lost` counts events of which nothing else is known.
    """

    version: int
    at: float
    kind: Kind
    reason: str = ""
    path: Path = Path.UNSET
    program: str = ""
    protocol: str = ""
    source: str = ""
    destination: str = ""
    flags: str = ""
    info: str = ""
    length: int = 0
    service: str = ""
    network: str = ""
    backend: str = ""
    task: str = ""
    node: str = ""
    entry: str = ""
    lost: int = 0


class Watch(Frozen, frozen=True):
    """What is to be told. Empty means all, but without reasons that are `ORDINARY`.

    `client` is a network (``192.0.2.0/24``); either end of a packet may be in it, as answers are
    told of too. `every`: the ordinary ones as well.
    """

    service: str = ""
    client: str = ""
    kinds: frozenset[Kind] = frozenset()
    reasons: frozenset[str] = frozenset()
    every: bool = False

    def wants(self, kind: Kind, reason: str) -> bool:
        """Whether it wants to hear of that at all."""
        if self.kinds and kind not in self.kinds:
            return False
        if self.reasons:
            return reason in self.reasons
        return self.every or kind is not Kind.HANDBACK or reason not in ORDINARY

    def mask(self, reasons: Reasons) -> int:
        """What it wants as the programs read it: bit 0 flows, others those of their reasons."""
        wanted = int(self.wants(Kind.FLOW, ""))
        for index, (kind, name) in reasons.items():
            wanted |= self.wants(Kind(kind), name) << index
        return wanted

    def lets(self, told: Told, ends: tuple[str, str]) -> bool:
        """Whether this one is wanted; `ends` are the addresses of both ends, empty if unknown."""
        if told.kind is Kind.LOST:
            return True
        if not self.wants(told.kind, told.reason):
            return False
        if self.service and told.service != self.service:
            return False
        return not self.client or _within(self.client, ends)


def watch(
    service: str, client: str, kinds: list[str], reasons: list[str], *, every: bool, known: Reasons
) -> Watch:
    """Check what was asked. Raises `BadQuestion`."""
    names = {name for _, name in known.values()}
    allowed = [str(kind) for kind in Kind if kind is not Kind.LOST]
    for kind in kinds:
        if kind not in allowed:
            raise BadQuestion(f"{kind!r} is no kind; wanted: {', '.join(allowed)}")
    for reason in reasons:
        if reason not in names:
            raise BadQuestion(f"{reason!r} is no reason; there are {', '.join(sorted(names))}")
    return Watch(
        service=service,
        client=str(_network(client)) if client else "",
        kinds=frozenset(map(Kind, kinds)),
        reasons=frozenset(reasons),
        every=every,
    )


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise BadQuestion(
            f"{text!r} is no client; wanted: 192.0.2.100, or a network as 192.0.2.0/24"
        ) from error


def _within(client: str, ends: tuple[str, str]) -> bool:
    network = ip_network(client)
    return any(end and ip_address(end) in network for end in ends)
