# SPDX-License-Identifier: Apache-2.0
"""Processes of the node that ask a published port by IPv6: real sockets, a real server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ebpfmesh.datapath.loader import Module
from ebpfmesh.takeover import Mode

from .net import NODE_A, NODE_A6, THERE
from .node import Node
from .sockets import Processes
from .world import Task, remote

PUBLISHED, TARGET = 8080, 8081
SERVER = "127.0.0.2"  # stands for a task's docker_gwbridge address

_ASK = """
s = socket.socket(socket.AF_INET6, socket.{kind})
s.settimeout(5)
{before}
try:
    s.connect(({address!r}, {port}))
    s.send(b'hello')
    print(s.recv(99).decode(), *s.getpeername()[:2])
except OSError as error:
    print(error)
"""

_SEND = """
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(5)
try:
    s.sendto(b'hello', ({address!r}, {port}))
    data, peer = s.recvfrom(99)
    print(data.decode(), *peer[:2])
except OSError as error:
    print(error)
"""


def ask(address: str, port: int = PUBLISHED, kind: str = "SOCK_STREAM", before: str = "") -> str:
    return _ASK.format(address=address, port=port, kind=kind, before=before)


def send(address: str) -> str:
    return _SEND.format(address=address, port=PUBLISHED)


def _answer_streams(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"task:" + connection.recv(99))


def _answer_datagrams(server: socket.socket) -> None:
    while True:
        data, client = server.recvfrom(99)
        if not data:
            return
        server.sendto(b"task:" + data, client)


@pytest.fixture(scope="module", autouse=True)
def servers(bpffs: Path) -> Iterator[None]:
    """A task, and dockerd's listener on the published port, which accepts nobody."""
    with ExitStack() as stack:
        held = stack.enter_context(socket.socket(socket.AF_INET6))
        held.bind(("::", PUBLISHED))
        held.listen()
        stream = stack.enter_context(socket.create_server((SERVER, TARGET)))
        datagram = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        datagram.bind((SERVER, TARGET))
        threads = [
            threading.Thread(target=_answer_streams, args=(stream,)),
            threading.Thread(target=_answer_datagrams, args=(datagram,)),
        ]
        for thread in threads:
            thread.start()
        yield
        stream.shutdown(socket.SHUT_RDWR)
        datagram.sendto(b"", (SERVER, TARGET))
        for thread in threads:
            thread.join()


@pytest.fixture
def own(sock_module: Module) -> Iterator[Node]:
    """A node whose TCP and UDP ports are served by the task."""
    node = Node(sock_module)
    node.addresses(NODE_A, NODE_A6)
    for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        node.port(PUBLISHED, TARGET, protocol).backends(Task("10.0.0.5", gateway=SERVER, ifindex=1))
    yield node
    node.clear()


ADDRESSES = ["::1", NODE_A6, "::ffff:127.0.0.1", f"::ffff:{NODE_A}"]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_connected(own: Node, processes: Processes, address: str, kind: str) -> None:
    """The task answers, and the peer is whom the process has asked."""
    assert processes.run(ask(address, kind=kind)) == f"task:hello {address} {PUBLISHED}"
    assert own.reasons() == {}


def test_unspecified_address_is_the_node(own: Node, processes: Processes) -> None:
    assert processes.run(ask("::")) == f"task:hello :: {PUBLISHED}"


def test_connection_is_counted_where_it_enters(own: Node, processes: Processes) -> None:
    processes.run(ask("::1"))
    assert own.counter("entry", 1).connections == 1


@pytest.mark.parametrize("address", ["::ffff:127.0.0.1", f"::ffff:{NODE_A}"])
def test_datagram_to_a_mapped_address(own: Node, processes: Processes, address: str) -> None:
    assert processes.run(send(address)) == f"task:hello {address} {PUBLISHED}"


@pytest.mark.parametrize("address", ["::1", NODE_A6])
def test_datagram_of_an_unconnected_socket_is_refused(
    own: Node, processes: Processes, address: str
) -> None:
    assert processes.run(send(address)) == "[Errno 111] Connection refused"
    assert own.reasons() == {"drop_ipv6_datagram": 1}


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_socket_for_ipv6_only_is_refused(own: Node, processes: Processes, kind: str) -> None:
    only = "s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)"
    said = processes.run(ask("::1", kind=kind, before=only))
    assert said == "[Errno 101] Network is unreachable"


def test_port_without_backends_is_refused(own: Node, processes: Processes) -> None:
    own.port(PUBLISHED, TARGET)
    assert processes.run(ask("::1")) == "[Errno 111] Connection refused"
    assert own.reasons() == {"drop_no_backend": 1}


def test_task_of_another_node_is_asked_there(own: Node, processes: Processes) -> None:
    """Its node's published port: nobody answers here, so the socket tells whom it has called."""
    own.port(PUBLISHED, TARGET, socket.IPPROTO_UDP).backends(remote(THERE, SERVER))
    with socket.socket(type=socket.SOCK_DGRAM) as there:
        there.bind((SERVER, PUBLISHED))
        there.settimeout(5)
        processes.run(
            "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n"
            f"s.connect(('::1', {PUBLISHED})); s.send(b'hello')"
        )
        assert there.recv(99) == b"hello"


@pytest.mark.parametrize("address", ["::1", NODE_A6])
def test_port_that_is_not_published_is_the_kernels(
    own: Node, processes: Processes, address: str
) -> None:
    with socket.create_server(("::", 9090), family=socket.AF_INET6) as server:
        thread = threading.Thread(target=_answer_streams, args=(server,))
        thread.start()
        assert processes.run(ask(address, 9090)) == f"task:hello {address} 9090"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_address_of_another_machine_is_the_kernels(own: Node, processes: Processes) -> None:
    said = processes.run(ask("fd00:ffff::1"))
    assert said == "[Errno 101] Network is unreachable"


def test_containers_sockets_are_left_alone(own: Node, processes: Processes) -> None:
    """Another network namespace: its ::1 is its own."""
    elsewhere = "import ctypes; ctypes.CDLL(None).unshare(0x40000000)\n"
    said = processes.run(elsewhere + ask("::1"))
    assert "task" not in said
    assert own.reasons() == {}


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_socket_that_was_bound_to_ipv6_is_refused(
    own: Node, processes: Processes, kind: str
) -> None:
    said = processes.run(ask("::1", kind=kind, before="s.bind(('::1', 0))"))
    assert said == "[Errno 101] Network is unreachable"


@pytest.mark.parametrize("address", ["::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("asked", ["connected", "unconnected"])
def test_new_flow_is_the_kernels_while_all_is_given_back(
    own: Node, processes: Processes, address: str, asked: str
) -> None:
    own.mode(Mode.GIVING_BACK)
    said = processes.run(ask(address, kind="SOCK_DGRAM") if asked == "connected" else send(address))
    assert "task" not in said
    assert set(own.reasons()) == {"handback_giving_back"}
