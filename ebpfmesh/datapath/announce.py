# SPDX-License-Identifier: Apache-2.0
"""Tells a container who answers for the VIPs of its network, if it has asked already.

A container may have sent its first packet before our programs were on its link: then nobody has
heard its ARP request, and the packet waits in its kernel for a second. An answer that comes
unasked sends it on at once, and changes nothing where nothing waits: a kernel makes no entry
for it. RFC 826.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address

from ebpfmesh.datapath.netns import packet_socket

_BROADCAST = b"\xff" * 6
_ETH_P_ARP = 0x0806
_ETHERNET, _ETH_P_IP, _REPLY = 1, 0x0800, 2


def arp_reply(address: str, mac: str) -> bytes:
    """A frame to all: `address` is at `mac`."""
    owner, packed = bytes.fromhex(mac.replace(":", "")), IPv4Address(address).packed
    ethernet = _BROADCAST + owner + struct.pack("!H", _ETH_P_ARP)
    arp = struct.pack("!HHBBH", _ETHERNET, _ETH_P_IP, 6, 4, _REPLY)
    return ethernet + arp + owner + packed + _BROADCAST + packed


def announce(netns: str, link: str, vips: Mapping[str, str]) -> None:
    """Sends an answer for each VIP, with its MAC, out of a link.

    Raises `OSError` if the link takes none.
    """
    with packet_socket(netns) as socket:
        socket.bind((link, 0))
        for address, mac in vips.items():
            socket.send(arp_reply(address, mac))
