from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfmesh import plan as ops
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
    Gateway,
    Membership,
    Pool,
    PoolKey,
    Protocol,
    Scheduler,
)
from ebpfmesh.plan import Actual, Operation, applied, laid_over, plan, plan_links

ORDER = [
    ops.PutNode,
    ops.PutBackend,
    ops.PutTable,
    ops.PutPool,
    ops.PutAllowed,
    ops.PutFrontend,
    ops.PutAddress,
    ops.PutEndpoint,
    ops.PutNamespace,
    ops.DelFrontend,
    ops.DelAllowed,
    ops.DelPool,
    ops.RetireBackend,
    ops.FreeBackend,
    ops.DelAddress,
    ops.DelNode,
    ops.DelEndpoint,
    ops.DelNamespace,
]
GATEWAY = Gateway("172.18.0.3", "02:42:ac:12:00:03", 7)
POOL = PoolKey("web", 4096)
A, B, C = (BackendKey(name, 4096) for name in "abc")


def backend(
    key: BackendKey,
    state: BackendState = BackendState.READY,
    *,
    address: str = "10.0.0.3",
    vtep: str = "192.0.2.11",
    gateway: Gateway | None = None,
) -> Backend:
    return Backend(key, PoolKey("web", key.vni), address, "02:42:0a:00:00:03", vtep, state, gateway)


def one_pool(*backends: Backend, unready: frozenset[BackendKey] = frozenset()) -> Desired:
    ready = sorted(b.key for b in backends if b.state is BackendState.READY)
    return Desired(
        pools={POOL: Pool(POOL, tuple(key for key in ready if key not in unready))},
        backends={b.key: b for b in backends},
    )


def both(desired: Desired, actual: Actual, *, whole: bool = True) -> ops.Plan:
    """Maps, then links."""
    return (*plan(desired, actual, whole=whole), *plan_links(desired, actual, whole=whole))


def reached(desired: Desired, actual: Actual | None = None) -> Actual:
    actual = actual or Actual()
    return applied(actual, both(desired, actual))


addresses = st.sampled_from(["10.0.0.3", "10.0.0.4", "10.0.1.5"])
vnis = st.sampled_from([4096, 4097])
pool_keys = st.builds(PoolKey, st.sampled_from(["api", "db", "web"]), vnis)
backend_keys = st.builds(BackendKey, st.sampled_from("abcdef"), vnis)
attachments = st.builds(
    Attachment, st.just("overlay"), st.just("/ns"), st.integers(1, 3), st.just("veth0"), vnis
)
endpoint_keys = st.builds(EndpointKey, vnis, st.integers(1, 3))
endpoints = st.builds(Endpoint, addresses, st.just("02:42:0a:00:00:03"))
memberships = st.lists(st.builds(Membership, vnis, addresses), min_size=1, max_size=2).map(tuple)
backends = st.builds(
    Backend,
    backend_keys,
    pool_keys,
    addresses,
    st.just("02:42:0a:00:00:03"),
    st.sampled_from(["", "192.0.2.11"]),
    st.sampled_from(BackendState),
    st.sampled_from([None, GATEWAY]),
)
frontends = st.builds(
    Frontend,
    st.builds(FrontendKey, vnis, addresses, st.just(0), st.just(Protocol.ANY)),
    st.sampled_from(FrontendKind),
    st.none() | pool_keys,
    st.integers(0, 2),
    st.sampled_from(Scheduler),
    st.booleans(),
    st.booleans(),
)
allowed = st.dictionaries(
    pool_keys, st.frozensets(st.sampled_from(["10.0.0.0/8", "192.0.2.0/24"])), max_size=2
)


@st.composite
def desired_states(draw: st.DrawFn) -> Desired:
    """Any `Desired` whose tables name only backends it knows, each in its own pool."""
    known = {b.key: b for b in draw(st.lists(backends, max_size=8))}
    pools = {key: Pool(key) for key in draw(st.sets(pool_keys))}
    for b in known.values():
        if b.state is BackendState.READY and draw(st.booleans()):
            names = pools[b.pool].ready if b.pool in pools else ()
            pools[b.pool] = Pool(b.pool, tuple(sorted({*names, b.key})))
    for key, pool in pools.items():
        preferred = tuple(name for name in pool.ready if draw(st.booleans()))
        pools[key] = Pool(key, pool.ready, preferred, draw(st.booleans()))
    return Desired(
        frontends={f.key: f for f in draw(st.lists(frontends, max_size=4))},
        pools=pools,
        allowed=draw(allowed),
        backends=known,
        nodes=draw(st.frozensets(st.sampled_from(["192.0.2.11", "192.0.2.12"]))),
        addresses=draw(st.frozensets(addresses)),
        attachments=draw(st.frozensets(attachments, max_size=3)),
        endpoints=draw(st.dictionaries(endpoint_keys, endpoints, max_size=3)),
        namespaces=draw(st.dictionaries(st.integers(1, 4), memberships, max_size=3)),
    )


def as_desired(actual: Actual) -> Desired:
    return Desired(**{name: getattr(actual, name) for name in Desired.__struct_fields__})


def shuffled(desired: Desired) -> Desired:
    """The same, entered in the opposite order."""
    turned = {
        name: dict(reversed(getattr(desired, name).items()))
        for name in ("frontends", "pools", "allowed", "backends")
    }
    return msgspec.structs.replace(desired, **turned)


@given(st.lists(st.tuples(desired_states(), st.booleans()), max_size=4), desired_states())
def test_the_last_whole_snapshot_alone_decides(
    history: list[tuple[Desired, bool]], last: Desired
) -> None:
    actual = Actual()
    for desired, whole in history:
        actual = applied(actual, both(desired, actual, whole=whole))
    assert as_desired(reached(last, actual)) == last


@given(desired_states(), desired_states(), st.booleans())
def test_a_plan_that_was_applied_leaves_nothing_to_do(
    first: Desired, second: Desired, whole: bool
) -> None:
    before = reached(first)
    after = applied(before, both(second, before, whole=whole))
    assert both(second, after, whole=whole) == ()


@given(desired_states(), desired_states(), st.booleans())
def test_order_of_entry_does_not_matter(first: Desired, second: Desired, whole: bool) -> None:
    before = reached(first)
    there = msgspec.structs.replace(before, backends=dict(reversed(before.backends.items())))
    assert plan(second, before, whole=whole) == plan(shuffled(second), there, whole=whole)


@given(desired_states(), desired_states(), st.integers(0, 30))
def test_a_plan_that_was_cut_off_is_finished_by_the_next(
    first: Desired, second: Desired, done: int
) -> None:
    before = reached(first)
    part = applied(before, both(second, before)[:done])
    assert reached(second, part) == reached(second, before)


@given(desired_states(), desired_states())
def test_operations_are_in_order_and_removals_last(first: Desired, second: Desired) -> None:
    before = reached(first)
    kinds = [ORDER.index(type(op)) for op in plan(second, before, rested=before.backends.keys())]
    assert all(one <= other for one, other in pairwise(kinds))


@given(desired_states(), desired_states())
def test_a_partial_snapshot_removes_nothing(first: Desired, second: Desired) -> None:
    before = reached(first)
    steps = plan(second, before, whole=False, rested=before.backends.keys())
    steps += plan_links(second, before, whole=False)
    after = applied(before, steps)
    assert not any(isinstance(step, ops.REMOVALS) for step in steps)
    for name in ("frontends", "pools", "allowed", "backends"):
        assert getattr(after, name).keys() >= getattr(before, name).keys()
    for name in ("nodes", "addresses", "attachments"):
        assert getattr(after, name) >= getattr(before, name)
        assert getattr(laid_over(second, before), name) == getattr(after, name)
    for key, pool in before.pools.items():
        assert set(pool.ready) - set(after.pools[key].ready) <= second.backends.keys()


def test_a_partial_snapshot_does_not_shrink_a_table() -> None:
    before = reached(one_pool(backend(A), backend(B)))
    assert plan(one_pool(backend(A)), before, whole=False) == ()


def test_a_partial_snapshot_grows_a_table() -> None:
    before = reached(one_pool(backend(A), backend(B)))
    after = applied(before, plan(one_pool(backend(C)), before, whole=False))
    assert after.pools[POOL].ready == (A, B, C)


@pytest.mark.parametrize("state", [BackendState.DRAINING, BackendState.GONE])
def test_a_partial_snapshot_takes_out_what_it_says_outright(state: BackendState) -> None:
    before = reached(one_pool(backend(A, gateway=GATEWAY), backend(B)))
    steps = plan(one_pool(backend(A, state)), before, whole=False)
    assert steps == (
        ops.PutBackend(backend(A, state)),
        ops.PutTable(POOL, (B,)),
        ops.PutPool(POOL, 1),
    )


def test_a_partial_snapshot_takes_out_who_is_known_to_be_unusable() -> None:
    before = reached(one_pool(backend(A), backend(B)))
    node_down = one_pool(backend(A), unready=frozenset({A}))
    after = applied(before, plan(node_down, before, whole=False))
    assert after.pools[POOL].ready == (B,)


@pytest.mark.parametrize(
    "vague", [backend(A, vtep=""), backend(A, gateway=None), backend(A, vtep="", gateway=None)]
)
def test_a_partial_snapshot_keeps_the_way_to_a_backend(vague: Backend) -> None:
    before = reached(one_pool(backend(A, gateway=GATEWAY)))
    assert plan(one_pool(vague, unready=frozenset({A})), before, whole=False) == ()
    assert plan(one_pool(vague, unready=frozenset({A})), before) != ()


def test_a_backend_with_another_address_does_not_keep_the_old_way() -> None:
    before = reached(one_pool(backend(A, gateway=GATEWAY)))
    moved = backend(A, address="10.0.0.9")
    after = applied(before, plan(one_pool(moved), before, whole=False))
    assert after.backends[A].gateway is None


def test_a_missing_backend_is_retired_and_later_freed() -> None:
    without = one_pool(backend(B))
    before = reached(one_pool(backend(A), backend(B)))
    steps = plan(without, before)
    assert steps == (ops.PutTable(POOL, (B,)), ops.PutPool(POOL, 1), ops.RetireBackend(A))
    resting = applied(before, steps)
    assert resting.retired == {A}
    assert plan(without, resting) == ()
    assert plan(without, resting, rested={A, C}) == (ops.FreeBackend(A),)
    assert applied(resting, [ops.FreeBackend(A)]).retired == frozenset()


def test_a_retired_backend_that_comes_back_is_not_freed() -> None:
    both = one_pool(backend(A), backend(B))
    resting = reached(one_pool(backend(B)), reached(both))
    steps = plan(both, resting, rested={A})
    assert ops.PutBackend(backend(A)) in steps
    assert ops.FreeBackend(A) not in steps
    assert applied(resting, steps).retired == frozenset()


def test_a_pool_that_was_adopted_gets_its_table_again() -> None:
    found = Actual(pools={POOL: Pool(POOL)})
    empty = Desired(pools={POOL: Pool(POOL)})
    assert plan(empty, found) == (ops.PutTable(POOL, ()), ops.PutPool(POOL, 0))


def test_a_pool_that_keeps_its_size_is_not_named_again() -> None:
    before = reached(one_pool(backend(A)))
    steps: tuple[Operation, ...] = plan(one_pool(backend(B)), before)
    assert steps == (
        ops.PutBackend(backend(B)),
        ops.PutTable(POOL, (B,)),
        ops.RetireBackend(A),
    )


def test_a_table_is_made_of_the_preferred_and_named_by_their_number() -> None:
    pool = Pool(POOL, (A, B, C), (B,), in_turn=True)
    desired = Desired(pools={POOL: pool}, backends={key: backend(key) for key in (A, B, C)})
    steps = plan(desired, Actual())
    assert steps[3:] == (ops.PutTable(POOL, (A, B, C), (B,), in_turn=True), ops.PutPool(POOL, 1))
    assert reached(desired).pools == {POOL: pool}


def test_a_table_of_another_kind_is_put_again() -> None:
    before = reached(one_pool(backend(A)))
    in_turn = msgspec.structs.replace(
        one_pool(backend(A)), pools={POOL: Pool(POOL, (A,), in_turn=True)}
    )
    assert plan(in_turn, before) == (ops.PutTable(POOL, (A,), in_turn=True),)


def test_a_list_is_there_before_the_frontend_that_asks_for_it_and_goes_after_it() -> None:
    key = FrontendKey(0, port=8080, protocol=Protocol.TCP)
    frontend = Frontend(key, FrontendKind.PORT, POOL, 80, restricted=True)
    networks = frozenset({"10.0.0.0/8"})
    closed = Desired(frontends={key: frontend}, allowed={POOL: networks})
    opened = Desired(frontends={key: msgspec.structs.replace(frontend, restricted=False)})
    steps = plan(closed, Actual())
    assert steps == (ops.PutAllowed(POOL, networks), ops.PutFrontend(frontend))
    steps = plan(opened, reached(closed))
    assert steps == (ops.PutFrontend(opened.frontends[key]), ops.DelAllowed(POOL))


def test_who_is_behind_a_veth_is_known_before_its_programs_look() -> None:
    place = EndpointKey(4097, 7)
    attachment = Attachment("overlay", "/ns", 7, "veth0", 4097)
    there = Endpoint("10.0.1.5", "02:42:0a:00:01:05")
    desired = Desired(endpoints={place: there}, attachments=frozenset({attachment}))
    assert both(desired, Actual()) == (ops.PutEndpoint(place, there), ops.Attach(attachment))
    other = Endpoint("10.0.1.6", "02:42:0a:00:01:06")
    moved = msgspec.structs.replace(desired, endpoints={place: other})
    assert plan(moved, reached(desired)) == (ops.PutEndpoint(place, other),)
    assert plan(Desired(), reached(desired))[0] == ops.DelEndpoint(place)


def test_sockets_are_led_once_their_vips_are_known() -> None:
    frontend = Frontend(FrontendKey(4097, "10.0.1.2"), FrontendKind.VIP, POOL)
    one, other = Membership(4097, "10.0.1.5"), Membership(4098, "10.0.2.5")
    desired = Desired(frontends={frontend.key: frontend}, namespaces={7: (one,)})
    steps = plan(desired, Actual())
    assert steps == (ops.PutFrontend(frontend), ops.PutNamespace(7, (one,)))
    joined = msgspec.structs.replace(desired, namespaces={7: (one, other)})
    assert plan(joined, reached(desired)) == (ops.PutNamespace(7, (one, other)),)
    assert plan(Desired(), reached(desired))[-1] == ops.DelNamespace(7)
    assert plan(Desired(), reached(desired), whole=False) == ()


def test_a_link_that_was_renamed_keeps_its_programs() -> None:
    before = Attachment("overlay", "/ns", 5, "veth54791af", 4097)
    after = Attachment("overlay", "/ns", 5, "veth1", 4097)
    actual = Actual(attachments=frozenset({before}))
    desired = Desired(attachments=frozenset({after}))
    assert plan_links(desired, actual) == ()


def test_programs_are_put_in_place_before_others_are_taken_off() -> None:
    here, there = (Attachment("overlay", "/ns", index, "veth", 4097) for index in (5, 7))
    actual, desired = (Actual(attachments=frozenset({one})) for one in (here, there))
    assert plan_links(desired, actual) == (ops.Attach(there), ops.Detach(here))
    assert plan_links(desired, actual, whole=False) == (ops.Attach(there),)


def test_operations_can_be_encoded() -> None:
    steps = plan(one_pool(backend(A)), Actual())
    assert msgspec.json.decode(msgspec.json.encode(steps))[0]["type"] == "PutBackend"
