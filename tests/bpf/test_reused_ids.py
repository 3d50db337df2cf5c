# SPDX-License-Identifier: Apache-2.0
"""A backend's id that another service's has got, with the address that the first one had.

Ids rest for a minute, datagrams' flows live for three; Docker gives addresses again as well.
"""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    HERE_TOO,
    HERE_TOO_GATEWAY,
    NODE_A,
    NODE_B,
    NODE_C,
    PUBLISHED,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    tcp,
    udp,
)
from .node import TC_OK, TC_REDIRECT, Node
from .sandbox import ifindex
from .world import Service, remote

ASKED = udp(f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}", macs=FROM_CLIENT)
ANOTHER_SERVICE = 9


def give(node: Node, service: Service, address: str) -> None:
    node.set_backend(service.ids[address], pool=ANOTHER_SERVICE)


@pytest.fixture
def port(node: Node) -> Service:
    return node.port(PUBLISHED, TARGET, 17)


def test_entry_node_sends_datagrams_to_their_own_service(node: Node, port: Service) -> None:
    web = port.backends(remote(THERE, NODE_B), remote(HERE, NODE_C)).choose(THERE)
    assert Ether(node.nic_ingress(ASKED).data)[IP].dst == NODE_B
    web.choose(HERE)
    assert Ether(node.nic_ingress(ASKED).data)[IP].dst == NODE_B
    give(node, web, THERE)
    assert Ether(node.nic_ingress(ASKED).data)[IP].dst == NODE_C


def test_backend_node_alike(node: Node, port: Service) -> None:
    web = port.backends(node.here(), node.here_too()).choose(HERE)
    assert Ether(node.nic_ingress(ASKED).data)[IP].dst == HERE_GATEWAY
    web.choose(HERE_TOO)
    give(node, web, HERE)
    asked = node.nic_ingress(ASKED)
    assert (asked.verdict, Ether(asked.data)[IP].dst) == (TC_REDIRECT, HERE_TOO_GATEWAY)


def test_vip_alike(node: Node) -> None:
    web = node.vip(VIP, VNI).backends(WEB_1, WEB_2).choose(WEB_1)
    packet = udp(f"{ALICE}:4000", f"{VIP}:80")
    assert Ether(node.overlay_ingress(packet).data)[IP].dst == WEB_1
    web.choose(WEB_2)
    give(node, web, WEB_1)
    asked = node.overlay_ingress(packet)
    assert (asked.verdict, Ether(asked.data)[IP].dst) == (TC_OK, WEB_2)


def test_noted_flow_whose_backends_id_and_address_are_anothers(node: Node) -> None:
    """It looks at the backend of a flow that it does not look up (bpf/recent.h)."""
    node.endpoint(ALICE, VNI, ifindex("gw0"))
    web = node.vip(VIP, VNI).backends(WEB_1, WEB_2).choose(WEB_1)
    packet = udp(f"{ALICE}:4000", f"{VIP}:80")
    for _ in range(3):
        assert Ether(node.overlay_ingress(packet).data)[IP].dst == WEB_1
    web.choose(WEB_2)
    give(node, web, WEB_1)
    asked = node.overlay_ingress(packet)
    assert (asked.verdict, Ether(asked.data)[IP].dst) == (TC_OK, WEB_2)


def test_a_connection_to_a_vip_is_reset(node: Node) -> None:
    web = node.vip(VIP, VNI).backends(WEB_1)
    node.overlay_ingress(tcp(f"{ALICE}:4000", f"{VIP}:80"))
    give(node, web, WEB_1)
    refused = node.overlay_ingress(tcp(f"{ALICE}:4000", f"{VIP}:80", "A"))
    assert Ether(refused.data)[TCP].flags == "R"
    assert node.reasons() == {"drop_backend_gone": 1}
