# SPDX-License-Identifier: Apache-2.0
"""The network of the lab: one bridge, a cable to every node and to the client.

    node1 eth0 ---.
    node2 eth0 ---+--- br0 (lan)
    client eth0 --'

A bridge's port is named after the namespace at the other end of its cable. Both ends of a
cable complete checksums and cut segments themselves, as a wire takes nothing less.
"""

from __future__ import annotations

from pathlib import Path

from ebpfmesh.lab import namespaces
from ebpfmesh.lab.plan import (
    BRIDGE,
    BRIDGE_ADDRESS,
    CLIENT_ADDRESS,
    CLIENT_ADDRESS6,
    NodePlan,
    Place,
    on_lan,
)
from ebpfmesh.lab.processes import run, run_all
from ebpfmesh.lab.wire import pass_every_frame

MTU = 1500

_IP6 = Path("/proc/net/if_inet6")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def create_namespaces(names: tuple[str, ...]) -> dict[str, int]:
    """Make the namespaces; their inodes by name."""
    _batch(None, [f"netns add {name}" for name in names])
    return {name: namespaces.path(name).stat().st_ino for name in names}


def delete_namespaces(names: list[str]) -> None:
    """Take the names away; a namespace goes with its last process."""
    _batch(None, [f"netns delete {name}" for name in names])


def connect(nodes: tuple[NodePlan, ...]) -> None:
    """Lay the cables and give everybody an address."""
    addresses = {node.name: [node.address, node.address6] for node in nodes}
    addresses[Place.CLIENT] = [CLIENT_ADDRESS, CLIENT_ADDRESS6]
    _batch(Place.LAN, [*_bridge(), *(line for name in addresses for line in _cable(name))])
    for name, own in addresses.items():
        _batch(name, station(own, ip6=_IP6.exists()))
    _take_offloads_away(list(addresses))
    pass_every_frame(Place.LAN, list(addresses))


def _bridge() -> list[str]:
    return [
        "link set lo up",
        f"link add {BRIDGE} type bridge forward_delay 0 mcast_snooping 0",
        f"address add {on_lan(BRIDGE_ADDRESS)} dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ]


def _cable(name: str) -> list[str]:
    return [
        f"link add {name} mtu {MTU} type veth peer name eth0 mtu {MTU} netns {name}",
        f"link set {name} master {BRIDGE} up",
    ]


def station(addresses: list[str], *, ip6: bool) -> list[str]:
    """What makes a namespace a station of the LAN; a kernel without IPv6 is asked for none."""
    # Nobody else has the address: it need not be tried first, which takes a second.
    wanted = [(a, " nodad" if ":" in a else "") for a in addresses if ip6 or ":" not in a]
    lines = [f"address add {on_lan(address)} dev eth0{option}" for address, option in wanted]
    return ["link set lo up", "link set eth0 up", *lines]


def _take_offloads_away(names: list[str]) -> None:
    """Without this, frames cross a cable with half a checksum: XDP would forward them so."""
    far = [(name, "eth0") for name in names]
    near = [(Place.LAN, name) for name in (*names, BRIDGE)]
    run_all(
        [
            namespaces.in_network(namespace, ["ethtool", "-K", link, "tx", "off"])
            for namespace, link in (*far, *near)
        ]
    )


def _batch(namespace: str | None, lines: list[str]) -> None:
    where = ["-n", namespace] if namespace else []
    run(["ip", *where, "-batch", "-"], stdin="\n".join(lines) + "\n")


def forwarding() -> str:
    """Whether the machine's first namespace forwards IPv4."""
    return _FORWARDING.read_text().strip()


def set_forwarding(value: str) -> None:
    """New namespaces inherit it, those of containers too: without it, IPVS cannot balance."""
    _FORWARDING.write_text(value)
