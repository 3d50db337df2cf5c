# SPDX-License-Identifier: Apache-2.0
"""Plans against maps in memory: what is written where, with which ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from unittest.mock import Mock

import msgspec
import numpy as np
import pytest

from ebpfmesh.agent.reconcile import Build, Reconciler
from ebpfmesh.datapath.attach import Attached, Attacher, Role
from ebpfmesh.datapath.errors import AttachError, MapError, PlaceGone
from ebpfmesh.datapath.maps import Maps, StoredFrontend
from ebpfmesh.desired import Touched
from ebpfmesh.ids import Ids
from ebpfmesh.maglev import Table, equal_table
from ebpfmesh.model import (
    Attachment,
    Backend,
    BackendKey,
    BackendState,
    Desired,
    Endpoint,
    EndpointKey,
    Frontend,
    FrontendKey,
    FrontendKind,
    Membership,
    Pool,
    PoolKey,
)

VNI = 4097
POOL = PoolKey("service1", VNI)
VIP = FrontendKey(VNI, "10.0.1.2")
VIP_MAC = "02:42:0a:00:01:02"
NIC = Attachment(role=Role.NIC, netns="", ifindex=2, name="eth0")
VETH = Attachment(role=Role.OVERLAY, netns="/ns", ifindex=7, name="veth0", vni=VNI)


class MemoryMaps:
    """As `Maps`, in memory; it remembers what was done."""

    maglev_size = 31

    def __init__(self) -> None:
        self.stored_frontends: dict[FrontendKey, StoredFrontend] = {}
        self.stored_pools: dict[int, tuple[PoolKey, int]] = {}
        self.stored_backends: dict[int, Backend] = {}
        self.tables: dict[int, bytes] = {}
        self.batches: list[int] = []
        self.cleared: list[int] = []
        self.known_nodes: set[str] = set()
        self.own_addresses: set[str] = set()
        self.lists: dict[int, set[str]] = {}
        self.senders: dict[EndpointKey, Endpoint] = {}
        self.avoided: dict[int, int] = {}
        self.opened: list[FrontendKey] = []
        self.led: dict[int, tuple[Membership, ...]] = {}

    def avoid(self, number: int, until_s: int) -> None:
        self.avoided[number] = until_s

    def put_frontend(self, frontend: Frontend, number: int, pool: int) -> None:
        self.stored_frontends[frontend.key] = StoredFrontend(frontend, number, pool)

    def open_port(self, frontend: Frontend) -> None:
        self.opened.append(frontend.key)

    def delete_frontend(self, key: FrontendKey) -> None:
        self.stored_frontends.pop(key, None)

    def clear_frontend_counters(self, number: int) -> None:
        self.cleared.append(number)

    def frontends(self, _: Mapping[int, PoolKey]) -> list[StoredFrontend]:
        return list(self.stored_frontends.values())

    def put_pool(self, number: int, key: PoolKey, ready: int) -> None:
        self.stored_pools[number] = (key, ready)

    def delete_pool(self, number: int) -> None:
        del self.stored_pools[number]
        self.tables.pop(number, None)

    def pools(self) -> dict[int, tuple[PoolKey, int]]:
        return self.stored_pools

    def allow(self, number: int, network: str) -> None:
        self.lists.setdefault(number, set()).add(network)

    def disallow(self, number: int, network: str) -> None:
        self.lists.get(number, set()).discard(network)

    def allowed(self) -> dict[int, frozenset[str]]:
        return {number: frozenset(found) for number, found in self.lists.items() if found}

    def put_tables(self, tables: Mapping[int, bytes]) -> None:
        self.batches.append(len(tables))
        self.tables.update(tables)

    def put_backend(self, backend: Backend, number: int, _pool: int) -> None:
        self.stored_backends[number] = backend

    def clear_backend_counters(self, _number: int) -> None: ...

    def set_backend_state(self, number: int, state: BackendState) -> None:
        old = self.stored_backends[number]
        fields = {name: getattr(old, name) for name in old.__struct_fields__}
        self.stored_backends[number] = Backend(**{**fields, "state": state})

    def lose_backend(self, number: int) -> None:
        self.stored_backends[number] = msgspec.structs.replace(
            self.stored_backends[number], vtep=""
        )

    def free_backend(self, number: int) -> None:
        del self.stored_backends[number]

    def backends(self, _: Mapping[int, PoolKey]) -> dict[int, Backend]:
        return self.stored_backends

    def put_node(self, vtep: str) -> None:
        self.known_nodes.add(vtep)

    def delete_node(self, vtep: str) -> None:
        self.known_nodes.discard(vtep)

    def nodes(self) -> frozenset[str]:
        return frozenset(self.known_nodes)

    def put_address(self, address: str) -> None:
        self.own_addresses.add(address)

    def delete_address(self, address: str) -> None:
        self.own_addresses.discard(address)

    def addresses(self) -> frozenset[str]:
        return frozenset(self.own_addresses)

    def put_endpoint(self, key: EndpointKey, endpoint: Endpoint) -> None:
        self.senders[key] = endpoint

    def delete_endpoint(self, key: EndpointKey) -> None:
        self.senders.pop(key, None)

    def clear_endpoints(self) -> None:
        self.senders.clear()

    def put_namespace(self, cookie: int, networks: tuple[Membership, ...]) -> None:
        self.led[cookie] = networks

    def delete_namespace(self, cookie: int) -> None:
        self.led.pop(cookie, None)

    def namespaces(self) -> dict[int, tuple[Membership, ...]]:
        return dict(self.led)


class MemoryAttacher:
    def __init__(self, failing: Mapping[Attachment, Exception] | None = None) -> None:
        self.xdp_paused = False
        self.paused: list[tuple[Attachment, bool]] = []
        self.failing = dict(failing or {})
        self.attached: list[Attachment] = []
        self.announced: dict[Attachment, dict[str, str]] = {}

    def attach(self, attachment: Attachment, vips: Mapping[str, str] | None = None) -> Attached:
        if attachment in self.failing:
            raise self.failing[attachment]
        self.attached.append(attachment)
        self.paused.append((attachment, self.xdp_paused))
        self.announced[attachment] = dict(vips or {})
        return Attached(attachment)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def reconciler(
    maps: MemoryMaps, attacher: MemoryAttacher, clock: Clock, build: Build = equal_table
) -> Reconciler:
    ids = Ids(max_frontends=64, max_services=64, max_backends=64)
    return Reconciler(cast(Maps, maps), cast(Attacher, attacher), ids, clock, build)


def backend(task: str, state: BackendState = BackendState.READY, **fields: Any) -> Backend:
    known = {"address": "10.0.1.5", "mac": "02:42:0a:00:01:05", "vtep": "192.0.2.11"}
    return Backend(key=BackendKey(task, VNI), pool=POOL, state=state, **{**known, **fields})


def desired(*tasks: str, attachments: frozenset[Attachment] = frozenset()) -> Desired:
    backends = {b.key: b for b in map(backend, tasks)}
    return Desired(
        frontends={VIP: Frontend(VIP, FrontendKind.VIP, POOL)},
        pools={POOL: Pool(POOL, tuple(sorted(backends)))},
        backends=backends,
        nodes=frozenset({"192.0.2.11"}),
        addresses=frozenset({"192.0.2.11"}),
        attachments=attachments,
    )


@pytest.fixture
def maps() -> MemoryMaps:
    return MemoryMaps()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_maps_hold_what_is_desired(maps: MemoryMaps, clock: Clock) -> None:
    r = reconciler(maps, MemoryAttacher(), clock)
    assert r.sync(desired("a", "b"), whole=True) > 0
    assert {b.key.task_id for b in maps.stored_backends.values()} == {"a", "b"}
    assert maps.stored_pools == {1: (POOL, 2)}
    assert maps.stored_frontends[VIP].pool == 1
    assert maps.known_nodes == maps.own_addresses == {"192.0.2.11"}
    assert r.sync(desired("a", "b"), whole=True) == 0


def test_table_holds_ids_of_the_ready_backends(maps: MemoryMaps, clock: Clock) -> None:
    reconciler(maps, MemoryAttacher(), clock).sync(desired("a", "b"), whole=True)
    slots = np.frombuffer(maps.tables[1], dtype=np.uint32)
    assert len(slots) == maps.maglev_size
    assert set(slots) == set(maps.stored_backends)


def test_tables_are_swapped_in_one_batch(maps: MemoryMaps, clock: Clock) -> None:
    other = PoolKey("service2", VNI)
    both = desired("a")
    both = Desired(
        frontends=both.frontends,
        pools={**both.pools, other: Pool(other)},
        backends=both.backends,
    )
    reconciler(maps, MemoryAttacher(), clock).sync(both, whole=True)
    assert maps.batches == [2]
    assert b"" in maps.tables.values()


def test_no_more_tables_than_a_batch_has_are_in_memory(maps: MemoryMaps, clock: Clock) -> None:
    count = 600
    keys = [PoolKey(f"service{number:03d}", VNI) for number in range(count)]
    ids = Ids(max_frontends=8, max_services=count + 1, max_backends=8)
    r = Reconciler(cast(Maps, maps), cast(Attacher, MemoryAttacher()), ids, clock)
    r.sync(Desired(pools={key: Pool(key) for key in keys}), whole=True)
    assert maps.batches == [256, 256, 88]
    assert len(maps.tables) == count


def with_pool(wanted: Desired, pool: Pool) -> Desired:
    return msgspec.structs.replace(wanted, pools={POOL: pool})


def test_a_table_of_the_same_tasks_on_two_networks_is_made_once(
    maps: MemoryMaps, clock: Clock
) -> None:
    made: list[tuple[str, ...]] = []

    def build(names: tuple[str, ...], size: int) -> Table | None:
        made.append(names)
        return equal_table(names, size)

    there = PoolKey("service1", VNI + 1)
    found = [
        msgspec.structs.replace(
            backend(f"same-{n}"), key=BackendKey(f"same-{n}", pool.vni), pool=pool
        )
        for n in range(2)
        for pool in (POOL, there)
    ]
    wanted = Desired(
        pools={
            p: Pool(p, tuple(sorted(b.key for b in found if b.pool == p))) for p in (POOL, there)
        },
        backends={b.key: b for b in found},
    )
    r = reconciler(maps, MemoryAttacher(), clock, build)
    r.sync(wanted, whole=True)
    assert made == [("same-0", "same-1")]
    ids = {
        pool: {r.ids.backends.ids[b.key] for b in found if b.pool == pool} for pool in (POOL, there)
    }
    for pool in (POOL, there):
        table = np.frombuffer(maps.tables[r.ids.pools.ids[pool]], dtype=np.uint32)
        assert set(table.tolist()) == ids[pool]


def test_table_in_turn_has_the_backends_again_and_again(maps: MemoryMaps, clock: Clock) -> None:
    keys = tuple(BackendKey(task, VNI) for task in "abc")
    wanted = with_pool(desired("a", "b", "c"), Pool(POOL, keys, in_turn=True))
    r = reconciler(maps, MemoryAttacher(), clock)
    r.sync(wanted, whole=True)
    ids = [r.ids.backends.ids[key] for key in keys]
    slots = np.frombuffer(maps.tables[1], dtype=np.uint32).tolist()
    assert slots == (ids * maps.maglev_size)[: maps.maglev_size]


def test_shares_are_those_of_the_table(maps: MemoryMaps, clock: Clock) -> None:
    r = reconciler(maps, MemoryAttacher(), clock)
    r.sync(desired("a", "b", "c"), whole=True)
    slots = np.frombuffer(maps.tables[1], dtype=np.uint32).tolist()
    ids = r.ids.backends.ids
    assert r.shares[POOL] == {key: slots.count(ids[key]) / len(slots) for key in ids}
    assert {type(share) for share in r.shares[POOL].values()} == {float}  # others cannot be sent
    keys = tuple(BackendKey(task, VNI) for task in "abc")
    r.sync(with_pool(desired("a", "b", "c"), Pool(POOL, keys, keys[:2], in_turn=True)), whole=True)
    assert r.shares[POOL] == {keys[0]: 0.5, keys[1]: 0.5}
    r.sync(Desired(), whole=True)
    assert not r.shares


@pytest.mark.parametrize("in_turn", [True, False])
def test_table_holds_only_the_preferred(maps: MemoryMaps, clock: Clock, in_turn: bool) -> None:
    keys = tuple(BackendKey(task, VNI) for task in "abc")
    wanted = with_pool(desired("a", "b", "c"), Pool(POOL, keys, keys[1:2], in_turn))
    r = reconciler(maps, MemoryAttacher(), clock)
    r.sync(wanted, whole=True)
    assert set(np.frombuffer(maps.tables[1], dtype=np.uint32)) == {r.ids.backends.ids[keys[1]]}
    assert maps.stored_pools == {1: (POOL, 1)}


@pytest.mark.parametrize("in_turn", [True, False])
def test_nobody_in_turn_is_no_table(maps: MemoryMaps, clock: Clock, in_turn: bool) -> None:
    wanted = with_pool(desired("a"), Pool(POOL, in_turn=in_turn))
    reconciler(maps, MemoryAttacher(), clock).sync(wanted, whole=True)
    assert maps.tables == {1: b""}


def allowing(*networks: str) -> Desired:
    return msgspec.structs.replace(desired("a"), allowed={POOL: frozenset(networks)})


def test_list_of_allowed_clients(maps: MemoryMaps, clock: Clock) -> None:
    r = reconciler(maps, MemoryAttacher(), clock)
    r.sync(allowing("10.0.0.0/8", "192.0.2.0/24"), whole=True)
    assert maps.lists == {1: {"10.0.0.0/8", "192.0.2.0/24"}}
    r.sync(allowing("10.0.0.0/8", "198.51.100.7/32"), whole=True)
    assert maps.lists == {1: {"10.0.0.0/8", "198.51.100.7/32"}}
    r.sync(allowing(), whole=True)
    assert maps.allowed() == {}
    assert r.sync(allowing(), whole=True) == 0
    r.sync(allowing("10.0.0.0/8"), whole=True)
    r.sync(desired("a"), whole=True)
    assert maps.allowed() == {}


def test_restarted_agent_takes_networks_off_a_list(maps: MemoryMaps, clock: Clock) -> None:
    reconciler(maps, MemoryAttacher(), clock).sync(allowing("10.0.0.0/8", "::/0"), whole=True)
    maps.lists[7] = {"192.0.2.0/24"}  # of a pool that is no more
    again = reconciler(maps, MemoryAttacher(), clock)
    again.adopt()
    again.sync(allowing("10.0.0.0/8"), whole=True)
    assert maps.allowed() == {1: {"10.0.0.0/8"}}


def test_restarted_agent_holds_nobody_to_an_old_address(maps: MemoryMaps, clock: Clock) -> None:
    old, new = EndpointKey(VNI, 7), EndpointKey(VNI, 8)
    alice = Endpoint("10.0.1.3", "02:42:0a:00:01:03")
    r = reconciler(maps, MemoryAttacher(), clock)
    r.sync(Desired(endpoints={old: alice, new: alice}), whole=True)
    r.sync(Desired(endpoints={old: alice}), whole=True)
    assert maps.senders == {old: alice}
    again = reconciler(maps, MemoryAttacher(), clock)
    again.adopt()
    assert maps.senders == {}
    again.sync(Desired(endpoints={new: alice}), whole=True)
    assert maps.senders == {new: alice}


def test_restarted_agent_goes_on_leading_sockets_until_it_is_told_not_to(
    maps: MemoryMaps, clock: Clock
) -> None:
    networks = (Membership(VNI, "10.0.1.3"),)
    wanted = Desired(namespaces={7: networks, 8: networks})
    reconciler(maps, MemoryAttacher(), clock).sync(wanted, whole=True)
    again = reconciler(maps, MemoryAttacher(), clock)
    again.adopt()
    assert maps.led == {7: networks, 8: networks}
    again.sync(Desired(namespaces={8: networks}), whole=True)
    assert maps.led == {8: networks}
    again.sync(Desired(), whole=True)
    assert maps.led == {}


def test_restarted_agent_gives_the_same_ids(maps: MemoryMaps, clock: Clock) -> None:
    reconciler(maps, MemoryAttacher(), clock).sync(desired("b", "c"), whole=True)
    before = dict(maps.stored_backends), dict(maps.stored_frontends)
    again = reconciler(maps, MemoryAttacher(), clock)
    again.adopt()
    again.sync(desired("a", "b", "c"), whole=True)
    assert before[0].items() <= maps.stored_backends.items()
    assert maps.stored_frontends == before[1]


def test_restarted_agent_says_again_which_ports_are_open(maps: MemoryMaps, clock: Clock) -> None:
    """Maps of another shape had nowhere to say it."""
    reconciler(maps, MemoryAttacher(), clock).sync(desired("a"), whole=True)
    reconciler(maps, MemoryAttacher(), clock).adopt()
    assert set(maps.opened) == set(maps.stored_frontends)


def test_restarted_agent_keeps_counters_of_what_it_adopts(maps: MemoryMaps, clock: Clock) -> None:
    reconciler(maps, MemoryAttacher(), clock).sync(desired("a"), whole=True)
    maps.cleared.clear()
    again = reconciler(maps, MemoryAttacher(), clock)
    again.adopt()
    again.sync(desired("a"), whole=True)
    assert maps.cleared == []


def test_partial_snapshot_removes_nothing(maps: MemoryMaps, clock: Clock) -> None:
    r = reconciler(maps, MemoryAttacher(), clock)
    r.sync(desired("a", "b"), whole=True)
    before = dict(maps.stored_backends), dict(maps.stored_frontends), dict(maps.tables)
    r.sync(Desired(), whole=False)
    assert (maps.stored_backends, maps.stored_frontends, maps.tables) == before


@pytest.mark.parametrize(("down", "asked"), [(set(), True), ({"192.0.2.11"}, False)])
def test_who_was_on_a_lost_node_is_not_asked_any_more(
    maps: MemoryMaps, clock: Clock, down: set[str], asked: bool
) -> None:
    r = reconciler(maps, MemoryAttacher(), clock)
    r.sync(desired("a", "b"), whole=True)
    r.sync(msgspec.structs.replace(desired("b"), lost=frozenset(down)), whole=True)
    (gone,) = [b for b in maps.stored_backends.values() if b.state is BackendState.GONE]
    assert bool(gone.vtep) is asked


def test_news_of_an_end_need_no_plan_and_no_table(maps: MemoryMaps, clock: Clock) -> None:
    r = reconciler(maps, MemoryAttacher(), clock)
    r.sync(desired("a", "b"), whole=True)
    batches, number = len(maps.batches), r.ids.backends.ids[BackendKey("a", VNI)]
    r.tell({"a": BackendState.GONE, "unknown": BackendState.GONE})
    assert maps.stored_backends[number].state is BackendState.GONE
    assert maps.avoided.keys() == {number}
    assert maps.avoided[number] > clock.now_s
    assert len(maps.batches) == batches


def test_news_that_were_taken_back_leave_nothing(maps: MemoryMaps, clock: Clock) -> None:
    """A task that was told to stop, and goes on: nothing has changed from plan to plan."""
    r = reconciler(maps, MemoryAttacher(), clock)
    r.sync(desired("a", "b"), whole=True)
    number = r.ids.backends.ids[BackendKey("a", VNI)]
    r.tell({"a": BackendState.STOPPING})
    assert r.sync(desired("a", "b"), whole=True) == 1
    assert maps.stored_backends[number].state is BackendState.READY
    assert maps.avoided == {number: 0}
    assert r.sync(desired("a", "b"), whole=True) == 0


def test_news_of_who_is_just_being_retired_are_none(maps: MemoryMaps, clock: Clock) -> None:
    r = reconciler(maps, MemoryAttacher(), clock)
    r.sync(desired("a", "b"), whole=True)
    r.ids.backends.release(BackendKey("a", VNI), clock.now_s)
    r.tell({"a": BackendState.GONE})
    assert maps.avoided == {}


def test_news_are_not_forgotten_when_a_plan_fails(maps: MemoryMaps, clock: Clock) -> None:
    r = reconciler(maps, MemoryAttacher(), clock)
    r.sync(desired("a", "b"), whole=True)
    r.tell({"a": BackendState.STOPPING})
    maps.put_backend = Mock(side_effect=MapError("full"))  # type: ignore[method-assign]
    with pytest.raises(MapError):
        r.sync(desired("a", "b"), whole=True)
    del maps.put_backend
    assert r.sync(desired("a", "b"), whole=True) == 1


def test_who_gets_nothing_new_need_not_be_avoided(maps: MemoryMaps, clock: Clock) -> None:
    r = reconciler(maps, MemoryAttacher(), clock)
    leaving = backend("a", BackendState.DRAINING)
    r.sync(Desired(pools={POOL: Pool(POOL)}, backends={leaving.key: leaving}), whole=True)
    r.tell({"a": BackendState.READY})
    assert [b.state for b in maps.stored_backends.values()] == [BackendState.DRAINING]
    r.tell({"a": BackendState.GONE})
    assert [b.state for b in maps.stored_backends.values()] == [BackendState.GONE]
    assert maps.avoided == {}


def test_what_is_touched_is_all_that_is_compared(maps: MemoryMaps, clock: Clock) -> None:
    """As long as the maps have been brought to the state before; else it is everything."""
    first = desired("a")
    second = msgspec.structs.replace(desired("a", "b"), frontends={})
    r = reconciler(maps, MemoryAttacher(), clock)
    r.sync(first, whole=True)
    r.sync(
        second, whole=True, touched=Touched(first, pools={POOL}, backends={BackendKey("b", VNI)})
    )
    assert maps.stored_pools == {1: (POOL, 2)}
    assert maps.stored_frontends
    r.sync(second, whole=True, touched=Touched(first))
    assert not maps.stored_frontends


def test_after_an_error_everything_is_compared(maps: MemoryMaps, clock: Clock) -> None:
    class Failing(MemoryMaps):
        def put_pool(self, number: int, key: PoolKey, ready: int) -> None:
            if ready == 2:
                raise OSError("no")
            super().put_pool(number, key, ready)

    first, second = desired("a"), desired("a", "b")
    r = reconciler(failing := Failing(), MemoryAttacher(), clock)
    r.sync(first, whole=True)
    touched = Touched(first, pools={POOL}, backends={BackendKey("b", VNI)})
    with pytest.raises(OSError, match="no"):
        r.sync(second, whole=True, touched=touched)
    third = desired("a", "b", "c")
    r.sync(third, whole=True, touched=Touched(second))
    assert failing.stored_pools == {1: (POOL, 3)}


def test_gone_backend_rests_before_its_id_is_free(maps: MemoryMaps, clock: Clock) -> None:
    r = reconciler(maps, MemoryAttacher(), clock)
    r.sync(desired("a", "b"), whole=True)
    r.sync(desired("b"), whole=True)
    (gone,) = [b for b in maps.stored_backends.values() if b.state is BackendState.GONE]
    assert gone.key.task_id == "a"
    clock.now_s += 61
    r.sync(desired("b"), whole=True)
    assert [b.key.task_id for b in maps.stored_backends.values()] == ["b"]


def test_failed_attachment_holds_up_no_other(maps: MemoryMaps, clock: Clock) -> None:
    attacher = MemoryAttacher({VETH: AttachError("no such driver")})
    r = reconciler(maps, attacher, clock)
    wanted = desired("a", attachments=frozenset({NIC, VETH}))
    with pytest.raises(ExceptionGroup) as raised:
        r.attach(wanted, whole=True)
    assert [str(error) for error in raised.value.exceptions] == ["no such driver"]
    assert attacher.attached == [NIC]
    attacher.failing.clear()
    r.attach(wanted, whole=True)
    assert attacher.attached == [NIC, VETH]
    assert r.attach(wanted, whole=True) == 0


def test_a_new_link_hears_of_the_vips_of_its_network(maps: MemoryMaps, clock: Clock) -> None:
    attacher = MemoryAttacher()
    elsewhere = Attachment(role=Role.OVERLAY, netns="/other", ifindex=7, name="veth0", vni=VNI + 1)
    wanted = desired("a", attachments=frozenset({NIC, VETH, elsewhere}))
    r = reconciler(maps, attacher, clock)
    r.sync(wanted, whole=True)
    assert not attacher.announced
    r.attach(wanted, whole=True)
    assert attacher.announced == {NIC: {}, VETH: {VIP.address: VIP_MAC}, elsewhere: {}}


def test_it_hears_of_the_mac_of_dockers_own_load_balancer(maps: MemoryMaps, clock: Clock) -> None:
    attacher = MemoryAttacher()
    balancer = {EndpointKey(VNI, 0): Endpoint("10.0.1.3", "02:42:0a:00:01:03")}
    wanted = desired("a", attachments=frozenset({VETH}))
    wanted = msgspec.structs.replace(wanted, endpoints=balancer)
    r = reconciler(maps, attacher, clock)
    r.sync(wanted, whole=True)
    assert not attacher.announced
    r.attach(wanted, whole=True)
    assert attacher.announced == {VETH: {VIP.address: "02:42:0a:00:01:03"}}


def test_place_that_has_gone_is_no_failure(maps: MemoryMaps, clock: Clock) -> None:
    r = reconciler(maps, MemoryAttacher({VETH: PlaceGone("veth0")}), clock)
    r.attach(desired("a", attachments=frozenset({VETH})), whole=True)
    assert VETH not in r.actual.attachments


def test_xdp_pauses_on_the_nics(maps: MemoryMaps, clock: Clock) -> None:
    """One that has gone meanwhile keeps none of the others."""
    gone = Attachment(role=Role.NIC, netns="", ifindex=9, name="eth9")
    attacher = MemoryAttacher()
    r = reconciler(maps, attacher, clock)
    r.attach(desired("a", attachments=frozenset({NIC, VETH, gone})), whole=True)
    attacher.paused.clear()
    attacher.failing[gone] = PlaceGone("eth9")
    r.pause_xdp(paused=True)
    r.pause_xdp(paused=False)
    assert attacher.paused == [(NIC, True), (NIC, False)]
