# SPDX-License-Identifier: Apache-2.0
"""A node with two NICs: nic0 leads to the other nodes, clients come in by either."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ebpfmesh.agent.detach import detach_strays
from ebpfmesh.agent.viewer import Viewer
from ebpfmesh.datapath.attach import Attacher, Role, XdpPolicy, detach
from ebpfmesh.datapath.discover import look_at_host
from ebpfmesh.datapath.links import Hook, XdpMode, links_of
from ebpfmesh.datapath.nics import nic_attachments
from ebpfmesh.model import Attachment

from .net import (
    HERE_GATEWAY,
    NODE_A,
    NODE_A_MAC,
    NODE_B,
    NODE_B_MAC,
    PUBLISHED,
    TARGET,
    THERE,
    docker_mac,
    tcp,
    tunnel_port,
    udp,
    wrapped,
)
from .node import TC_REDIRECT, TC_UNSPEC, Node, assert_result
from .sandbox import ifindex
from .world import Service, remote

OTHER, OTHER_CLIENT, OTHER_MAC = "198.51.100.1", "198.51.100.7", "02:00:00:00:01:07"
SOURCE, ENTRY = f"{OTHER_CLIENT}:4000", f"{OTHER}:{PUBLISHED}"
FAR = "203.0.113.9"  # no route leads there


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


@pytest.fixture
def web(node: Node) -> Service:
    node.addresses(OTHER)
    return node.port(PUBLISHED, TARGET).backends(node.here())


def ask(source: str = SOURCE, flags: str = "S") -> Packet:
    return tcp(source, ENTRY, flags, macs=(OTHER_MAC, NODE_A_MAC))


def ways_out(node: Node) -> set[int]:
    return {leaf.ifindex for name in ("flows", "replies") for leaf in node.flows(name).values()}


# --- which way packets go


def test_task_here_answers_by_the_nic_of_its_client(node: Node, web: Service) -> None:
    into = (OTHER_MAC, docker_mac(HERE_GATEWAY))
    task = f"{HERE_GATEWAY}:{TARGET}"
    assert_result(node.nic_ingress(ask(), device="nic1"), TC_REDIRECT, tcp(SOURCE, task, macs=into))
    assert ways_out(node) == {ifindex("nic1")}
    out = (docker_mac(HERE_GATEWAY), "02:42:00:00:00:01")
    answer = node.gateway_ingress(tcp(task, SOURCE, "SA", macs=out))
    assert_result(answer, TC_REDIRECT, tcp(ENTRY, SOURCE, "SA", macs=out))


def test_answers_are_routed_where_packets_come_by_another_way(node: Node, web: Service) -> None:
    """As the kernel would: the client's network is behind nic1, whatever NIC this came in by."""
    node.nic_ingress(ask(), device="nic0")
    assert ways_out(node) == {ifindex("nic1")}


def test_without_a_route_answers_leave_by_the_nic_of_the_question(node: Node, web: Service) -> None:
    node.nic_ingress(ask(f"{FAR}:4000"), device="nic1")
    assert ways_out(node) == {ifindex("nic1")}


def test_routes_that_change_are_followed(node: Node, web: Service) -> None:
    node.nic_ingress(ask(), device="nic1")
    ip(f"route add {OTHER_CLIENT}/32 dev nic0")
    try:
        for name in ("flows", "replies"):
            node.age(name, 2)
        node.nic_ingress(ask(flags="A"), device="nic1")
        assert ways_out(node) == {ifindex("nic0")}
    finally:
        ip(f"route del {OTHER_CLIENT}/32 dev nic0")


def test_straight_answers_are_routed(node_dsr: Node) -> None:
    """return_mode = dsr: the question came through the tunnel, by the NIC to the other nodes."""
    node_dsr.port(PUBLISHED, TARGET).backends(node_dsr.here())
    packet = wrapped(ask(), (NODE_A, NODE_B), (NODE_A, "10.0.0.5"), tunnel_port(ask()))
    assert node_dsr.nic_ingress(packet).verdict == TC_REDIRECT
    assert ways_out(node_dsr) == {ifindex("nic1")}


def test_tunnel_ends_at_the_nic_to_the_other_nodes(node_b: Node) -> None:
    """Whoever shares a network with another NIC could call himself a node."""
    node_b.port(PUBLISHED, TARGET).backends(node_b.here())
    packet = wrapped(ask(), (NODE_A, NODE_B), (NODE_A, "10.0.0.5"), tunnel_port(ask()))
    assert_result(node_b.nic_ingress(packet, device="nic1"), TC_UNSPEC, packet)
    assert node_b.flows() == {}
    assert node_b.reasons() == {"handback_no_frontend": 1}


# --- programs on links


@pytest.fixture
def spare() -> Iterator[Attachment]:
    """One more NIC, without an address yet; a test may remove it."""
    ip("link add nic2 type veth peer name lan2")
    ip("link set nic2 up")
    yield Attachment(role=Role.EDGE, netns="", ifindex=ifindex("nic2"), name="nic2")
    if any(link.name == "nic2" for link in look_at_host().links):
        ip("link del nic2")


def found(*named: str) -> dict[str, str]:
    host = look_at_host()
    return {a.name: a.role for a in nic_attachments(host, host.device("", NODE_A), named)}


def test_nics_of_this_network_are_found(spare: Attachment) -> None:
    assert found() == {"nic0": Role.NIC, "nic1": Role.EDGE}
    ip("address add 203.0.113.1/24 dev nic2")
    assert found() == {"nic0": Role.NIC, "nic1": Role.EDGE, "nic2": Role.EDGE}
    assert "203.0.113.1" in look_at_host().own_addresses()
    ip("address add 203.0.113.77/32 dev lo")
    assert "203.0.113.77" in look_at_host().own_addresses()
    ip("address del 203.0.113.77/32 dev lo")
    assert found("nic?") == {"nic0": Role.NIC, "nic1": Role.EDGE, "nic2": Role.EDGE}
    assert found("nic2") == {"nic0": Role.NIC, "nic2": Role.EDGE}


def test_bridge_of_veths_alone_is_none(spare: Attachment) -> None:
    ip("link add br7 type bridge")
    try:
        ip("address add 203.0.113.2/24 dev br7")
        ip("link set nic2 master br7")
        assert found().keys() == {"nic0", "nic1"}
        assert found("br7", "nic2").keys() == {"nic0", "br7"}
    finally:
        ip("link del br7")


def test_tun_has_no_ethernet() -> None:
    ip("tuntap add tun7 mode tun")
    try:
        ip("address add 203.0.113.4/24 dev tun7")
        assert "tun7" not in found()
        assert "tun7" not in found("tun*")
    finally:
        ip("tuntap del tun7 mode tun")


def test_edge_has_tc_alone(node: Node, spare: Attachment) -> None:
    attacher = Attacher(node.module, XdpPolicy.AUTO)
    assert attacher.attach(spare).xdp is XdpMode.OFF
    with links_of("") as links:
        assert links.has_filter(spare.ifindex, Hook.INGRESS)
        assert links.xdp_mode(spare.ifindex) is XdpMode.OFF


def test_former_data_path_loses_its_xdp(node: Node, spare: Attachment) -> None:
    attacher = Attacher(node.module, XdpPolicy.AUTO)
    was = Attachment(role=Role.NIC, netns="", ifindex=spare.ifindex, name="nic2")
    assert attacher.attach(was).xdp is XdpMode.NATIVE
    attacher.attach(spare)
    with links_of("") as links:
        assert links.xdp_mode(spare.ifindex) is XdpMode.OFF


@pytest.mark.parametrize("role", [Role.NIC, Role.EDGE])
def test_removed_nic_is_detached_already(node: Node, spare: Attachment, role: Role) -> None:
    place = Attachment(role=role, netns="", ifindex=spare.ifindex, name="nic2")
    Attacher(node.module, XdpPolicy.AUTO).attach(place)
    ip("link del nic2")
    assert not detach(place)


def test_strays_of_other_settings_are_taken_off(node: Node, spare: Attachment) -> None:
    Attacher(node.module, XdpPolicy.AUTO).attach(spare)
    assert detach_strays([spare]) == []
    assert [place.name for place in detach_strays([])] == ["nic2"]
    with links_of("") as links:
        assert not links.has_filter(spare.ifindex, Hook.INGRESS)


def test_view_survives_the_loss_of_an_address_and_of_the_link(
    spare: Attachment, tmp_path: Path
) -> None:

    ip("address add 203.0.113.1/24 dev nic2")
    viewer = Viewer("node1", "203.0.113.1", "", tmp_path, ())
    assert viewer.device().name == "nic2"
    ip("address del 203.0.113.1/24 dev nic2")
    viewer.look_at_links()
    view = viewer.view([], {})
    assert view.device == "nic2"
    assert spare.ifindex in {a.ifindex for a in view.attachments}
    ip("link del nic2")
    viewer.look_at_links()
    view = viewer.view([], {})
    assert view.device == ""
    assert {a.role for a in view.attachments} == {Role.EDGE}


# --- real packets


def listen(device: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    opened.bind((device, 3))
    opened.settimeout(5)
    return opened


def heard(on: socket.socket, wanted: type[Packet], **fields: object) -> Packet:
    """The first packet that is like that."""
    while True:
        packet = Ether(on.recv(4096))
        layer = packet.getlayer(wanted)
        if layer and all(getattr(layer, name) == value for name, value in fields.items()):
            return packet


@pytest.mark.parametrize("make", [tcp, udp])
def test_packet_crosses_from_one_nic_to_the_other(node: Node, make: Callable[..., Packet]) -> None:
    """In by nic1, to a task of another node: wrapped, out of nic0, to that node."""
    node.addresses(OTHER)
    for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        node.port(PUBLISHED, TARGET, protocol).backends(remote(THERE))
    place = Attachment(role=Role.EDGE, netns="", ifindex=ifindex("nic1"), name="nic1")
    with links_of("") as links:
        mac = next(link.mac for link in links.links() if link.name == "nic1")
    question = make(SOURCE, ENTRY, macs=(OTHER_MAC, mac))
    Attacher(node.module, XdpPolicy.AUTO).attach(place)
    try:
        with listen("lan0") as underlay, listen("lan1") as lan:
            lan.send(bytes(question))
            got = heard(underlay, IP, dst=NODE_B)
    finally:
        detach(place)
    macs = (NODE_A_MAC, NODE_B_MAC)
    expected = wrapped(question, (NODE_A, NODE_B), (NODE_A, THERE), tunnel_port(question), macs)
    assert bytes(got) == bytes(expected)
