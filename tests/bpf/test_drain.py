# SPDX-License-Identifier: Apache-2.0
"""Giving back on real maps: which flows are waited for."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ebpfmesh.agent.drain import PinnedNode, drain, pinned_node
from ebpfmesh.config import Config
from ebpfmesh.datapath.datapath import defines
from ebpfmesh.datapath.discover import Device
from ebpfmesh.datapath.errors import LayoutMismatch
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.object import Object
from ebpfmesh.takeover import Mode, RunSettings

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    NODE_A,
    NODE_B,
    PUBLISHED,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    tcp,
    udp,
)
from .node import TC_OK, TC_UNSPEC, Node
from .sandbox import ifindex
from .world import TABLE_SIZE, remote

INSIDE, SERVER, TASK = f"{ALICE}:4000", f"{VIP}:80", f"{WEB_1}:80"
OUTSIDE, ENTRY = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}"


@pytest.fixture(scope="module")
def config(programs_dir: Path, bpffs: Path) -> Config:
    return Config(
        pin_dir=str(bpffs / "drain"),
        object_dir=str(programs_dir),
        maglev_size=TABLE_SIZE,
        max_flows=4096,
    )


@pytest.fixture(scope="module")
def module(programs: Object, config: Config) -> Iterator[Module]:
    """As an agent of node A has left it."""
    pins = Path(config.pin_dir) / str(programs.layout)
    device = Device("nic0", ifindex("nic0"), 1500)
    opened = Module(programs, defines(config, device, NODE_A, 4789), pins)
    yield opened
    opened.close()


@pytest.fixture
def own(module: Module) -> Iterator[Node]:
    node = Node(module)
    node.node(NODE_A, NODE_B)
    node.addresses(NODE_A)
    node.vip(VIP, VNI).backends(WEB_1)
    yield node
    node.clear()


def living(own: Node) -> int:
    return PinnedNode(own.module, Config()).living()


def test_nothing_is_pinned(tmp_path: Path) -> None:
    with pinned_node(Config(pin_dir=str(tmp_path))) as node:
        assert node is None
    assert list(tmp_path.iterdir()) == []


def test_other_sizes_are_refused(config: Config, own: Node) -> None:
    other = msgspec.structs.replace(config, max_flows=2048)
    with pytest.raises(LayoutMismatch), pinned_node(other):
        pass


def test_connection_lives_until_both_sides_have_ended_it(own: Node) -> None:
    assert living(own) == 0
    own.overlay_ingress(tcp(INSIDE, SERVER))
    own.overlay_egress(tcp(TASK, INSIDE, "SA"))
    own.overlay_ingress(tcp(INSIDE, SERVER, "A"))
    assert living(own) == 1
    own.overlay_ingress(tcp(INSIDE, SERVER, "FA"))
    assert living(own) == 1
    own.overlay_egress(tcp(TASK, INSIDE, "FA"))
    assert living(own) == 0


def test_idle_flows_live_as_long_as_their_timeouts(own: Node) -> None:
    own.overlay_ingress(udp(INSIDE, SERVER))
    own.overlay_ingress(tcp(INSIDE, SERVER))
    assert living(own) == 2
    own.age("flows", 61)
    assert living(own) == 1
    own.age("flows", 120)
    assert living(own) == 0


def test_direct_flows_are_not_waited_for(own: Node) -> None:
    own.overlay_ingress(tcp(INSIDE, TASK))
    assert len(own.flows()) == 1
    assert living(own) == 0


@pytest.mark.parametrize("protocol", [socket.IPPROTO_TCP, socket.IPPROTO_UDP])
@pytest.mark.parametrize("here", [True, False], ids=["here", "elsewhere"])
def test_flow_of_a_published_port_counts_once(own: Node, protocol: int, here: bool) -> None:
    own.port(PUBLISHED, TARGET, protocol).backends(own.here() if here else remote(THERE))
    make = tcp if protocol == socket.IPPROTO_TCP else udp
    own.nic_ingress(make(OUTSIDE, ENTRY, macs=FROM_CLIENT))
    assert living(own) == 1


def test_connection_to_another_node_ends_with_its_client(own: Node) -> None:
    own.port(PUBLISHED, TARGET).backends(remote(THERE))
    for flags in ("S", "A"):
        own.nic_ingress(tcp(OUTSIDE, ENTRY, flags, macs=FROM_CLIENT))
    own.age("entries", 3600)
    assert living(own) == 1
    own.nic_ingress(tcp(OUTSIDE, ENTRY, "FA", macs=FROM_CLIENT))
    assert living(own) == 0


def test_drain_gives_new_flows_back_until_the_last_one_has_ended(config: Config, own: Node) -> None:
    own.overlay_ingress(tcp(INSIDE, SERVER))
    said: list[str] = []

    def end_it(_seconds: float) -> None:
        assert own.overlay_ingress(tcp(INSIDE, SERVER, "A")).verdict == TC_OK
        assert own.overlay_ingress(tcp(f"{ALICE}:5000", SERVER)).verdict == TC_UNSPEC
        own.overlay_ingress(tcp(INSIDE, SERVER, "R"))

    with pinned_node(config) as node:
        assert node is not None
        assert drain(node, 30, said.append, grace_s=0, sleep=end_it) == 0
        assert node.run_settings().mode is Mode.GIVING_BACK
    assert [line.partition(",")[0] for line in said] == ["1 flows left", "0 flows left"]
    assert own.reasons() == {"handback_giving_back": 1}


def test_interrupted_drain_balances_new_flows_again(own: Node) -> None:
    own.overlay_ingress(tcp(INSIDE, SERVER))

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    node = PinnedNode(own.module, Config())
    node.put_run_settings(RunSettings(Mode.SERVING, 0, 0))
    with pytest.raises(KeyboardInterrupt):
        drain(node, 30, lambda _: None, grace_s=0, sleep=interrupt)
    assert own.overlay_ingress(tcp(f"{ALICE}:5000", SERVER)).verdict == TC_OK
