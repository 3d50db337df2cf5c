# SPDX-License-Identifier: Apache-2.0
"""Fragments on real links, between real sockets: what the kernel makes of them, and in which order
they leave. The node is A; it is asked through B, or from its own LAN.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ebpfmesh.datapath.attach import Attacher, Role, XdpPolicy, detach
from ebpfmesh.model import Attachment

from .net import (
    CLIENT,
    FROM_CLIENT,
    HERE,
    HERE_GATEWAY,
    NODE_A,
    NODE_A_MAC,
    NODE_B,
    NODE_B_MAC,
    PUBLISHED,
    TARGET,
    THERE,
    docker_mac,
    fragments,
    put_together,
    udp,
    wrapped,
)
from .node import Node
from .sandbox import OtherNetwork, ifindex, send_finished_checksums
from .world import Task, remote

CONTENT = bytes(range(251)) * 33
SOURCE, ENTRY, BY_B = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}", f"{NODE_B}:{PUBLISHED}"
WRAP = 50
WHOLE = 1472  # of content, in one packet of 1500 bytes

_TASK = f"""\
link set eth0 address {docker_mac(HERE_GATEWAY)} up
addr add {HERE_GATEWAY}/16 dev eth0
neigh add 172.18.0.1 lladdr 02:42:00:00:00:01 nud permanent dev eth0
route add default via 172.18.0.1
"""


def ip(batch: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)


def attached(node: Node, role: Role, device: str, policy: XdpPolicy) -> Iterator[None]:
    place = Attachment(role=role, netns="", ifindex=ifindex(device), name=device)
    Attacher(node.module, policy).attach(place)
    yield
    detach(place)


@pytest.fixture(params=[XdpPolicy.OFF, XdpPolicy.NATIVE, XdpPolicy.GENERIC])
def nic(node: Node, request: pytest.FixtureRequest) -> Iterator[None]:
    yield from attached(node, Role.NIC, "nic0", request.param)


def far_end(device: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    opened.bind((device, 3))
    opened.settimeout(5)
    return opened


@pytest.fixture
def lan() -> Iterator[socket.socket]:
    """The far end of the node's NIC."""
    with far_end("lan0") as opened, send_finished_checksums("nic0"):
        yield opened


@pytest.fixture
def task() -> Iterator[socket.socket]:
    """A socket of a task, in a network of its own behind the link `gwtask`."""
    with OtherNetwork() as network:
        ip(f"link add gwtask up type veth peer name eth0 netns {network.path}")
        with network.inside():
            ip(_TASK)
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with opened:
            opened.bind((HERE_GATEWAY, TARGET))
            opened.settimeout(5)
            yield opened
        ip("link del gwtask")


@pytest.fixture
def gateway(node: Node, task: socket.socket) -> Iterator[None]:
    here = Task(HERE, gateway=HERE_GATEWAY, ifindex=ifindex("gwtask"))
    node.port(PUBLISHED, TARGET, socket.IPPROTO_UDP).backends(here)
    yield from attached(node, Role.GATEWAY, "gwtask", XdpPolicy.OFF)


def heard(on: socket.socket, to: str, count: int) -> list[bytes]:
    """That many packets to an address."""
    frames: list[bytes] = []
    while len(frames) < count:
        packet = Ether(on.recv(4096))
        if IP in packet and packet[IP].dst == to and packet[IP].proto == socket.IPPROTO_UDP:
            frames.append(bytes(packet))
    return frames


def tunnelled(lan: socket.socket, count: int) -> list[bytes]:
    """That many packets that leave for node B, unwrapped."""
    return [frame[WRAP:] for frame in heard(lan, NODE_B, count)]


def drops(node: Node) -> dict[str, int]:
    """The kernel has some packets of its own to send, which count as handed back."""
    return {why: count for why, count in node.reasons().items() if why.startswith("drop_")}


def assert_datagram(frames: list[bytes], source: str, to: str, content: bytes) -> None:
    assert Ether(frames[0])[IP].frag == 0  # else the other end could not tell the rest's ports
    whole = put_together(frames)
    assert f"{whole.src}:{whole[UDP].sport}" == source
    assert f"{whole.dst}:{whole[UDP].dport}" == to
    assert bytes(whole[UDP].payload) == content
    claimed = whole[UDP].chksum
    del whole[UDP].chksum
    assert IP(bytes(whole))[UDP].chksum == claimed


@pytest.mark.parametrize(
    ("content", "count"),
    [
        pytest.param(CONTENT, 11, id="in fragments"),
        pytest.param(CONTENT[:WHOLE], 2, id="whole"),
    ],
)
def test_question_is_split(
    node: Node, nic: None, lan: socket.socket, content: bytes, count: int
) -> None:
    node.port(PUBLISHED, TARGET, socket.IPPROTO_UDP).backends(remote(THERE))
    for piece in fragments(udp(SOURCE, ENTRY, macs=FROM_CLIENT, payload=content, id=7)):
        lan.send(bytes(piece))
    assert_datagram(tunnelled(lan, count), SOURCE, ENTRY, content)
    assert drops(node) == {}


def from_b(whole: Packet, to: str) -> list[Packet]:
    """As B sends it to A, where it has found room."""
    macs = (NODE_B_MAC, NODE_A_MAC)
    return [
        wrapped(piece, (NODE_B, NODE_A), (NODE_B, to), 0xC001, macs)
        for piece in fragments(whole, 1424)
    ]


def question(content: bytes = CONTENT, ident: int = 7) -> list[Packet]:
    return from_b(udp(SOURCE, BY_B, payload=content, id=ident), HERE)


@pytest.mark.parametrize(
    ("content", "count"),
    [
        pytest.param(CONTENT, 11, id="in fragments"),
        pytest.param(CONTENT[:WHOLE], 2, id="whole, its checksum left to the card"),
        pytest.param(b"short", 1, id="short"),
    ],
)
def test_task_is_asked_and_answers(
    node: Node,
    gateway: None,
    nic: None,
    lan: socket.socket,
    task: socket.socket,
    content: bytes,
    count: int,
) -> None:
    for packet in question():
        lan.send(bytes(packet))
    assert task.recvfrom(65536) == (CONTENT, (CLIENT, 4000))
    # By itself the kernel forbids fragments of what fits the link.
    task.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT
    task.sendto(content, (CLIENT, 4000))
    assert_datagram(tunnelled(lan, count), BY_B, SOURCE, content)
    assert drops(node) == {}


def test_unknown_one_out_of_the_tunnel_is_dropped(
    node: Node, gateway: None, nic: None, lan: socket.socket, task: socket.socket
) -> None:
    for packet in (question(ident=8)[1], *question(b"short")):
        lan.send(bytes(packet))
    assert task.recv(65536) == b"short"
    assert drops(node) == {"drop_fragment": 1}


def test_answer_to_a_client_behind_another_nic(node: Node, nic: None, lan: socket.socket) -> None:
    """XDP unwraps it; tc, which has not seen the first fragment either, sends it on."""
    client = "198.51.100.7:4000"
    answer = udp(ENTRY, client, payload=CONTENT, id=7)
    with far_end("lan1") as other:
        for packet in reversed(from_b(answer, NODE_A)):
            lan.send(bytes(packet))
        frames = heard(other, "198.51.100.7", 6)
    assert bytes(put_together(frames)[UDP].payload) == CONTENT
    assert drops(node) == {}
