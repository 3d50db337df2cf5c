# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from ebpfmesh.datapath.attach import Role
from ebpfmesh.datapath.cgroup import cgroup_root
from ebpfmesh.datapath.discover import Device, HostLinks, balancer_path, overlay_paths
from ebpfmesh.datapath.dump import Link, LinkAddress
from ebpfmesh.datapath.errors import DeviceNotFound


def link(index: int, name: str, kind: str = "", master: int = 0) -> Link:
    return Link(index, name, kind, "02:42:00:00:00:01", 1500, master, peer=0, vni=0)


HOST = HostLinks(
    links=(
        link(1, "lo"),
        link(2, "eth0"),
        link(3, "docker_gwbridge", "bridge"),
        link(4, "veth1", "veth", master=3),
        link(5, "veth2", "veth"),
        link(6, "dummy0", "dummy", master=3),
        link(7, "docker0", "bridge"),
        link(8, "veth3", "veth", master=7),
        link(9, "br-0123456789ab", "bridge"),
        link(10, "veth4", "veth", master=9),
        link(11, "br0", "bridge"),
        link(12, "veth5", "veth", master=11),
    ),
    addresses=(
        LinkAddress(1, "127.0.0.1", 8),
        LinkAddress(2, "192.0.2.11", 24),
        LinkAddress(2, "192.0.2.111", 24),
        LinkAddress(3, "172.18.0.1", 16),
    ),
    addresses6=(
        LinkAddress(1, "::1", 128),
        LinkAddress(2, "2001:db8::11", 64),
        LinkAddress(2, "fe80::b", 64),
        LinkAddress(4, "fe80::4", 64),
    ),
)


def test_device_is_the_link_that_holds_the_vtep() -> None:
    assert HOST.device("", "192.0.2.11") == Device("eth0", 2, 1500)


def test_device_may_be_named() -> None:
    assert HOST.device("veth2", "192.0.2.11").index == 5


@pytest.mark.parametrize(
    ("name", "vtep", "words"),
    [("eth7", "192.0.2.11", "called eth7"), ("", "192.0.2.99", "holds 192.0.2.99")],
)
def test_no_such_device(name: str, vtep: str, words: str) -> None:
    with pytest.raises(DeviceNotFound, match=words):
        HOST.device(name, vtep)


def test_own_addresses_are_all_but_loopback() -> None:
    """And but the link-local one of a bridge's port."""
    own = {"192.0.2.11", "192.0.2.111", "172.18.0.1", "2001:db8::11", "fe80::b"}
    assert HOST.own_addresses() == own


def test_gateway_network_is_the_bridges() -> None:
    assert HOST.gateway_network() == IPv4Network("172.18.0.0/16")
    assert HostLinks((), ()).gateway_network() is None


def test_gateway_veths_are_those_in_dockers_bridges() -> None:
    found = HOST.gateway_attachments()
    assert [place.name for place in found] == ["veth1", "veth3", "veth4"]
    assert {(place.role, place.netns, place.vni) for place in found} == {(Role.GATEWAY, "", 0)}


def test_overlay_namespaces_are_told_by_their_names(tmp_path: Path) -> None:
    for name in ("1-0123456789", "12-abcdefghij", "lb_abcdefghi", "ingress_sbox", "0123456789ab"):
        (tmp_path / name).touch()
    assert [path.name for path in overlay_paths(tmp_path)] == ["1-0123456789", "12-abcdefghij"]
    assert overlay_paths(tmp_path / "missing") == []


def test_cgroup_root_is_the_first_mount_of_cgroup2() -> None:
    mounts = (
        "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"
        "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
        "other /mnt cgroup2 rw 0 0\n"
    )
    assert cgroup_root(mounts) == "/sys/fs/cgroup/unified"
    assert cgroup_root("proc /proc proc rw 0 0\n") == ""


def test_load_balancer_of_a_network_is_found_by_its_id() -> None:
    assert balancer_path(Path("/ns/1-abcdefghij")) == Path("/ns/lb_abcdefghi")
