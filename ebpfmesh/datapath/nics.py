# SPDX-License-Identifier: Apache-2.0
"""Which links of the node are NICs: those by which clients from outside come in. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from ebpfmesh.datapath.attach import Role
from ebpfmesh.datapath.discover import Device, HostLinks, is_docker_bridge
from ebpfmesh.datapath.dump import Link
from ebpfmesh.model import Attachment

# Kinds of links (IFLA_INFO_KIND) on which no frame of a client arrives, or arrives once more.
_NO_NICS = frozenset(
    {
        *("bareudp", "erspan", "geneve", "gre", "gretap", "gtp", "ip6erspan", "ip6gre"),
        *("ip6gretap", "ip6tnl", "ipip", "sit", "tun", "vti", "vti6", "vxlan", "wireguard"),
        *("xfrm", "dummy", "ifb", "nlmon", "vrf"),
    }
)
# What a bridge has for containers and virtual machines; one that has nothing else is theirs.
_INNER_PORTS = frozenset({"veth", "tun"})
_VRF = "vrf"


def patterns(interfaces: str) -> tuple[str, ...]:
    """The names and globs of the setting `interfaces`."""
    return tuple(interfaces.split(",")) if interfaces else ()


def nic_attachments(
    host: HostLinks, device: Device | None, named: Sequence[str] = ()
) -> list[Attachment]:
    """The node's NICs, by index: `NIC` for the one that leads to the other nodes, else `EDGE`.

    `named` has globs of names; without any, each link that can have clients and has an IPv4
    address is one. `device` is always among them. The lower links of a bond, team or bridge never
    are: frames would be met twice.
    """
    chosen = _named(host, named) if named else _found(host)
    places = {link.index: _place(Role.EDGE, link.index, link.name) for link in chosen}
    if device is not None:
        places[device.index] = _place(Role.NIC, device.index, device.name)
    return [places[index] for index in sorted(places)]


def _place(role: Role, index: int, name: str) -> Attachment:
    return Attachment(role=role, netns="", ifindex=index, name=name)


def _named(host: HostLinks, named: Iterable[str]) -> list[Link]:
    return [
        link
        for link in host.links
        if _carries_ethernet(link)
        and not _is_lower(link, host)
        and any(fnmatchcase(link.name, pattern) for pattern in named)
    ]


def _found(host: HostLinks) -> list[Link]:
    addressed = {a.index for a in host.addresses}
    return [
        link
        for link in host.links
        if link.index in addressed
        and _carries_ethernet(link)
        and not _is_lower(link, host)
        and link.kind not in _NO_NICS
        and not is_docker_bridge(link)
        and not _is_inner_bridge(link, host)
    ]


def _carries_ethernet(link: Link) -> bool:
    """The programs read Ethernet headers; lo has them too, but no clients."""
    return link.ethernet and link.name != "lo"


def _is_lower(link: Link, host: HostLinks) -> bool:
    """Whether frames of this link go up to another one. A VRF only chooses routes."""
    kinds = {each.index: each.kind for each in host.links}
    return bool(link.master) and kinds.get(link.master) != _VRF


def _is_inner_bridge(link: Link, host: HostLinks) -> bool:
    if link.kind != "bridge":
        return False
    ports = [each.kind for each in host.links if each.master == link.index]
    return all(kind in _INNER_PORTS for kind in ports)
