# SPDX-License-Identifier: Apache-2.0
"""Programs on real links: which mode XDP gets, whose programs are touched."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from ebpfmesh.datapath.attach import Attacher, Role, XdpPolicy, detach
from ebpfmesh.datapath.errors import PlaceGone
from ebpfmesh.datapath.links import Hook, XdpMode, links_of
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.object import Object
from ebpfmesh.datapath.progname import program_name
from ebpfmesh.lab.wire import load_pass
from ebpfmesh.model import Attachment

from .net import ALICE, VIP, VNI, docker_mac
from .sandbox import ifindex

ETH_P_IP = 0x0800


@pytest.fixture(scope="module")
def module(programs: Object, bpffs: Path) -> Iterator[Module]:
    opened = Module(programs, {"MAGLEV_SIZE": 31, "MAX_FLOWS": 1024}, bpffs / "attach")
    yield opened
    opened.close()


@pytest.fixture
def nic() -> Iterator[Attachment]:
    place = Attachment(role=Role.NIC, netns="", ifindex=ifindex("nic1"), name="nic1")
    yield place
    detach(place)


def xdp_mode(place: Attachment) -> XdpMode:
    with links_of(place.netns) as links:
        return links.xdp_mode(place.ifindex)


def hooks(place: Attachment) -> set[Hook]:
    with links_of(place.netns) as links:
        return {hook for hook in Hook if links.has_filter(place.ifindex, hook)}


def qdiscs(device: str) -> str:
    command = ["tc", "qdisc", "show", "dev", device]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        (XdpPolicy.AUTO, XdpMode.NATIVE),
        (XdpPolicy.NATIVE, XdpMode.NATIVE),
        (XdpPolicy.GENERIC, XdpMode.GENERIC),
        (XdpPolicy.OFF, XdpMode.OFF),
    ],
)
def test_mode_follows_the_policy(
    module: Module, nic: Attachment, policy: XdpPolicy, mode: XdpMode
) -> None:
    assert Attacher(module, policy).attach(nic).xdp is mode
    assert xdp_mode(nic) is mode
    assert hooks(nic) == {Hook.INGRESS}


def test_policy_may_change(module: Module, nic: Attachment) -> None:
    for policy in (XdpPolicy.AUTO, XdpPolicy.GENERIC, XdpPolicy.AUTO, XdpPolicy.OFF):
        Attacher(module, policy).attach(nic)
    assert xdp_mode(nic) is XdpMode.OFF


@pytest.mark.parametrize("policy", XdpPolicy)
def test_xdp_may_pause(module: Module, nic: Attachment, policy: XdpPolicy) -> None:
    """Whatever is wanted otherwise; tc stays where it is."""
    attacher = Attacher(module, policy)
    mode = attacher.attach(nic).xdp
    attacher.xdp_paused = True
    assert attacher.attach(nic).xdp is xdp_mode(nic) is XdpMode.OFF
    assert Hook.INGRESS in hooks(nic)
    attacher.xdp_paused = False
    assert attacher.attach(nic).xdp is xdp_mode(nic) is mode


def test_attaching_again_changes_nothing(module: Module, nic: Attachment) -> None:
    attacher = Attacher(module, XdpPolicy.AUTO)
    assert attacher.attach(nic) == attacher.attach(nic)


def test_detaching_leaves_nothing(module: Module, nic: Attachment) -> None:
    Attacher(module, XdpPolicy.AUTO).attach(nic)
    assert detach(nic)
    assert (xdp_mode(nic), hooks(nic)) == (XdpMode.OFF, set())
    assert "clsact" not in qdiscs("nic1")
    assert not detach(nic)


def test_detaching_leaves_the_hooks_to_programs_of_others(
    module: Module, nic: Attachment, monkeypatch: pytest.MonkeyPatch
) -> None:
    Attacher(module, XdpPolicy.AUTO).attach(nic)
    with monkeypatch.context() as another, links_of("") as links:
        another.setattr("ebpfmesh.datapath.links.FILTER_NAME", "another")
        fd = module.program_for_network("overlay_egress", VNI)
        links.set_filter(nic.ifindex, Hook.EGRESS, fd)
    try:
        assert detach(nic)
        assert "clsact" in qdiscs("nic1")
    finally:
        subprocess.run(["tc", "qdisc", "del", "dev", "nic1", "clsact"], check=True)


def test_both_directions_of_an_overlays_veth(module: Module) -> None:
    place = Attachment(role=Role.OVERLAY, netns="", ifindex=ifindex("gw0"), name="gw0", vni=VNI)
    Attacher(module, XdpPolicy.AUTO).attach(place)
    assert hooks(place) == {Hook.INGRESS, Hook.EGRESS}
    detach(place)
    assert hooks(place) == set()


@pytest.fixture
def container() -> Iterator[Attachment]:
    """A link whose other end asks for its neighbours like a container."""
    ip("link", "set", "gw0", "up")
    ip("link", "set", "gw1", "up")
    ip("address", "add", f"{ALICE}/24", "dev", "gw1")
    place = Attachment(role=Role.OVERLAY, netns="", ifindex=ifindex("gw0"), name="gw0", vni=VNI)
    yield place
    detach(place)
    ip("address", "flush", "dev", "gw1")


def test_a_packet_that_was_there_first_waits_no_longer(
    module: Module, container: Attachment
) -> None:
    """It waits for the MAC of a VIP, and nobody has heard the question."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP)) as wire,
    ):
        wire.bind(("gw0", ETH_P_IP))
        wire.setblocking(False)
        client.sendto(b"first", (VIP, 53))
        with pytest.raises(BlockingIOError):
            wire.recv(2048)
        Attacher(module, XdpPolicy.AUTO).attach(container, {VIP: docker_mac(VIP)})
        assert Ether(wire.recv(2048))[UDP].load == b"first"
    assert f"lladdr {docker_mac(VIP)}" in ip("neighbour", "show", VIP)


def test_an_announcement_makes_no_neighbour(module: Module, container: Attachment) -> None:
    Attacher(module, XdpPolicy.AUTO).attach(container, {"10.0.1.77": "02:42:0a:00:01:4d"})
    assert ip("neighbour", "show", "10.0.1.77") == ""


def test_a_link_that_is_down_needs_no_announcement(module: Module, container: Attachment) -> None:
    ip("link", "set", "gw0", "down")
    Attacher(module, XdpPolicy.AUTO).attach(container, {VIP: docker_mac(VIP)})
    assert hooks(container) == {Hook.INGRESS, Hook.EGRESS}


def ip(*command: str) -> str:
    return subprocess.run(["ip", *command], check=True, capture_output=True, text=True).stdout


def test_another_ones_xdp_program_stays(module: Module, nic: Attachment) -> None:
    with links_of("") as links:
        links.set_xdp(nic.ifindex, load_pass(), XdpMode.NATIVE)
        theirs = links.xdp_program(nic.ifindex)
        assert Attacher(module, XdpPolicy.AUTO).attach(nic).xdp is XdpMode.OFF
        assert detach(nic)
        assert links.xdp_program(nic.ifindex) == theirs
        links.remove_xdp(nic.ifindex)


def test_place_that_is_gone(module: Module) -> None:
    gone = Attachment(role=Role.NIC, netns="/no/such/namespace", ifindex=1, name="eth0")
    with pytest.raises(PlaceGone):
        Attacher(module, XdpPolicy.AUTO).attach(gone)
    assert not detach(gone)


def test_programs_are_known_by_name(module: Module, nic: Attachment) -> None:
    Attacher(module, XdpPolicy.AUTO).attach(nic)
    with links_of("") as links:
        assert program_name(links.xdp_program(nic.ifindex)) == "nic_xdp"
    assert program_name(2**32 - 1) == ""
