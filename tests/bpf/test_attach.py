# SPDX-License-Identifier: Apache-2.0
"""Programs on real links: which mode XDP gets, whose programs are touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpfmesh.datapath.attach import Attacher, Role, XdpPolicy, detach
from ebpfmesh.datapath.errors import PlaceGone
from ebpfmesh.datapath.links import Hook, XdpMode, links_of
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.progname import program_name
from ebpfmesh.lab.wire import load_pass
from ebpfmesh.model import Attachment

from .net import VNI
from .sandbox import ifindex


@pytest.fixture(scope="module")
def module(bpffs: Path) -> Iterator[Module]:
    opened = Module({"MAGLEV_SIZE": 31, "MAX_FLOWS": 1024}, bpffs / "attach")
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


def test_attaching_again_changes_nothing(module: Module, nic: Attachment) -> None:
    attacher = Attacher(module, XdpPolicy.AUTO)
    assert attacher.attach(nic) == attacher.attach(nic)


def test_detaching_leaves_nothing(module: Module, nic: Attachment) -> None:
    Attacher(module, XdpPolicy.AUTO).attach(nic)
    assert detach(nic)
    assert (xdp_mode(nic), hooks(nic)) == (XdpMode.OFF, set())
    assert not detach(nic)


def test_both_directions_of_an_overlays_veth(module: Module) -> None:
    place = Attachment(role=Role.OVERLAY, netns="", ifindex=ifindex("gw0"), name="gw0", vni=VNI)
    Attacher(module, XdpPolicy.AUTO).attach(place)
    assert hooks(place) == {Hook.INGRESS, Hook.EGRESS}
    detach(place)
    assert hooks(place) == set()


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
