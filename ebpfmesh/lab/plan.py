# SPDX-License-Identifier: Apache-2.0
"""Who has which name and address in the lab. Pure, no I/O.

Everything is told by a node's number alone, so that no part of the lab has to ask another.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from itertools import islice

import msgspec

from ebpfmesh.lab.errors import LabError

LAN = IPv4Network("192.0.2.0/24")
LAN6 = IPv6Network("fd00:192:0:2::/64")
BRIDGE = "br0"
BRIDGE_ADDRESS = str(LAN[1])
CLIENT_ADDRESS = str(LAN[100])
CLIENT_ADDRESS6 = str(LAN6[0x100])
METRICS_PORT = 9477
MAX_NODES = 20

_FIRST_NODE = 11
_LOCAL_NETWORKS = IPv4Network("172.16.0.0/12")
_LOCAL_POOL_PREFIX = 20
_LOCAL_NETWORK_PREFIX = 24


class Place(StrEnum):
    """The namespaces that are not nodes."""

    CLIENT = "client"
    LAN = "lan"


class Role(StrEnum):
    """What a node is in the Swarm."""

    MANAGER = "manager"
    WORKER = "worker"


class NodePlan(msgspec.Struct, frozen=True):
    """A node before it exists. `number` counts from 1; node 1 leads the Swarm."""

    number: int
    role: Role

    @property
    def name(self) -> str:
        """Host name and namespace."""
        return f"node{self.number}"

    @property
    def address(self) -> str:
        """On the LAN."""
        return str(LAN[_FIRST_NODE - 1 + self.number])

    @property
    def address6(self) -> str:
        """On the LAN, with the same last digits: ``::11`` for 192.0.2.11."""
        return str(LAN6[int(str(_FIRST_NODE - 1 + self.number), 16)])

    @property
    def local_pool(self) -> IPv4Network:
        """Where this node's bridges live: were they shared, docker_gwbridge would collide."""
        pools = _LOCAL_NETWORKS.subnets(new_prefix=_LOCAL_POOL_PREFIX)
        return next(islice(pools, self.number, None))

    @property
    def local_network_prefix(self) -> int:
        """How much of the pool one bridge gets."""
        return _LOCAL_NETWORK_PREFIX


def plan_nodes(nodes: int, managers: int) -> tuple[NodePlan, ...]:
    """Managers come first; the first of them is the leader."""
    if not 1 <= nodes <= MAX_NODES:
        raise LabError(f"a lab has 1 to {MAX_NODES} nodes, not {nodes}")
    if not 1 <= managers <= nodes:
        raise LabError(f"{nodes} nodes can have 1 to {nodes} managers, not {managers}")
    return tuple(
        NodePlan(number, Role.MANAGER if number <= managers else Role.WORKER)
        for number in range(1, nodes + 1)
    )


def namespaces(nodes: tuple[NodePlan, ...]) -> tuple[str, ...]:
    """Every namespace of the lab, by the name that `ip netns` shows."""
    return (*(node.name for node in nodes), *Place)


def on_lan(address: str) -> str:
    """The address as an interface wants it: with the length of the LAN's prefix."""
    parsed = ip_address(address)
    return f"{parsed}/{(LAN if isinstance(parsed, IPv4Address) else LAN6).prefixlen}"
