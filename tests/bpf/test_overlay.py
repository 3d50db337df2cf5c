# SPDX-License-Identifier: Apache-2.0
"""The entries by which an overlay reaches other nodes, as the kernel has them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.l2 import Ether

from ebpfmesh.datapath.overlay import overlay_of
from ebpfmesh.ways import Found, Way

WAY = Way("10.0.1.5", "02:42:0a:00:01:05", "192.0.2.12")
OTHER = Way("10.0.1.6", "02:42:0a:00:01:06", "192.0.2.13")
ASKS = "02:42:0a:00:01:07"
ETHERTYPE = 0x88B5  # IEEE 802, for experiments


def run(words: str) -> None:
    subprocess.run(words.split(), check=True)


@pytest.fixture
def vxlan(bpffs: Path) -> Iterator[None]:
    """As libnetwork makes it."""
    del bpffs  # whose network this is
    run("ip link add wbr0 type bridge")
    run("ip link add wvx0 type vxlan id 4099 dstport 4790 proxy l2miss l3miss learning")
    run("ip link set wvx0 master wbr0 up")
    run(f"ip neigh replace {OTHER.address} lladdr {OTHER.mac} dev wvx0 nud permanent")
    run(f"bridge fdb add {OTHER.mac} dev wvx0 dst {OTHER.vtep} self permanent")
    yield
    run("ip link del wvx0")
    run("ip link del wbr0")


@pytest.mark.usefixtures("vxlan")
def test_a_way_is_put_and_taken_and_others_stay() -> None:
    with overlay_of("") as overlay:
        assert overlay is not None
        assert overlay.found() == Found({OTHER.address: OTHER.mac}, {OTHER.mac: OTHER.vtep})
        for _ in range(2):
            overlay.put(WAY)
            assert overlay.found().has(WAY)
            assert overlay.found().has(OTHER)
        for _ in range(2):
            overlay.take(WAY)
            assert overlay.found() == Found({OTHER.address: OTHER.mac}, {OTHER.mac: OTHER.vtep})


@pytest.mark.usefixtures("vxlan")
def test_what_the_kernel_has_learned_is_no_way_and_gives_way() -> None:
    run(f"bridge fdb add {WAY.mac} dev wvx0 dst {OTHER.vtep} self dynamic")
    run(f"ip neigh replace {WAY.address} lladdr {WAY.mac} dev wvx0 nud reachable")
    with overlay_of("") as overlay:
        assert overlay is not None
        assert WAY.mac not in overlay.found().forwards
        assert WAY.address not in overlay.found().neighbours
        overlay.put(WAY)
        assert overlay.found().has(WAY)


@pytest.fixture
def task(vxlan: None) -> Iterator[socket.socket]:
    """A container on the overlay, for the frames that it gets: it has sent none itself."""
    run("ip link add wve0 type veth peer name wve1")
    Path("/proc/sys/net/ipv6/conf/wve1/disable_ipv6").write_text("1")  # as Docker does
    run(f"ip link set wve1 address {WAY.mac} up")
    run("ip link set wve0 master wbr0 up")
    run("ip link set wbr0 up")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE)) as listening:
        listening.bind(("wve1", ETHERTYPE))
        listening.settimeout(0.5)
        yield listening
    run("ip link del wve0")


def from_tunnel() -> None:
    """A frame for the container arrives from another node."""
    inner = Ether(dst=WAY.mac, src=ASKS, type=ETHERTYPE) / bytes(46)
    vxlan = bytes([8, 0, 0, 0]) + (4099).to_bytes(3) + b"\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as node:
        node.sendto(vxlan + bytes(inner), ("127.0.0.1", 4790))


def test_a_new_task_is_reached_by_the_mac_of_one_that_was_elsewhere(task: socket.socket) -> None:
    """What the bridge has learned of that one would send its frames back where they come from."""
    run(f"bridge fdb add {WAY.mac} dev wvx0 master dynamic")
    run(f"bridge fdb add {OTHER.mac} dev wvx0 master dynamic")
    from_tunnel()
    with pytest.raises(TimeoutError):
        task.recv(2048)
    with overlay_of("") as overlay:
        assert overlay is not None
        assert overlay.found().learned == {WAY.mac, OTHER.mac, ASKS}
        for _ in range(2):
            overlay.forget(WAY.mac)
        assert overlay.found().learned == {OTHER.mac, ASKS}
    from_tunnel()
    assert Ether(task.recv(2048)).src == ASKS


@pytest.mark.usefixtures("bpffs")
def test_where_there_is_no_overlay() -> None:
    with overlay_of("") as overlay:
        assert overlay is None
    with pytest.raises(FileNotFoundError), overlay_of("/run/netns/none-such"):
        raise AssertionError
