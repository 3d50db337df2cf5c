# SPDX-License-Identifier: Apache-2.0
"""Which slot of a Maglev table a flow falls into: what bpf/maglev.h and schedule.h compute. Pure.

Addresses are dotted IPv4, ports host-order integers, protocols IANA numbers; hashes are 32 bits.
"""

from __future__ import annotations

from ipaddress import IPv4Address

_WORD = (1 << 64) - 1
_PROTOCOLS_APART = 0x9E3779B97F4A7C15


def mix64(x: int) -> int:
    """Mix 64 bits: the finalizer of splitmix64 (Steele et al., OOPSLA 2014)."""
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & _WORD
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & _WORD
    return x ^ x >> 31


def flow_hash(client: str, client_port: int, port: int, protocol: int) -> int:
    """Return the hash of a flow. The address that the client asks is not part of it."""
    flow = int(IPv4Address(client)) << 32 | client_port << 16 | port
    return mix64(flow + protocol * _PROTOCOLS_APART & _WORD) >> 32


def client_hash(client: str) -> int:
    """Return the hash of a client, where that alone decides (``ebpfmesh.affinity``)."""
    return mix64(int(IPv4Address(client)) << 32) >> 32


def slot(hashed: int, size: int) -> int:
    """Return the slot, of `size`, that a hash falls into."""
    return hashed * size >> 32
