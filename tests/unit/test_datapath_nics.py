# SPDX-License-Identifier: Apache-2.0
"""Which of a node's links are NICs."""

from __future__ import annotations

from ebpfmesh.datapath.attach import Role
from ebpfmesh.datapath.discover import Device, HostLinks
from ebpfmesh.datapath.dump import Link, LinkAddress
from ebpfmesh.datapath.nics import nic_attachments, patterns

DATA_PATH = Device("eth0", 2, 1500)


def link(index: int, name: str, kind: str = "", master: int = 0, ethernet: bool = True) -> Link:
    return Link(index, name, kind, "02:42:00:00:00:01", 1500, master, 0, 0, ethernet)


def on(index: int, address: str) -> LinkAddress:
    return LinkAddress(index, address, 24)


def host(*links: Link, addressed: bool = True) -> HostLinks:
    """Each link has an address, as `addressed` says."""
    found = tuple(on(each.index, f"198.51.100.{each.index}") for each in links if addressed)
    return HostLinks(links, found)


def names(found: HostLinks, *named: str, device: Device | None = DATA_PATH) -> list[str]:
    return [f"{a.role} {a.name}" for a in nic_attachments(found, device, named)]


ETH0 = link(2, "eth0")


def test_every_addressed_nic_is_found() -> None:
    found = host(link(1, "lo"), ETH0, link(3, "eth1"), link(4, "eth0.100", "vlan"))
    assert names(found) == ["nic eth0", "edge eth1", "edge eth0.100"]


def test_link_without_an_address_is_none_but_the_data_path() -> None:
    assert names(host(ETH0, link(3, "eth1"), addressed=False)) == ["nic eth0"]


def test_upper_link_alone_meets_the_frames() -> None:
    found = host(
        ETH0,
        link(3, "bond0", "bond"),
        link(4, "eth1", master=3),
        link(5, "eth2", master=3),
        link(6, "br0", "bridge"),
        link(7, "eth3", master=6),
        link(8, "veth9", "veth", master=6),
        link(9, "team0", "team"),
        link(10, "eth4", master=9),
    )
    assert names(found) == ["nic eth0", "edge bond0", "edge br0", "edge team0"]
    assert names(found, "eth*") == ["nic eth0"]


def test_link_in_a_vrf_is_a_nic_and_the_vrf_is_none() -> None:
    found = host(ETH0, link(3, "blue", "vrf"), link(4, "eth1", master=3))
    assert names(found) == ["nic eth0", "edge eth1"]


def test_links_of_containers_and_machines_are_none() -> None:
    found = host(
        ETH0,
        link(3, "docker0", "bridge"),
        link(4, "docker_gwbridge", "bridge"),
        link(5, "br-0123456789ab", "bridge"),
        link(6, "veth1", "veth", master=4),
        link(7, "virbr0", "bridge"),
        link(8, "vnet0", "tun", master=7),
        link(9, "shop", "bridge"),  # com.docker.network.bridge.name
        link(10, "veth2", "veth", master=9),
    )
    assert names(found) == ["nic eth0"]


def test_tunnels_and_dummies_are_none() -> None:
    kinds = ["vxlan", "geneve", "gretap", "dummy", "ifb"]
    links = [link(10 + i, f"{kind}0", kind) for i, kind in enumerate(kinds)]
    wireguard = link(20, "wg0", "wireguard", ethernet=False)
    odd = link(21, "ib0", ethernet=False)
    assert names(host(ETH0, *links, wireguard, odd)) == ["nic eth0"]


def test_named_links_are_taken_and_no_others() -> None:
    found = host(ETH0, link(3, "eth1"), link(4, "ens5"), link(5, "ens6"), link(6, "gre1", "gretap"))
    wanted = ["nic eth0", "edge ens5", "edge ens6", "edge gre1"]
    assert names(found, *patterns("ens*,gre1")) == wanted


def test_named_link_needs_no_address_but_ethernet() -> None:
    found = host(ETH0, link(3, "eth1"), link(4, "wg0", "wireguard", ethernet=False), link(1, "lo"))
    bare = HostLinks(found.links, ())
    assert names(bare, "*") == ["nic eth0", "edge eth1"]


def test_data_path_that_has_gone_is_left_out() -> None:
    assert names(host(link(3, "eth1")), device=None) == ["edge eth1"]
    assert host(link(3, "eth1")).again(DATA_PATH) is None
    assert host(ETH0, addressed=False).again(DATA_PATH) == DATA_PATH


def test_setting_is_a_list() -> None:
    assert patterns("") == ()
    assert patterns("eth0,ens*") == ("eth0", "ens*")


def test_roles() -> None:
    (nic, edge) = nic_attachments(host(ETH0, link(3, "eth1")), DATA_PATH)
    assert (nic.role, nic.netns, nic.ifindex) == (Role.NIC, "", 2)
    assert (edge.role, edge.netns, edge.ifindex) == (Role.EDGE, "", 3)
