# SPDX-License-Identifier: Apache-2.0
"""Others hear that a task is ready when its own node's maps hold it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from ebpfmesh.agent.offers import Offers
from ebpfmesh.desired import desired_state
from ebpfmesh.model import (
    Attachment,
    Backend,
    BackendKey,
    BackendState,
    EndpointMode,
    LocalTask,
    LocalView,
    MeshState,
    Network,
    Port,
    Protocol,
    Service,
    Task,
)

READY, STARTING, DRAINING, STOPPING, GONE = BackendState
INGRESS, SHOP = BackendKey("t1", 4096), BackendKey("t1", 4097)
WEB = Service("web", "web", EndpointMode.VIP, {"shop": "10.0.1.2"}, (Port(Protocol.TCP, 8080, 80),))
TASK = Task("t1", "web", "n1", STARTING, {"net0": "10.0.0.3", "shop": "10.0.1.3"})
MESH = MeshState(
    version=1,
    networks={
        "net0": Network("net0", "ingress", 4096, ingress=True),
        "shop": Network("shop", "shop", 4097),
    },
    services={"web": WEB},
    tasks={"t1": TASK},
)
PLACES = frozenset({Attachment("overlay", "/ns/shop", 7, "veth0", 4097)})
LOCAL = LocalView(
    "n1", "192.0.2.11", "eth0", tasks={"t1": LocalTask("t1", "c1", READY)}, attachments=PLACES
)
SEEN = {"t1": READY}


def wanted(mesh: MeshState = MESH, local: LocalView = LOCAL) -> dict[BackendKey, Backend]:
    return dict(desired_state(mesh, local).backends)


@pytest.fixture
def offers() -> Offers:
    return Offers()


def test_a_task_is_ready_for_others_when_the_maps_hold_it(offers: Offers) -> None:
    assert offers.told(SEEN) == {"t1": STARTING}
    assert offers.held_back == {"t1"}
    assert offers.look(MESH, LOCAL, wanted(), wanted())
    assert offers.told(SEEN) == SEEN
    assert not offers.held_back
    assert not offers.look(MESH, LOCAL, wanted(), wanted())


@pytest.mark.parametrize("missing", [INGRESS, SHOP])
def test_on_each_of_its_networks(offers: Offers, missing: BackendKey) -> None:
    held = {key: backend for key, backend in wanted().items() if key != missing}
    assert not offers.look(MESH, LOCAL, wanted(), held)
    held[missing] = replace(wanted()[missing], state=STARTING)
    assert not offers.look(MESH, LOCAL, wanted(), held)
    assert offers.told(SEEN) == {"t1": STARTING}


def test_what_else_the_maps_lack_keeps_it_from_nobody(offers: Offers) -> None:
    """Of two tasks the maps hold one, as writing has failed after that."""
    tasks = {"t1": TASK, "t2": replace(TASK, id="t2", addresses={"shop": "10.0.1.4"})}
    mesh = replace(MESH, tasks=tasks)
    local = replace(LOCAL, tasks={**LOCAL.tasks, "t2": LocalTask("t2", "c2", READY)})
    held = {key: one for key, one in wanted(mesh, local).items() if key.task_id == "t1"}
    assert offers.look(mesh, local, wanted(mesh, local), held)
    assert offers.told({"t1": READY, "t2": READY}) == {"t1": READY, "t2": STARTING}


@pytest.mark.parametrize(
    ("service", "task", "attachments"),
    [
        (replace(WEB, mode=EndpointMode.DNSRR, vips={}, ports=()), TASK, PLACES),
        (replace(WEB, vips={}, ports=()), replace(TASK, addresses={}), PLACES),
        (replace(WEB, ports=()), replace(TASK, addresses={"shop": "10.0.1.3"}), frozenset()),
    ],
)
def test_a_task_that_no_map_shall_hold_is_ready(
    offers: Offers, service: Service, task: Task, attachments: frozenset[Attachment]
) -> None:
    """Of a service without VIP; with ports of the host alone; on a network not attached to."""
    mesh = replace(MESH, services={"web": service}, tasks={"t1": task})
    local = replace(LOCAL, attachments=attachments)
    assert wanted(mesh, local) == {}
    assert offers.look(mesh, local, {}, {})
    assert offers.told(SEEN) == SEEN


@pytest.mark.parametrize("unknown", ["tasks", "services"])
def test_the_maps_cannot_hold_what_the_swarm_has_not_listed(offers: Offers, unknown: str) -> None:
    """Else all nodes would learn of it in the same moment."""
    mesh = replace(MESH, **{unknown: {}})
    assert not offers.look(mesh, LOCAL, wanted(mesh), wanted(mesh))
    assert offers.told(SEEN) == {"t1": STARTING}


def test_that_the_swarm_has_listed_it_is_told_once(offers: Offers) -> None:
    before = replace(MESH, tasks={})
    assert not offers.awaited(before, MESH)
    offers.told(SEEN)
    assert offers.awaited(before, MESH)
    assert not offers.awaited(MESH, MESH)


@pytest.mark.parametrize("mesh", [MeshState(), replace(MESH, tasks={}), MESH])
def test_who_got_flows_before_is_ready_whatever_is_known_yet(mesh: MeshState) -> None:
    offers = Offers(["t1"])
    assert offers.told(SEEN) == SEEN
    offers.look(mesh, LOCAL, wanted(mesh), {})
    assert offers.told(SEEN) == SEEN


def test_one_that_drains_by_the_swarms_will_is_still_well(offers: Offers) -> None:
    """It was served: that the maps hold it otherwise by now does not matter."""
    offers.look(MESH, LOCAL, wanted(), wanted())
    mesh = replace(MESH, tasks={"t1": replace(TASK, state=DRAINING)})
    offers.look(mesh, LOCAL, wanted(mesh), wanted())
    assert offers.told(SEEN) == SEEN
    late = Offers()
    assert late.look(mesh, LOCAL, wanted(mesh), wanted(mesh))


@pytest.mark.parametrize("state", [STARTING, DRAINING, STOPPING, GONE])
def test_worse_news_are_told_as_they_are(offers: Offers, state: BackendState) -> None:
    assert offers.told({"t1": state}) == {"t1": state}
    offers.look(MESH, LOCAL, wanted(), wanted())
    assert offers.told({"t1": state}) == {"t1": state}
    assert not offers.held_back


def test_one_that_is_well_again_waits_for_the_maps_again(offers: Offers) -> None:
    offers.look(MESH, LOCAL, wanted(), wanted())
    offers.told({"t1": DRAINING})
    assert offers.told(SEEN) == {"t1": STARTING}


def test_only_what_was_ready_when_the_maps_were_written_counts(offers: Offers) -> None:
    local = replace(LOCAL, tasks={"t1": LocalTask("t1", "c1", DRAINING)})
    assert not offers.look(MESH, local, wanted(local=local), wanted(local=local))
    assert offers.told(SEEN) == {"t1": STARTING}
