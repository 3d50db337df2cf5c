# SPDX-License-Identifier: Apache-2.0
"""Copies of what passes a link, here and in another namespace."""

from __future__ import annotations

import select
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.packet import Packet

from ebpfmesh import pcapng
from ebpfmesh.agent.capture import Place, Recording, _link_with, _tunnels
from ebpfmesh.capturing import Capture, by_ports
from ebpfmesh.datapath.tap import Copy, Tap
from ebpfmesh.model import Protocol

from .net import CLIENT, CLIENT_MAC, NODE_B, NODE_B_MAC, PUBLISHED, tcp
from .sandbox import OtherNetwork, ifindex

WANTED = by_ports({(Protocol.TCP, PUBLISHED)})
# For a machine that is not there: nobody answers.
MACS = (CLIENT_MAC, NODE_B_MAC)
ASKED = tcp(f"{CLIENT}:4000", f"{NODE_B}:{PUBLISHED}", macs=MACS, payload=b"x" * 200)
OTHERS = tcp(f"{CLIENT}:4000", f"{NODE_B}:9", macs=MACS)
TIMEOUT_S = 10


@pytest.fixture(autouse=True)
def network(bpffs: Path) -> None:
    """That of the tests."""


def send(link: str, *packets: Packet) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((link, 0))
        for packet in packets:
            wire.send(bytes(packet))


def taken(tap: Tap) -> Copy:
    assert select.select([tap], (), (), TIMEOUT_S)[0], "nothing has come"
    copy = tap.take()
    assert copy is not None
    return copy


def test_what_comes_in_and_what_goes_out() -> None:
    before = time.time_ns()
    tap = Tap("", ifindex("nic0"), WANTED, 96)
    try:
        send("lan0", OTHERS, ASKED)
        came = taken(tap)
        send("nic0", ASKED)
        went = taken(tap)
        assert tap.take() is None
        assert tap.counts() == tap.counts() == (2, 0)
    finally:
        tap.close()
    assert (came.outbound, went.outbound) == (False, True)
    for copy in (came, went):
        assert (copy.data, copy.length) == (bytes(ASKED)[:96], len(ASKED))
        assert before <= copy.time_ns <= time.time_ns()


def test_in_another_namespace() -> None:
    with OtherNetwork() as other:
        with other.inside():
            subprocess.run(
                ["ip", "-batch", "-"],
                input="link add one up type veth peer name other\nlink set other up\n",
                text=True,
                check=True,
            )
            there = ifindex("other")
        tap = Tap(other.path, there, WANTED, 65535)
        try:
            with other.inside():
                send("one", ASKED)
            assert taken(tap).data == bytes(ASKED)
        finally:
            tap.close()


def test_links_of_another_namespace() -> None:
    """That of a task, by its address; those of an overlay network that lead to other nodes."""
    made = "link add one type veth peer name other\naddr add 172.18.0.5/16 dev one\n"
    made += "link add over type vxlan id 4097 dstport 4789\n"
    with OtherNetwork() as other:
        with other.inside():
            subprocess.run(["ip", "-batch", "-"], input=made, text=True, check=True)
            one, over = ifindex("one"), ifindex("over")
        assert _link_with(other.path, "172.18.0.5") == one
        assert _link_with(other.path, "172.18.0.6") == 0
        assert _tunnels(other.path) == [(over, "over")]
    assert _link_with("/nowhere", "172.18.0.5") == 0
    assert _tunnels("/nowhere") == []


def test_what_is_not_there() -> None:
    for netns, link in (("", 99999), ("/nowhere", 1)):
        with pytest.raises(OSError, match="No such"):
            Tap(netns, link, WANTED, 96)


@pytest.fixture
def recording() -> Iterator[Recording]:
    places = [
        Place("", ifindex("nic0"), "nic0", "the NIC", tuple(WANTED)),
        Place("", 99999, "gone", "", tuple(WANTED)),
        Place("", ifindex("lan0"), "lan0", "the wire", tuple(WANTED)),
    ]
    recording = Recording(places, Capture("web", count=3, seconds=60))
    yield recording
    recording.close()


def read(data: bytes) -> list[pcapng.Block]:
    rest = memoryview(data)

    def some(length: int) -> bytes:
        nonlocal rest
        piece, rest = bytes(rest[:length]), rest[length:]
        return piece

    return list(pcapng.blocks(some))


def test_each_place_has_its_interface(recording: Recording) -> None:
    """A place that has gone meanwhile is left out."""
    head = read(recording.head())
    assert [block.kind for block in head] == [pcapng.SECTION, *[pcapng.INTERFACE] * 2]
    assert b"nic0" in head[1].data
    assert b"lan0" in head[2].data
    send("lan0", ASKED)
    found: list[pcapng.Block] = []
    while len(found) < 2:
        found += [each for each in read(recording.more()) if each.kind == pcapng.PACKET]
    assert sorted(block.place for block in found) == [0, 1]


def test_it_ends_with_the_count(recording: Recording) -> None:
    send("lan0", *[ASKED] * 5)
    found: list[pcapng.Block] = []
    while not recording.over:
        found += [each for each in read(recording.more()) if each.kind == pcapng.PACKET]
    assert len(found) == 3
    assert [block.kind for block in read(recording.statistics())] == [pcapng.STATISTICS] * 2


def test_it_ends_with_the_time() -> None:
    place = Place("", ifindex("nic0"), "nic0", "", tuple(WANTED))
    recording = Recording([place], Capture("web", seconds=0.1))
    try:
        while not recording.over:
            assert {each.kind for each in read(recording.more())} == {pcapng.STATISTICS}
    finally:
        recording.close()
