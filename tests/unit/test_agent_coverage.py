# SPDX-License-Identifier: Apache-2.0
"""No task is ready before programs stand at its links."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from ebpfmesh.agent.coverage import Coverage
from ebpfmesh.datapath.discover import Sandbox
from ebpfmesh.model import Attachment, BackendState, Gateway
from ebpfmesh.swarm.local import Endpoint, LocalContainer

BOUND_S = 5.0
INGRESS, SHOP, PLAIN = "ingress0000000", "shop0000000000", "plain000000000"
NETWORKS = {INGRESS, SHOP}
ENDS = {
    INGRESS: Endpoint("10.0.0.3", "02:42:0a:00:00:03"),
    SHOP: Endpoint("10.0.1.3", "02:42:0a:00:01:03"),
}
CONTAINER = LocalContainer("c1", "t1", "web", "/ns/c1", 7, BackendState.READY, endpoints=ENDS)
GATEWAY = Gateway("172.18.0.3", "02:42:ac:12:00:03", 9)
SANDBOX = Sandbox(GATEWAY, {}, {"10.0.0.3": 4, "10.0.1.3": 6, "172.18.0.3": 9})
PLACES = (
    Attachment("overlay", "/netns/1-ingress000", 4, "veth0", 4096),
    Attachment("overlay", "/netns/3-shop000000", 6, "veth1", 4097),
    Attachment("gateway", "", 9, "veth9"),
)


class Node:
    """Looks at one container; times are seconds."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.containers = [CONTAINER]
        self.sandbox: Sandbox | None = SANDBOX
        self.coverage = Coverage(
            BOUND_S, now_s=lambda: self.now_s, wall_ns=lambda: int(self.now_s * 1e9)
        )

    def look(self, *attached: Attachment) -> float:
        args = self.containers, lambda _: self.sandbox, NETWORKS, attached
        return self.coverage.look(*args) / 1e9

    @property
    def waits(self) -> bool:
        return self.coverage.waiting == {"t1": BackendState.STARTING}


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.mark.parametrize("missing", PLACES)
def test_a_task_waits_for_each_of_its_links(node: Node, missing: Attachment) -> None:
    node.look(*(place for place in PLACES if place is not missing))
    assert node.waits
    node.look(*PLACES)
    assert not node.coverage.waiting


def test_who_is_covered_at_once_has_not_waited(node: Node) -> None:
    assert node.look(*PLACES) == 0
    assert not node.coverage.waiting


def test_the_same_number_elsewhere_is_another_link(node: Node) -> None:
    shop = replace(PLACES[1], netns="/netns/1-other00000")
    node.look(PLACES[0], shop, PLACES[2])
    assert node.waits


def test_since_when_it_has_waited_is_told_once(node: Node) -> None:
    assert node.look() == 0
    node.now_s += 0.2
    assert node.look(*PLACES) == 100.0
    assert node.look(*PLACES) == 0


def test_what_has_not_been_seen_is_not_covered(node: Node) -> None:
    node.sandbox = None
    node.look(*PLACES)
    assert node.waits


@pytest.mark.parametrize("ends", [{}, {PLAIN: Endpoint("192.168.7.3", "")}])
def test_networks_of_others_have_no_programs(node: Node, ends: dict[str, Endpoint]) -> None:
    """As a macvlan network has, or the node's own."""
    node.containers = [replace(CONTAINER, endpoints=ends)]
    node.sandbox = None
    node.look()
    assert not node.coverage.waiting


def test_it_does_not_wait_for_ever(node: Node) -> None:
    node.look()
    node.now_s += BOUND_S - 0.1
    assert node.look() == 0
    assert node.waits
    node.now_s += 0.2
    with capture_logs() as logs:
        assert node.look() == 100.0
        assert node.look() == 0
    assert not node.coverage.waiting
    assert node.coverage.overdue == {"t1"}
    assert [(log["event"], log["task"]) for log in logs] == [("task.not_covered", "t1")]
    assert node.look(*PLACES) == 0
    assert not node.coverage.overdue


def test_who_was_covered_once_stays_so(node: Node) -> None:
    """Where its links go, it goes as well: that is not for programs to say."""
    node.look(*PLACES)
    node.look()
    assert not node.coverage.waiting
    node.containers = [replace(CONTAINER, pid=8)]
    node.look()
    assert node.waits


def test_who_ends_has_not_been_covered(node: Node) -> None:
    node.look()
    node.containers = []
    assert node.look() == 0
    assert not node.coverage.waiting


def test_who_got_flows_before_is_covered(node: Node) -> None:
    node.coverage.adopt(["t1"])
    node.look()
    assert not node.coverage.waiting
