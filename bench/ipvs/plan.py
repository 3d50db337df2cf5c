# SPDX-License-Identifier: Apache-2.0
"""Addresses, and what is measured. Pure."""

from __future__ import annotations

from dataclasses import dataclass

VIP = "10.0.0.2"
CLIENT = "10.0.1.2"
TASKS = tuple(f"10.0.{number}.2" for number in range(2, 6))
SUBNET = "10.0.0.0/16"
SUBNET_BITS = 24  # of each container, where the node routes
GATEWAY = "10.0.0.1"  # of an overlay network
LB = "10.0.0.3"  # the node's load-balancer address in an overlay network

# Those of traffic.c.
TCP_PORT = 6000
UDP_PORT = 5000
PORTS = 64

ROUTER, OVERLAY = "router", "overlay"

DIRECT = "direct"
EMPTY = "empty tc programs"
EBPFMESH = "ebpfmesh"
EBPFMESH_HALF = "ebpfmesh, tasks elsewhere"
IPVS = "IPVS as Swarm sets it up"
PLAIN_IPVS = "IPVS without iptables"
IPTABLES = "iptables DNAT"
NFTABLES = "nftables DNAT"

# In the order in which they are measured, and shown.
SIDES = {
    ROUTER: (DIRECT, EMPTY, EBPFMESH_HALF, EBPFMESH, NFTABLES, IPTABLES, PLAIN_IPVS, IPVS),
    OVERLAY: (DIRECT, EMPTY, EBPFMESH_HALF, EBPFMESH, IPVS),
}

PACKET, ANSWER, NEW = "packet", "answer", "new"
CONNECTION, KEPT, BULK = "connection", "kept", "bulk"

# What traffic.c calls it -> what a reader does.
WORK = {
    PACKET: "UDP packet, known flow",
    ANSWER: "UDP answer, known flow",
    NEW: "UDP packet, new flow",
    CONNECTION: "TCP connection",
    KEPT: "request, kept connection",
    BULK: "MiB in bulk",
}


def gateway_of(address: str) -> str:
    """The node's own address in that network, where the node routes."""
    return address.rpartition(".")[0] + ".1"


@dataclass(frozen=True)
class Round:
    """What each kind of work took in one round, in instructions."""

    place: str
    side: str
    instructions: dict[str, float]


@dataclass(frozen=True)
class Told:
    """What one run of the traffic has said."""

    instructions: dict[str, float]
    peer: str
    got: tuple[int, ...]


def told(output: str) -> Told:
    """Reads it. Raises `ValueError` if something is missing."""
    instructions: dict[str, float] = {}
    peer, got = "", []
    for line in output.splitlines():
        word, _, value = line.partition(" ")
        if word == "peer":
            peer = value
        elif word == "got":
            got.append(int(value))
        else:
            instructions[word] = float(value)
    if instructions.keys() != WORK.keys():
        raise ValueError(f"not what was to be measured: {output!r}")
    return Told(instructions, peer, tuple(got))
