# SPDX-License-Identifier: Apache-2.0
"""IPv6 clients of published ports: real sockets, with all that a kernel offloads."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ebpfmesh.datapath.attach import Attacher, Role, XdpPolicy, detach
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.object import Object
from ebpfmesh.model import Attachment

from .machines import Machine, machine
from .net import surrogate
from .node import Node
from .sandbox import ifindex
from .world import TABLE_SIZE, Task, be32

NODE, NODE6, CLIENT6 = "203.0.113.1", "2001:db8:6::1", "2001:db8:6::64"
BRIDGE, TASK = "172.20.0.1", "172.20.0.2"
PUBLISHED, TARGET, CLOSED = 8080, 80, 81
VOLUME = 3_000_000

_SERVE = f"""
import socket, threading
def stream(c, peer):
    got = 0
    while got < {VOLUME}:
        got += len(c.recv(65536))
    c.sendall(peer[0].encode().ljust(64) + bytes({VOLUME}))
    c.close()
def datagrams(s):
    while True:
        data, peer = s.recvfrom(65536)
        s.sendto(peer[0].encode().ljust(64) + data, peer)
u = socket.socket(type=socket.SOCK_DGRAM)
u.bind(("", {TARGET}))
threading.Thread(target=datagrams, args=(u,), daemon=True).start()
s = socket.create_server(("", {TARGET}))
print("ready", flush=True)
while True:
    threading.Thread(target=stream, args=s.accept(), daemon=True).start()
"""

_STREAM = f"""
import socket
s = socket.create_connection(({NODE6!r}, {{port}}), 10)
s.sendall(bytes({VOLUME}))
got = b""
while chunk := s.recv(65536):
    got += chunk
print(got[:64].decode().strip(), len(got), *s.getpeername()[:2])
"""

_DATAGRAM = f"""
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(10)
s.connect(({NODE6!r}, {{port}}))
s.send(bytes({{size}}))
got = s.recv(65536)
print(got[:64].decode().strip(), len(got))
"""


class Place(NamedTuple):
    """A client on the node's NIC, a task behind docker_gwbridge."""

    node: Node
    client: Machine
    task: Task
    task_mac: str


def _cables(client: Machine, task: Machine) -> str:
    return f"""\
link add nic6 type veth peer name eth0 netns {client.pid}
link set nic6 up
addr add {NODE}/24 dev nic6
addr add {NODE6}/64 dev nic6 nodad
link add gw6 type veth peer name eth0 netns {task.pid}
link set gw6 up
addr add {BRIDGE}/24 dev gw6
"""


def _mac_of(place: Machine) -> str:
    shown = subprocess.run(
        ["nsenter", "-t", str(place.pid), "-n", "ip", "-br", "link", "show", "eth0"],
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.split()[2]


def _serve(node: Node, published: int, target: int, task: Task, mac: str) -> None:
    for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        service = node.port(published, target, protocol).backends(task)
        for number in service.ids.values():
            node.set_backend(number, gateway_mac=mac)


@pytest.fixture(scope="module")
def machines(bpffs: Path) -> Iterator[tuple[Machine, Machine]]:
    """A client and a task, as strict about source addresses as a kernel can be told to be."""
    with machine() as client, machine() as task:
        subprocess.run(["ip", "-batch", "-"], input=_cables(client, task), text=True, check=True)
        client.ip("link set lo up", "link set eth0 up", f"addr add {CLIENT6}/64 dev eth0 nodad")
        task.ip(
            "link set lo up",
            "link set eth0 up",
            f"addr add {TASK}/24 dev eth0",
            f"route add default via {BRIDGE}",
        )
        task.sysctl("net/ipv4/conf/all/rp_filter", "1")
        task.sysctl("net/ipv4/conf/eth0/rp_filter", "1")
        with task.start(_SERVE) as server:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
            yield client, task
            server.terminate()
        subprocess.run(["ip", "link", "del", "nic6"], check=False)
        subprocess.run(["ip", "link", "del", "gw6"], check=False)


@pytest.fixture(scope="module")
def module(machines: tuple[Machine, Machine], programs: Object, bpffs: Path) -> Iterator[Module]:
    constants = {
        "NODE_VTEP": be32(NODE),
        "NIC_IFINDEX": ifindex("nic6"),
        "MAGLEV_SIZE": TABLE_SIZE,
        "MAX_FLOWS": 1024,
    }
    opened = Module(programs, constants, bpffs / "ipv6")
    yield opened
    opened.close()


@pytest.fixture(params=[XdpPolicy.OFF, XdpPolicy.NATIVE])
def place(
    request: pytest.FixtureRequest, module: Module, machines: tuple[Machine, Machine]
) -> Iterator[Place]:
    node = Node(module)
    node.addresses(NODE, NODE6)
    node.node(NODE)
    client, task = machines
    backend = Task("10.0.0.5", NODE, TASK, ifindex("gw6"))
    places = [
        Attachment(role=Role.NIC, netns="", ifindex=ifindex("nic6"), name="nic6"),
        Attachment(role=Role.GATEWAY, netns="", ifindex=ifindex("gw6"), name="gw6"),
    ]
    _serve(node, PUBLISHED, TARGET, backend, _mac_of(task))
    for attachment in places:
        Attacher(module, request.param).attach(attachment)
    yield Place(node, client, backend, _mac_of(task))
    for attachment in places:
        detach(attachment)
    node.clear()


def dropped(node: Node) -> dict[str, int]:
    return {name: count for name, count in node.reasons().items() if name.startswith("drop")}


def test_stream(place: Place) -> None:
    """Both ways, and the task's own kernel has nothing against the client's address."""
    said = place.client.run(_STREAM.format(port=PUBLISHED))
    assert said == f"{surrogate(CLIENT6)} {VOLUME + 64} {NODE6} {PUBLISHED}"
    assert dropped(place.node) == {}


@pytest.mark.parametrize("size", [0, 1, 512, 1380])
def test_datagrams(place: Place, size: int) -> None:
    said = place.client.run(_DATAGRAM.format(port=PUBLISHED, size=size))
    assert said == f"{surrogate(CLIENT6)} {size + 64}"
    assert dropped(place.node) == {}


@pytest.mark.parametrize("script", [_STREAM, _DATAGRAM], ids=["tcp", "udp"])
def test_service_without_tasks_refuses(place: Place, script: str) -> None:
    for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        place.node.port(9090, TARGET, protocol)
    said = place.client.run(script.format(port=9090, size=5))
    assert said == "ConnectionRefusedError: [Errno 111] Connection refused"


@pytest.mark.parametrize("script", [_STREAM, _DATAGRAM], ids=["tcp", "udp"])
def test_task_that_does_not_listen_refuses(place: Place, script: str) -> None:
    _serve(place.node, 9091, CLOSED, place.task, place.task_mac)
    said = place.client.run(script.format(port=9091, size=5))
    assert said == "ConnectionRefusedError: [Errno 111] Connection refused"
