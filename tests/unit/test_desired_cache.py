# SPDX-License-Identifier: Apache-2.0
"""What is made from the last desired state is what would be made anew."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfmesh import desired_cache
from ebpfmesh.desired import desired_state
from ebpfmesh.desired_cache import DesiredCache
from ebpfmesh.model import (
    Attachment,
    BackendState,
    Desired,
    EndpointMode,
    FrontendKey,
    FrontendKind,
    Gateway,
    LocalTask,
    LocalView,
    MeshState,
    Network,
    Node,
    Port,
    Protocol,
    Service,
    Task,
)
from ebpfmesh.plan import Actual, applied, plan, plan_touched

INGRESS, NET, FAR = "ingress", "net", "far"
WEB, API, PLAIN = "web", "api", "plain"
MAC = "02:42:ac:12:00:05"
VIPS = {WEB: "10.1.0.2", API: "10.1.0.3"}
MESH = MeshState(
    version=1,
    nodes={n: Node(n, n, f"192.0.2.{i}", f"192.0.2.{i}") for i, n in enumerate(("n1", "n2"), 1)},
    networks={
        INGRESS: Network(INGRESS, INGRESS, 4096, ingress=True),
        NET: Network(NET, NET, 4097),
        FAR: Network(FAR, FAR, 4098),
    },
    services={
        WEB: Service(WEB, WEB, EndpointMode.VIP, {NET: VIPS[WEB]}, (Port(Protocol.TCP, 8080, 80),)),
        API: Service(API, API, EndpointMode.VIP, {NET: VIPS[API], FAR: "10.2.0.2"}),
        PLAIN: Service(PLAIN, PLAIN, EndpointMode.DNSRR),
    },
)
LOCAL = LocalView(
    "n1",
    "192.0.2.1",
    "eth0",
    attachments=frozenset({Attachment("overlay", "/netns", 5, "veth0", 4097)}),
)


def task(an_id: str, service: str, host: int = 10, **fields: Any) -> Task:
    addresses = {NET: f"10.1.0.{host}", INGRESS: f"10.0.0.{host}", FAR: f"10.2.0.{host}"}
    given = {"node_id": "n2", "state": BackendState.READY, **fields}
    return Task(an_id, service, addresses=addresses, **given)


def state(*tasks: Task) -> MeshState:
    return msgspec.structs.replace(MESH, tasks={t.id: t for t in tasks})


def seeing(tasks: Set[str], ended: Set[str] = frozenset()) -> LocalView:
    """Node n1's own view, with containers for these tasks."""
    gateway = Gateway("172.18.0.5", MAC, 3)
    own = {an_id: LocalTask(an_id, "c", BackendState.READY, gateway) for an_id in tasks}
    return msgspec.structs.replace(LOCAL, tasks=own, ended=frozenset(ended - tasks))


a_task = st.builds(
    task,
    st.sampled_from([f"t{n}" for n in range(5)]),
    st.sampled_from([WEB, API, PLAIN, "unknown"]),
    st.integers(2, 6),  # among them the VIPs' own
    node_id=st.sampled_from(["n1", "n2", "n3"]),
    state=st.sampled_from(BackendState),
)


some_tasks = st.sets(st.sampled_from([f"t{n}" for n in range(5)]))
a_view = st.builds(seeing, some_tasks, some_tasks)


@given(st.lists(st.tuples(st.lists(a_task, max_size=6), a_view), min_size=2, max_size=5))
def test_it_is_what_would_be_made_anew(history: list[tuple[list[Task], LocalView]]) -> None:
    cache = DesiredCache()
    for tasks, local in history:
        mesh = state(*tasks)
        assert cache.of(mesh, local) == desired_state(mesh, local)


@given(st.lists(st.tuples(st.lists(a_task, max_size=6), a_view), min_size=2, max_size=5))
def test_a_plan_of_what_is_touched_is_the_whole_plan(
    history: list[tuple[list[Task], LocalView]],
) -> None:
    cache, actual, reached, narrow = DesiredCache(), Actual(), Desired(), 0
    for tasks, local in history:
        desired = cache.of(state(*tasks), local)
        whole = plan(desired, actual, rested=actual.retired)
        if cache.touched is not None:
            assert cache.touched.since is reached
            assert plan_touched(desired, cache.touched, actual, actual.retired) == whole
            narrow += 1
        actual, reached = applied(actual, whole), desired
    assert narrow == len(history) - 1


def test_a_changed_task_touches_its_own_service() -> None:
    cache = DesiredCache()
    other = task("t2", API, 11)
    before = cache.of(state(task("t1", WEB), other), LOCAL)
    cache.of(state(task("t1", WEB, state=BackendState.DRAINING), other), LOCAL)
    touched = cache.touched
    assert touched is not None
    assert touched.since is before
    assert {key.task_id for key in touched.backends} == {"t1"}
    assert {key.service_id for key in touched.pools} == {WEB}
    assert {key.address for key in touched.frontends} == {"10.1.0.10", "10.0.0.10"}


def test_an_address_that_another_backend_has_too_stays_known() -> None:
    cache = DesiredCache()
    cache.of(state(task("t1", WEB), task("t2", API)), LOCAL)
    found = cache.of(state(task("t2", API)), LOCAL)
    assert found.frontends[FrontendKey(4097, "10.1.0.10")].kind is FrontendKind.DIRECT


def test_what_has_not_changed_is_the_same_object() -> None:
    cache = DesiredCache()
    other = task("t2", API, 11)
    before = cache.of(state(task("t1", WEB), other), LOCAL)
    after = cache.of(state(task("t1", WEB, state=BackendState.DRAINING), other), LOCAL)
    same = [key for key in after.backends if after.backends[key] is before.backends[key]]
    assert {key.task_id for key in same} == {"t2"}
    assert cache.of(state(task("t1", WEB, state=BackendState.DRAINING), other), LOCAL) is after


@pytest.mark.parametrize(
    ("mesh", "local"),
    [
        ({"services": {WEB: MESH.services[WEB]}}, {}),
        ({"networks": {NET: MESH.networks[NET]}}, {}),
        ({"nodes": {"n1": MESH.nodes["n1"]}}, {}),
        ({}, {"attachments": frozenset()}),
        ({}, {"vtep": "192.0.2.9"}),
    ],
)
def test_after_any_other_change_all_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, mesh: dict[str, Any], local: dict[str, Any]
) -> None:
    first = state(task("t0", WEB, node_id="n1"), task("t1", API, 11))
    cache = DesiredCache()
    cache.of(first, LOCAL)
    monkeypatch.delattr(desired_cache, "with_tasks_of")
    second, seen = msgspec.structs.replace(first, **mesh), msgspec.structs.replace(LOCAL, **local)
    assert cache.of(second, seen) == desired_state(second, seen)


def test_a_task_of_this_node_that_ends_unseen_is_gone() -> None:
    mesh, cache = state(task("t1", WEB, node_id="n1")), DesiredCache()
    cache.of(mesh, seeing(set()))
    gone = cache.of(mesh, seeing(set(), {"t1"}))
    assert {backend.state for backend in gone.backends.values()} == {BackendState.GONE}
