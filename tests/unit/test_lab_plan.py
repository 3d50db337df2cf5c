from __future__ import annotations

from itertools import combinations

import pytest

from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.plan import (
    CLIENT_ADDRESS6,
    LAN,
    MAX_NODES,
    Role,
    namespaces,
    on_lan,
    plan_nodes,
)
from ebpfmesh.lab.topology import station


def test_managers_come_first() -> None:
    nodes = plan_nodes(3, 2)
    assert [(node.name, node.address, node.role) for node in nodes] == [
        ("node1", "192.0.2.11", Role.MANAGER),
        ("node2", "192.0.2.12", Role.MANAGER),
        ("node3", "192.0.2.13", Role.WORKER),
    ]


def test_ipv6_addresses_end_alike() -> None:
    assert [node.address6 for node in plan_nodes(2, 1)] == ["fd00:192:0:2::11", "fd00:192:0:2::12"]
    assert CLIENT_ADDRESS6 == "fd00:192:0:2::100"


def test_a_station_has_an_address_of_each_kind() -> None:
    links = ["link set lo up", "link set eth0 up"]
    ip4 = "address add 192.0.2.11/24 dev eth0"
    ip6 = "address add fd00:192:0:2::11/64 dev eth0 nodad"
    own = ["192.0.2.11", "fd00:192:0:2::11"]
    assert station(own, ip6=True) == [*links, ip4, ip6]
    assert station(own, ip6=False) == [*links, ip4]


def test_the_largest_lab_shares_no_address() -> None:
    nodes = plan_nodes(MAX_NODES, 1)
    assert len({node.address for node in nodes}) == MAX_NODES
    assert len({node.address6 for node in nodes} | {CLIENT_ADDRESS6}) == MAX_NODES + 1
    assert not any(a.local_pool.overlaps(b.local_pool) for a, b in combinations(nodes, 2))
    assert not any(node.local_pool.overlaps(LAN) for node in nodes)


def test_no_node_takes_dockers_default_bridge() -> None:
    assert str(plan_nodes(1, 1)[0].local_pool) == "172.16.16.0/20"


@pytest.mark.parametrize(
    ("nodes", "managers"), [(0, 0), (0, 1), (MAX_NODES + 1, 1), (3, 0), (3, 4)]
)
def test_impossible_labs_are_refused(nodes: int, managers: int) -> None:
    with pytest.raises(LabError):
        plan_nodes(nodes, managers)


def test_namespaces_are_nodes_client_and_lan() -> None:
    assert namespaces(plan_nodes(2, 1)) == ("node1", "node2", "client", "lan")


def test_an_address_on_the_lan_has_its_prefix() -> None:
    assert on_lan("192.0.2.11") == "192.0.2.11/24"
    assert on_lan("fd00:192:0:2::11") == "fd00:192:0:2::11/64"
    with pytest.raises(ValueError, match="192"):
        on_lan("192.0.2.300")
