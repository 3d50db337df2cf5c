# SPDX-License-Identifier: Apache-2.0
"""Ways to other nodes' tasks: which there should be, what is put back, what is taken out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from ebpfmesh.agent.waykeeper import WayKeeper
from ebpfmesh.agent.worker import Worker
from ebpfmesh.model import (
    Attachment,
    BackendState,
    LocalView,
    MeshState,
    Network,
    Node,
    Task,
)
from ebpfmesh.ways import LINGER_S, PATIENCE_S, Found, Goal, Way, Ways, goals

NETNS = "/ns/1-net"
ADDRESS, MAC, VTEP = "10.0.1.5", "02:42:0a:00:01:05", "192.0.2.12"
GOAL, WAY = Goal(ADDRESS, VTEP), Way(ADDRESS, MAC, VTEP)
WHOLE = Found({ADDRESS: MAC}, {MAC: VTEP})
NOTHING = Found()
WANTED = {"t1": GOAL}

LOCAL = LocalView(
    "n1", "192.0.2.11", "eth0", attachments=frozenset({Attachment("overlay", NETNS, 5, "v", 4097)})
)
MESH = MeshState(
    version=1,
    nodes={n: Node(n, n, a, a) for n, a in (("n1", "192.0.2.11"), ("n2", VTEP))},
    networks={"net": Network("net", "front", 4097)},
    tasks={"t1": Task("t1", "web", "n2", BackendState.READY, {"net": ADDRESS})},
)


def mesh_of(**changes: object) -> MeshState:
    (task,) = MESH.tasks.values()
    return msgspec.structs.replace(MESH, tasks={"t1": msgspec.structs.replace(task, **changes)})


def test_tasks_of_other_nodes_on_networks_that_this_one_has() -> None:
    assert goals(MESH, LOCAL) == {NETNS: WANTED}
    assert goals(mesh_of(state=BackendState.DRAINING), LOCAL) == {NETNS: WANTED}


@pytest.mark.parametrize(
    "changes", [{"node_id": "n1"}, {"node_id": "n9"}, {"addresses": {}}, {"state": 4}, {"state": 5}]
)
def test_no_others(changes: dict[str, object]) -> None:
    assert goals(mesh_of(**changes), LOCAL) == {NETNS: {}}


@pytest.mark.parametrize("kind", ["ingress", "encrypted"])
def test_ingress_and_encrypted_networks_are_left_alone(kind: str) -> None:
    network = msgspec.structs.replace(MESH.networks["net"], **{kind: True})
    assert goals(msgspec.structs.replace(MESH, networks={"net": network}), LOCAL) == {}


@pytest.mark.parametrize("left", [NOTHING, Found({ADDRESS: MAC}), Found({}, {MAC: VTEP})])
def test_what_is_taken_out_is_put_back_whenever_it_is(left: Found) -> None:
    ways = Ways()
    assert ways.repair(WANTED, WHOLE, 0).put == {}
    assert ways.repair(WANTED, left, 1).put == {"t1": WAY}
    assert ways.repair(WANTED, WHOLE, 2).put == {}
    assert ways.repair(WANTED, left, 3).put == {"t1": WAY}


def test_what_has_never_been_there_is_left_to_libnetwork_for_a_while() -> None:
    ways = Ways()
    for now_s in (0, PATIENCE_S - 0.1):
        assert ways.repair(WANTED, NOTHING, now_s).put == {}
    assert ways.repair(WANTED, NOTHING, PATIENCE_S).put == {"t1": WAY}


def test_the_while_begins_when_the_task_is_first_heard_of() -> None:
    ways = Ways()
    ways.repair({}, NOTHING, 0)
    ways.repair(WANTED, NOTHING, 10)
    assert ways.repair(WANTED, NOTHING, 10 + PATIENCE_S - 0.1).put == {}


def test_an_address_that_leads_elsewhere_is_left_alone_however_long() -> None:
    ways, elsewhere = Ways(), Found({ADDRESS: MAC}, {MAC: "192.0.2.13"})
    for now_s in (0, 100):
        assert ways.repair(WANTED, elsewhere, now_s).put == {}


def test_a_mac_that_is_not_made_of_the_address_is_remembered() -> None:
    ways, mac = Ways(), "02:42:ff:ff:ff:ff"
    ways.repair(WANTED, Found({ADDRESS: mac}, {mac: VTEP}), 0)
    assert ways.repair(WANTED, NOTHING, 1).put == {"t1": Way(ADDRESS, mac, VTEP)}


def test_a_task_that_is_somewhere_else_by_now_is_left_to_libnetwork() -> None:
    ways = Ways()
    ways.repair(WANTED, WHOLE, 0)
    moved = {"t1": Goal(ADDRESS, "192.0.2.13")}
    assert ways.repair(moved, NOTHING, 1).put == {}


@pytest.mark.parametrize(
    "taken", [Found({}, {MAC: "192.0.2.13"}), Found({ADDRESS: "02:42:00:00:00:01"}, {})]
)
def test_entries_of_another_are_not_replaced(taken: Found) -> None:
    ways = Ways()
    ways.repair(WANTED, WHOLE, 0)
    assert ways.repair(WANTED, taken, 1).put == {}


def kept() -> Ways:
    """One that is ours."""
    ways = Ways()
    ways.repair(WANTED, WHOLE, 0)
    ways.repair(WANTED, NOTHING, 1)
    return ways


def test_ours_are_taken_out_a_while_after_the_task_has_gone() -> None:
    ways = kept()
    assert ways.repair({}, WHOLE, 10).take == {}
    assert ways.repair({}, WHOLE, 10 + LINGER_S).take == {"t1": WAY}
    assert ways.repair({}, WHOLE, 20 + LINGER_S).take == {}


def test_a_task_that_is_back_before_keeps_its_way() -> None:
    ways = kept()
    ways.repair({}, WHOLE, 10)
    ways.repair(WANTED, WHOLE, 11)
    assert ways.repair({}, WHOLE, 10 + LINGER_S).take == {}


def test_entries_that_are_not_ours_are_never_taken_out() -> None:
    ways = Ways()
    ways.repair(WANTED, WHOLE, 0)
    ways.repair({}, WHOLE, 1)
    assert ways.repair({}, WHOLE, 100).take == {}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [({"t2": GOAL}, WHOLE), ({}, Found({ADDRESS: MAC}, {MAC: "192.0.2.13"})), ({}, NOTHING)],
)
def test_an_address_that_somebody_else_has_by_now_is_left_alone(
    wanted: dict[str, Goal], found: Found
) -> None:
    ways = kept()
    ways.repair(wanted, found, 10)
    assert ways.repair(wanted, found, 100).take == {}


@pytest.mark.parametrize(
    ("wanted", "found", "forgotten"),
    [
        pytest.param({}, Found({}, {}, frozenset({MAC})), {MAC}, id="gone"),
        pytest.param({}, Found({}, {MAC: VTEP}, frozenset({MAC})), set(), id="elsewhere"),
        pytest.param(WANTED, Found({}, {}, frozenset({MAC})), set(), id="put back"),
        pytest.param({}, NOTHING, set(), id="not learned"),
    ],
)
def test_what_was_learned_of_one_that_nobody_has_is_forgotten(
    wanted: dict[str, Goal], found: Found, forgotten: set[str]
) -> None:
    ways = Ways()
    ways.repair(WANTED, WHOLE, 0)
    assert ways.repair(wanted, found, 1).forget == forgotten


# --- the keeper -------------------------------------------------------------------------


class Kernel:
    """An overlay's namespace."""

    def __init__(self) -> None:
        self.holds = WHOLE
        self.error: OSError | None = None
        self.put_back: list[Way] = []
        self.forgotten: list[str] = []

    def found(self) -> Found:
        return self.holds

    def put(self, way: Way) -> None:
        self.put_back.append(way)
        self.holds = WHOLE

    def take(self, way: Way) -> None:
        raise AssertionError(way)

    def forget(self, mac: str) -> None:
        self.forgotten.append(mac)

    @contextmanager
    def entered(self, netns: str) -> Iterator[Kernel | None]:
        assert netns == NETNS
        if self.error:
            raise self.error
        yield self


@pytest.mark.asyncio
async def test_each_look_mends_what_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, worker = Kernel(), Worker()
    monkeypatch.setattr("ebpfmesh.agent.waykeeper.overlay_of", kernel.entered)
    keeper = WayKeeper(worker, lambda: (MESH, LOCAL))
    await keeper.look()
    assert kernel.put_back == []
    for error in (None, FileNotFoundError(), PermissionError(1, "no"), None):
        kernel.holds, kernel.error = NOTHING, error
        await keeper.look()
    kernel.holds = Found({}, {}, frozenset({MAC, "02:42:0a:00:01:09"}))
    await keeper.look()
    worker.close()
    assert kernel.put_back == [WAY, WAY, WAY]
    assert kernel.forgotten == ["02:42:0a:00:01:09"]


@pytest.mark.asyncio
async def test_nothing_is_done_before_the_swarm_and_the_node_are_known() -> None:
    for known in ((MeshState(), LOCAL), (MESH, None)):
        worker = Worker()
        await WayKeeper(worker, lambda known=known: known).look()  # type: ignore[misc]
        worker.close()
