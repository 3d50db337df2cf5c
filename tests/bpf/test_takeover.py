# SPDX-License-Identifier: Apache-2.0
"""Taking over and giving back while connections are open: which packets are the kernel's."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from scapy.layers.sctp import SCTPChunkData, SCTPChunkInit, SCTPChunkShutdown
from scapy.packet import Packet

from ebpfmesh.takeover import Mode

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    HERE_TOO_GATEWAY,
    NODE_A,
    NODE_B,
    PUBLISHED,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    between,
    docker_mac,
    sctp,
    tcp,
    tunnel_port,
    udp,
    wrapped,
)
from .node import TC_OK, TC_REDIRECT, TC_SHOT, TC_UNSPEC, XDP_PASS, XDP_TX, Node, assert_result
from .prog_run import Result
from .world import GONE, Service, remote

OUTSIDE = f"{CLIENT}:4000"
ENTRY = f"{NODE_A}:{PUBLISHED}"
TASK = f"{HERE_GATEWAY}:{TARGET}"
INSIDE, SERVER = f"{ALICE}:4000", f"{VIP}:80"
BRIDGE_MAC = "02:42:00:00:00:01"
OUT_OF_TASK = (docker_mac(HERE_GATEWAY), BRIDGE_MAC)
NEIGHBOUR = f"{HERE_TOO_GATEWAY}:4000"
FROM_NEIGHBOUR = (docker_mac(HERE_TOO_GATEWAY), BRIDGE_MAC)
MINUTE = 60

Send = Callable[[Packet], Result]


class Path:
    """One way that clients come in: which program meets them, and what a packet looks like."""

    def __init__(self, node: Node, name: str) -> None:
        self.name = name
        sends: dict[str, Send] = {
            "vip": node.overlay_ingress,
            "nic": node.nic_ingress,
            "container": lambda packet: node.gateway_ingress(packet, "gw1"),
            "xdp": node.nic_xdp,
        }
        self.send = sends[name]
        self.untouched = XDP_PASS if name == "xdp" else TC_UNSPEC
        self.balanced = {"vip": TC_OK, "xdp": XDP_TX}.get(name, TC_REDIRECT)

    def packet(self, flags: str) -> Packet:
        if self.name == "vip":
            return tcp(INSIDE, SERVER, flags)
        if self.name == "container":
            return tcp(NEIGHBOUR, ENTRY, flags, macs=FROM_NEIGHBOUR)
        return tcp(OUTSIDE, ENTRY, flags, macs=FROM_CLIENT)

    def datagram(self) -> Packet:
        if self.name == "vip":
            return udp(INSIDE, SERVER)
        if self.name == "container":
            return udp(NEIGHBOUR, ENTRY, macs=FROM_NEIGHBOUR)
        return udp(OUTSIDE, ENTRY, macs=FROM_CLIENT)


@pytest.fixture(params=["vip", "nic", "container", "xdp"])
def path(node: Node, request: pytest.FixtureRequest) -> Path:
    node.vip(VIP, VNI).backends(WEB_1)
    for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        task = remote(THERE) if request.param == "xdp" else node.here()
        node.port(PUBLISHED, TARGET, protocol).backends(task)
    return Path(node, request.param)


def nothing_is_known(node: Node) -> bool:
    return not any(node.flows(name) for name in ("flows", "replies", "entries"))


def counted(node: Node, path: Path, reason: str) -> bool:
    """XDP leaves the counting to tc, which gets the packet next."""
    return node.reasons() == ({} if path.name == "xdp" else {reason: 1})


# --- taking over


@pytest.mark.parametrize("flags", ["A", "PA", "FA", "R", "SA"])
def test_unknown_connection_is_left_to_the_kernel(node: Node, path: Path, flags: str) -> None:
    node.mode(Mode.SERVING, grace_s=MINUTE)
    packet = path.packet(flags)
    assert_result(path.send(packet), path.untouched, packet)
    assert nothing_is_known(node)
    assert counted(node, path, "handback_unknown_flow")


@pytest.mark.parametrize("chunk", [SCTPChunkData(data=b"data"), SCTPChunkShutdown()])
def test_unknown_association_is_left_to_the_kernel(node: Node, chunk: Packet) -> None:
    node.mode(Mode.SERVING, grace_s=MINUTE)
    node.vip(VIP, VNI).backends(WEB_1)
    node.port(PUBLISHED, TARGET, 132).backends(node.here())
    for send, source, to, macs in (
        (node.overlay_ingress, INSIDE, SERVER, None),
        (node.nic_ingress, OUTSIDE, ENTRY, FROM_CLIENT),
    ):
        packet = sctp(source, to, macs=macs, chunk=chunk)
        assert_result(send(packet), TC_UNSPEC, packet)
        first = sctp(source, to, macs=macs, chunk=SCTPChunkInit())
        assert send(first).verdict in {TC_OK, TC_REDIRECT}
        assert send(packet).verdict in {TC_OK, TC_REDIRECT}
    assert node.reasons() == {"handback_unknown_flow": 2}


def test_what_begins_is_balanced_at_once(node: Node, path: Path) -> None:
    node.mode(Mode.SERVING, grace_s=MINUTE)
    assert path.send(path.packet("S")).verdict == path.balanced
    assert path.send(path.packet("A")).verdict == path.balanced
    assert node.reasons() == {}


def test_datagrams_are_balanced_at_once(node: Node, path: Path) -> None:
    node.mode(Mode.SERVING, grace_s=MINUTE)
    assert path.send(path.datagram()).verdict == path.balanced


@pytest.mark.parametrize("mode", [Mode.UNSET, Mode.SERVING])
def test_afterwards_an_unknown_connection_comes_from_another_node(
    node: Node, path: Path, mode: Mode
) -> None:
    node.mode(mode, grace_s=-1)
    assert path.send(path.packet("A")).verdict == path.balanced


def test_nobody_refuses_the_kernels_connections(node: Node) -> None:
    """Without a ready task a packet is refused, but not one that may have another home."""
    node.mode(Mode.SERVING, grace_s=MINUTE)
    node.port(PUBLISHED, TARGET)
    node.vip(VIP, VNI)
    for send, packet in (
        (node.nic_ingress, tcp(OUTSIDE, ENTRY, "A", macs=FROM_CLIENT)),
        (node.overlay_ingress, tcp(INSIDE, SERVER, "A")),
    ):
        assert_result(send(packet), TC_UNSPEC, packet)


def test_answers_of_unknown_connections_pass(node: Node) -> None:
    """The kernel's way to a task and back leads past our programs, too."""
    node.mode(Mode.SERVING, grace_s=MINUTE)
    node.port(PUBLISHED, TARGET).backends(node.here())
    node.vip(VIP, VNI).backends(WEB_1)
    sandbox, load_balancer = "172.18.0.2", "10.0.1.9"
    into = tcp(OUTSIDE, f"{sandbox}:{PUBLISHED}", "A", macs=(BRIDGE_MAC, docker_mac(sandbox)))
    out = tcp(f"{sandbox}:{PUBLISHED}", OUTSIDE, "A", macs=(docker_mac(sandbox), BRIDGE_MAC))
    assert_result(node.gateway_egress(into), TC_OK, into)
    assert_result(node.gateway_ingress(out), TC_UNSPEC, out)
    for source, destination in (
        (f"{load_balancer}:4000", f"{WEB_1}:80"),
        (f"{WEB_1}:80", f"{load_balancer}:4000"),
        (f"{VIP}:80", INSIDE),
    ):
        packet = tcp(source, destination, "A")
        assert_result(node.overlay_ingress(packet), TC_UNSPEC, packet)
        assert_result(node.overlay_egress(packet), TC_UNSPEC, packet)
    assert nothing_is_known(node)


def test_connection_whose_entry_was_evicted_is_known_by_its_flow(node: Node) -> None:
    node.mode(Mode.SERVING, grace_s=MINUTE)
    node.port(PUBLISHED, TARGET).backends(node.here())
    node.nic_ingress(tcp(OUTSIDE, ENTRY, macs=FROM_CLIENT))
    node.forget("entries")
    packet = tcp(OUTSIDE, ENTRY, "A", macs=FROM_CLIENT)
    expected = tcp(OUTSIDE, TASK, "A", macs=(FROM_CLIENT[0], docker_mac(HERE_GATEWAY)))
    assert_result(node.nic_ingress(packet), TC_REDIRECT, expected)


def through_tunnel(packet: Packet) -> Packet:
    """To the task of node A, in at node B."""
    return wrapped(packet, (NODE_B, NODE_A), (NODE_B, HERE), tunnel_port(packet), FROM_CLIENT)


def test_connection_that_moves_to_its_own_tasks_node_goes_on(node: Node) -> None:
    """One address for several nodes, and a router that has chosen another of them."""
    shared = "198.51.100.1"
    node.addresses(NODE_A, shared)
    node.port(PUBLISHED, TARGET).backends(node.here())
    asked = [tcp(OUTSIDE, f"{shared}:{PUBLISHED}", flags, macs=FROM_CLIENT) for flags in "SA"]
    node.nic_ingress(through_tunnel(asked[0]))
    node.mode(Mode.SERVING, grace_s=MINUTE)
    expected = tcp(OUTSIDE, TASK, "A", macs=(FROM_CLIENT[0], docker_mac(HERE_GATEWAY)))
    assert_result(node.nic_ingress(asked[1]), TC_REDIRECT, expected)
    out = node.gateway_ingress(tcp(TASK, OUTSIDE, "A", macs=OUT_OF_TASK))
    assert_result(out, TC_REDIRECT, tcp(f"{shared}:{PUBLISHED}", OUTSIDE, "A", macs=OUT_OF_TASK))


def test_what_an_entry_node_sends_is_never_the_kernels(node: Node) -> None:
    """A flow that came in elsewhere before, and that this node has forgotten."""
    node.mode(Mode.SERVING, grace_s=MINUTE)
    node.port(PUBLISHED, TARGET).backends(node.here())
    packet = tcp(OUTSIDE, f"{NODE_B}:{PUBLISHED}", "A", macs=FROM_CLIENT)
    expected = tcp(OUTSIDE, TASK, "A", macs=(FROM_CLIENT[0], docker_mac(HERE_GATEWAY)))
    assert_result(node.nic_ingress(through_tunnel(packet)), TC_REDIRECT, expected)
    assert node.reasons() == {}


def test_connection_whose_task_has_gone_is_ours_to_refuse(node: Node) -> None:
    node.mode(Mode.SERVING, grace_s=MINUTE)
    web: Service = node.vip(VIP, VNI).backends(WEB_1, WEB_2).choose(WEB_1)
    node.overlay_ingress(tcp(INSIDE, SERVER))
    web.state(WEB_1, GONE).choose(WEB_2)
    assert node.overlay_ingress(tcp(INSIDE, SERVER, "A")).verdict == TC_REDIRECT
    assert node.reasons() == {"drop_backend_gone": 1}


# --- giving back


@pytest.mark.parametrize("flags", ["S", "A", "FA", "R"])
def test_new_connection_is_the_kernels(node: Node, path: Path, flags: str) -> None:
    node.mode(Mode.GIVING_BACK)
    packet = path.packet(flags)
    assert_result(path.send(packet), path.untouched, packet)
    assert nothing_is_known(node)
    assert counted(node, path, "handback_giving_back")


def test_new_datagrams_are_the_kernels(node: Node, path: Path) -> None:
    node.mode(Mode.GIVING_BACK)
    packet = path.datagram()
    assert_result(path.send(packet), path.untouched, packet)
    assert nothing_is_known(node)


def test_known_flows_go_on(node: Node, path: Path) -> None:
    path.send(path.packet("S"))
    path.send(path.datagram())
    node.mode(Mode.GIVING_BACK)
    assert path.send(path.packet("A")).verdict == path.balanced
    assert path.send(path.datagram()).verdict == path.balanced
    assert node.reasons() == {}


def test_answers_of_known_flows_go_on(node: Node) -> None:
    node.port(PUBLISHED, TARGET).backends(node.here())
    node.vip(VIP, VNI).backends(WEB_1)
    node.nic_ingress(tcp(OUTSIDE, ENTRY, macs=FROM_CLIENT))
    node.overlay_ingress(tcp(INSIDE, SERVER))
    node.mode(Mode.GIVING_BACK)
    answer = node.gateway_ingress(tcp(TASK, OUTSIDE, "SA", macs=OUT_OF_TASK))
    assert_result(answer, TC_REDIRECT, tcp(ENTRY, OUTSIDE, "SA", macs=OUT_OF_TASK))
    answer = node.overlay_egress(tcp(f"{WEB_1}:80", INSIDE, "SA"))
    assert_result(answer, TC_OK, tcp(SERVER, INSIDE, "SA", macs=between(WEB_1, ALICE)))


def test_port_that_is_used_again_is_the_kernels_from_its_syn_on(node: Node, path: Path) -> None:
    """What the ended connection has left must not catch the packets after the SYN."""
    for flags in ("S", "A", "R"):
        path.send(path.packet(flags))
    node.mode(Mode.GIVING_BACK)
    for flags in ("S", "A"):
        packet = path.packet(flags)
        assert_result(path.send(packet), path.untouched, packet)


def test_other_nodes_still_reach_the_tasks_here(node_b: Node) -> None:
    """What comes through the tunnel has no other way."""
    node_b.port(PUBLISHED, TARGET).backends(node_b.here())
    node_b.mode(Mode.GIVING_BACK)
    packet = tcp(OUTSIDE, ENTRY, macs=FROM_CLIENT)
    tunnelled = wrapped(packet, (NODE_A, "192.0.2.12"), (NODE_A, "10.0.0.5"), tunnel_port(packet))
    assert node_b.nic_ingress(tunnelled).verdict != TC_SHOT
    assert len(node_b.flows()) == 1
