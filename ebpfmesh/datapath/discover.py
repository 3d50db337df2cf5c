# SPDX-License-Identifier: Apache-2.0
"""Finds the places where packets pass: overlay namespaces, veths, the NIC, task sandboxes.

The kernel is asked, not dockerd: what is there is what counts, and it is there before the
task's first process runs.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

from ebpfmesh.datapath.attach import Role
from ebpfmesh.datapath.dump import Link, LinkAddress
from ebpfmesh.datapath.errors import DeviceNotFound
from ebpfmesh.datapath.links import links_of
from ebpfmesh.model import Attachment, Endpoint, Gateway

GATEWAY_BRIDGE = "docker_gwbridge"
DEFAULT_BRIDGE = "docker0"
_USER_BRIDGE = re.compile(r"^br-[0-9a-f]{12}$")

# "<epoch>-<first ten characters of the network's id>"
_BALANCER_ID = 9  # characters of a network's id in "lb_<id>"
_OVERLAY = re.compile(r"^\d+-[a-z0-9]{10}$")


@dataclass(frozen=True)
class Device:
    """The link that carries VXLAN. `mtu` in bytes; `up`: whether it has a carrier."""

    name: str
    index: int
    mtu: int
    up: bool = True


def is_docker_bridge(link: Link) -> bool:
    """Docker names a bridge network's bridge br- and the first twelve characters of its id."""
    return link.name in {GATEWAY_BRIDGE, DEFAULT_BRIDGE} or bool(_USER_BRIDGE.match(link.name))


@dataclass(frozen=True)
class HostLinks:
    """One look at the node's own namespace."""

    links: tuple[Link, ...]
    addresses: tuple[LinkAddress, ...]
    addresses6: tuple[LinkAddress, ...] = ()

    def device(self, name: str, vtep: str) -> Device:
        """The link called `name`, or, if that is empty, the one that holds `vtep`."""
        holders = {a.index for a in self.addresses if a.address == vtep}
        for link in self.links:
            if link.name == name or (not name and link.index in holders):
                return Device(link.name, link.index, link.mtu, link.up)
        wanted = f"no link is called {name}" if name else f"no link holds {vtep}"
        raise DeviceNotFound(f"{wanted}; set `device` to the link that carries VXLAN")

    def again(self, device: Device) -> Device | None:
        """The same link at this look, whatever addresses it has now; None if it has gone."""
        for link in self.links:
            if link.index == device.index:
                return Device(link.name, link.index, link.mtu, link.up)
        return None

    def own_addresses(self) -> frozenset[str]:
        """Every address but loopback, and but the link-local ones of bridges' ports."""
        own = {a.address for a in self.addresses if not a.address.startswith("127.")}
        ports = {link.index for link in self.links if link.master}
        return frozenset(own | {a.address for a in self.addresses6 if _asked(a, ports)})

    def gateway_network(self) -> IPv4Network | None:
        """The subnet of docker_gwbridge; None before dockerd has made it."""
        bridge = {link.index for link in self.links if link.name == GATEWAY_BRIDGE}
        for a in self.addresses:
            if a.index in bridge:
                return IPv4Network(f"{a.address}/{a.prefix}", strict=False)
        return None

    def gateway_attachments(self) -> list[Attachment]:
        """The node's ends of the containers' veths in Docker's bridges.

        Tasks answer by docker_gwbridge; containers of any bridge may ask published ports.
        """
        bridges = {link.index for link in self.links if is_docker_bridge(link)}
        return [
            Attachment(role=Role.GATEWAY, netns="", ifindex=link.index, name=link.name)
            for link in self.links
            if link.master in bridges and link.kind == "veth"
        ]


def _asked(own: LinkAddress, ports: Container[int]) -> bool:
    """Whether a client may ask an IPv6 address of the node: nobody is on the link of a port."""
    address = IPv6Address(own.address)
    return not address.is_loopback and not (address.is_link_local and own.index in ports)


def look_at_host() -> HostLinks:
    """Reads the links and addresses of the caller's namespace."""
    with links_of("") as links:
        return HostLinks(tuple(links.links()), tuple(links.addresses()), tuple(links.addresses6()))


def overlay_paths(netns_dir: Path) -> list[Path]:
    """The namespaces that dockerd has made for overlay networks on this node."""
    if not netns_dir.is_dir():
        return []
    return sorted(path for path in netns_dir.iterdir() if _OVERLAY.match(path.name))


def overlay_attachments(path: Path) -> list[Attachment]:
    """The veths in one overlay namespace; none if it is gone or not complete yet."""
    try:
        with links_of(str(path)) as links:
            found = links.links()
    except OSError:
        return []
    vni = next((link.vni for link in found if link.vni), 0)
    if not vni:
        return []
    return [
        Attachment(role=Role.OVERLAY, netns=str(path), ifindex=link.index, name=link.name, vni=vni)
        for link in found
        if link.kind == "veth"
    ]


def balancer_path(overlay: Path) -> Path:
    """The namespace of Docker's own load balancer of a network, by that of the network."""
    network = overlay.name.partition("-")[2]
    return overlay.with_name(f"lb_{network[:_BALANCER_ID]}")


@dataclass(frozen=True)
class Sandbox:
    """The network of one container: its way out, and of each of its addresses the MAC.

    `peers` are the other ends of the veths that hold the addresses, in namespaces of their own.
    `cookie` is the kernel's name for this one.
    """

    gateway: Gateway | None
    macs: dict[str, str]
    peers: dict[str, int]
    cookie: int = 0


def look_at_sandbox(path: str, gateways: IPv4Network | None) -> Sandbox | None:
    """Reads a container's namespace; None if it is gone."""
    try:
        with links_of(path) as links:
            by_index = {link.index: link for link in links.links()}
            addresses = links.addresses()
            cookie = links.cookie()
    except OSError:
        return None
    gateway = None
    macs: dict[str, str] = {}
    peers: dict[str, int] = {}
    for a in addresses:
        link = by_index.get(a.index)
        if link is None or not link.mac:
            continue
        macs[a.address] = link.mac
        peers[a.address] = link.peer
        if gateways and link.peer and IPv4Address(a.address) in gateways:
            gateway = Gateway(address=a.address, mac=link.mac, ifindex=link.peer)
    return Sandbox(gateway, macs, peers, cookie)


def look_at_balancer(path: Path) -> Endpoint | None:
    """Address and MAC of a network's own load balancer; None if it has none.

    It may have the network's VIPs beside its own address: each lies on one link, with one MAC.
    """
    sandbox = look_at_sandbox(str(path), None)
    macs = sandbox.macs if sandbox else {}
    for address, mac in macs.items():
        if not address.startswith("127."):
            return Endpoint(address, mac)
    return None
