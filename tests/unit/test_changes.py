from __future__ import annotations

import msgspec

from ebpfmesh.changes import Change, Names, changes
from ebpfmesh.model import (
    Attachment,
    Backend,
    BackendKey,
    BackendState,
    Desired,
    Frontend,
    FrontendKey,
    FrontendKind,
    Gateway,
    Pool,
    PoolKey,
    Protocol,
)

POOL = PoolKey("s1", 4096)
PORT = FrontendKey(0, port=8080, protocol=Protocol.TCP)
DIRECT = FrontendKey(4096, "10.0.0.5")
TASK = BackendKey("t1", 4096)
VETH = Attachment("overlay", "/run/docker/netns/1-x", 7, "veth0", 4096)
NAMES = Names({"s1": "web"}, {4096: "ingress"}, {"192.0.2.11": "node1"})
WEB = {"service": "web", "network": "ingress"}
BACKEND = {**WEB, "task": "t1", "address": "10.0.0.5", "node": "node1"}


def a_backend(**fields: object) -> Backend:
    backend = Backend(TASK, POOL, "10.0.0.5", "02:42::", "192.0.2.11", BackendState.READY)
    return msgspec.structs.replace(backend, **fields)


def held(**fields: object) -> Desired:
    state = Desired(
        frontends={
            PORT: Frontend(PORT, FrontendKind.PORT, POOL, 80),
            DIRECT: Frontend(DIRECT, FrontendKind.DIRECT),
        },
        pools={POOL: Pool(POOL)},
        backends={TASK: a_backend()},
        nodes=frozenset({"192.0.2.11"}),
        attachments=frozenset({VETH}),
    )
    return msgspec.structs.replace(state, **fields)


def test_what_comes() -> None:
    assert list(changes(Desired(), held(), NAMES)) == [
        Change("node.added", {"node": "node1", "vtep": "192.0.2.11"}),
        Change("service.added", WEB),
        Change("frontend.added", {**WEB, "frontend": "tcp:8080"}),
        Change("backend.added", {**BACKEND, "state": "ready"}),
        Change("programs.attached", {"role": "overlay", "link": "veth0", "netns": VETH.netns}),
    ]


def test_what_goes_comes_last_and_in_reverse() -> None:
    assert [change.event for change in changes(held(), Desired(), NAMES)] == [
        "frontend.removed",
        "backend.gone",
        "service.removed",
        "node.removed",
        "programs.detached",
    ]


def test_what_stays_is_no_change() -> None:
    assert not list(changes(held(), held(), NAMES))


def test_a_backend_changes_its_state_and_its_place() -> None:
    draining = a_backend(state=BackendState.DRAINING)
    assert list(changes(held(), held(backends={TASK: draining}), NAMES)) == [
        Change("backend.state", {**BACKEND, "state": "draining", "was": "ready"})
    ]
    moved = a_backend(address="10.0.0.9", vtep="192.0.2.12")
    where = {"address": "10.0.0.9", "node": "192.0.2.12", "changed": "address vtep"}
    new = {**BACKEND, **where}
    assert list(changes(held(), held(backends={TASK: moved}), NAMES)) == [
        Change("backend.moved", new)
    ]


def test_what_leaves_a_backend_that_has_gone_is_no_news() -> None:
    gateway = Gateway("172.18.0.3", "02:42::", 7)
    before = held(backends={TASK: a_backend(state=BackendState.GONE, gateway=gateway)})
    after = held(backends={TASK: a_backend(state=BackendState.GONE)})
    assert not list(changes(before, after, NAMES))


def test_a_frontend_changes() -> None:
    frontends = {PORT: Frontend(PORT, FrontendKind.PORT, POOL, 81)}
    assert list(changes(held(), held(frontends=frontends), NAMES)) == [
        Change("frontend.changed", {**WEB, "frontend": "tcp:8080"})
    ]


def test_what_has_no_name_has_its_id() -> None:
    added = next(
        change for change in changes(Desired(), held(), Names()) if "task" in change.fields
    )
    assert (added.fields["service"], added.fields["network"]) == ("s1", "VNI 4096")
