# SPDX-License-Identifier: Apache-2.0
"""Who listens in a namespace, as the kernel says."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ebpfmesh.datapath.listening import Listener, listeners
from ebpfmesh.datapath.netns import _open_in
from ebpfmesh.model import Protocol

# What a container has, but Docker's name server: a loopback and an address of its own.
_LINKS = "ip link set lo up; ip addr add 192.0.2.9/24 dev lo; echo; exec sleep infinity"

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture
def netns() -> Iterator[str]:
    """A namespace of its own, which somebody lives in."""
    argv = ["unshare", "--net", "sh", "-c", _LINKS]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield f"/proc/{process.pid}/ns/net"
        finally:
            process.kill()


def bound(
    netns: str, kind: int, family: int, address: tuple[str, int], *, v6only: bool = False
) -> socket.socket:
    def open_here() -> socket.socket:
        found = socket.socket(family, kind)
        if family == V6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        found.bind(address)
        return found

    return _open_in(netns, open_here)


@pytest.mark.parametrize(
    ("family", "address", "v6only", "heard"),
    [
        (V4, "0.0.0.0", False, True),
        (V4, "192.0.2.9", False, True),
        (V4, "127.0.0.11", False, False),
        (V6, "::", False, True),
        (V6, "::", True, False),
        (V6, "::1", False, False),
        (V6, "::ffff:192.0.2.9", False, True),
        (V6, "::ffff:127.0.0.1", False, False),
    ],
)
def test_who_can_be_asked_from_outside(
    netns: str, family: int, address: str, v6only: bool, heard: bool
) -> None:
    with ExitStack() as stack:
        tcp = stack.enter_context(
            bound(netns, socket.SOCK_STREAM, family, (address, 80), v6only=v6only)
        )
        assert listeners(netns) == set()
        tcp.listen()
        stack.enter_context(bound(netns, socket.SOCK_DGRAM, family, (address, 53), v6only=v6only))
        wanted = {Listener(Protocol.TCP, 80), Listener(Protocol.UDP, 53)}
        assert listeners(netns) == (wanted if heard else set())
    assert listeners(netns) == set()


def test_a_datagram_socket_with_a_peer_serves_nobody(netns: str) -> None:
    with bound(netns, socket.SOCK_DGRAM, V4, ("192.0.2.9", 5353)) as asking:
        asking.connect(("192.0.2.9", 53))
        assert listeners(netns) == set()


def test_other_namespaces_are_none_of_its_business(netns: str) -> None:
    with bound(netns, socket.SOCK_STREAM, V4, ("192.0.2.9", 80)) as tcp:
        tcp.listen()
        assert Listener(Protocol.TCP, 80) not in listeners(f"/proc/{os.getpid()}/ns/net")


def test_a_look_leaves_no_socket_behind(netns: str) -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(10):
        listeners(netns)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_no_namespace_no_answer() -> None:
    with pytest.raises(FileNotFoundError):
        listeners("/run/no-such-namespace")
