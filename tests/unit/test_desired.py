from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ebpfmesh.agent.ingresswatch import IngressWatch
from ebpfmesh.desired import Severity, desired_state, mac_of, notes
from ebpfmesh.hub.protocol import Full, decode_from_hub, encode
from ebpfmesh.model import (
    Attachment,
    BackendKey,
    BackendState,
    EndpointMode,
    Frontend,
    FrontendKey,
    FrontendKind,
    Gateway,
    LocalTask,
    LocalView,
    Membership,
    MeshState,
    Network,
    Node,
    Pool,
    PoolKey,
    Port,
    Protocol,
    Scheduler,
    Service,
    Task,
)

READY, STARTING, DRAINING, STOPPING, GONE = BackendState
GATEWAY = Gateway("172.18.0.3", "02:42:ac:12:00:03", 7)
INGRESS = Network("net0", "ingress", 4096, ingress=True)
NET = Network("net1", "app", 4097)
VETH = Attachment("overlay", "/ns/1-net1", 5, "veth0", 4097)
NIC = Attachment("nic", "", 2, "eth0")
WEB = Service(
    "web",
    "shop_web",
    EndpointMode.VIP,
    {"net1": "10.0.1.2"},
    (Port(Protocol.TCP, 8080, 80), Port(Protocol.UDP, 53, 5353)),
)
NODES = {
    name: Node(name, f"host-{name}", f"198.51.100.{i}", f"192.0.2.{i}")
    for i, name in enumerate(("n1", "n2"), 11)
}
ON_INGRESS = PoolKey("web", 4096)
ON_NET = PoolKey("web", 4097)


def task(number: int, node: str, state: BackendState = READY, service: str = "web") -> Task:
    addresses = {"net0": f"10.0.0.{number}", "net1": f"10.0.1.{number}"}
    return Task(f"t{number}", service, node, state, addresses)


def mesh_of(*tasks: Task, services: tuple[Service, ...] = (WEB,), **changes: Any) -> MeshState:
    mesh = MeshState(
        1,
        NODES,
        {"net0": INGRESS, "net1": NET},
        {s.id: s for s in services},
        {t.id: t for t in tasks},
    )
    return msgspec.structs.replace(mesh, **changes)


def local_of(*tasks: LocalTask, attachments: tuple[Attachment, ...] = (VETH, NIC)) -> LocalView:
    return LocalView(
        "n1",
        "192.0.2.11",
        "eth0",
        frozenset({"192.0.2.11", "172.18.0.1"}),
        {t.id: t for t in tasks},
        frozenset(attachments),
    )


def container(
    number: int, state: BackendState = READY, gateway: Gateway | None = GATEWAY
) -> LocalTask:
    return LocalTask(
        f"t{number}", f"c{number}", state, gateway, {f"10.0.1.{number}": "02:42:ff:00:00:01"}
    )


MESH = mesh_of(task(3, "n1"), task(4, "n2"))
LOCAL = local_of(container(3))


def on(vni: int, *numbers: int) -> tuple[BackendKey, ...]:
    return tuple(BackendKey(f"t{number}", vni) for number in numbers)


def test_a_vip_service_that_publishes_ports() -> None:
    desired = desired_state(MESH, LOCAL)
    tcp = FrontendKey(0, "0.0.0.0", 8080, Protocol.TCP)
    udp = FrontendKey(0, "0.0.0.0", 53, Protocol.UDP)
    vip = FrontendKey(4097, "10.0.1.2")
    direct = [FrontendKey(4097, address) for address in ("10.0.1.3", "10.0.1.4")]
    assert desired.frontends == {
        tcp: Frontend(tcp, FrontendKind.PORT, ON_INGRESS, 80),
        udp: Frontend(udp, FrontendKind.PORT, ON_INGRESS, 5353),
        vip: Frontend(vip, FrontendKind.VIP, ON_NET),
        **{key: Frontend(key, FrontendKind.DIRECT) for key in direct},
    }
    assert desired.pools == {
        ON_INGRESS: Pool(ON_INGRESS, on(4096, 3, 4)),
        ON_NET: Pool(ON_NET, on(4097, 3, 4)),
    }
    assert desired.backends.keys() == {*on(4096, 3, 4), *on(4097, 3, 4)}
    assert desired.nodes == {"192.0.2.11", "192.0.2.12"}
    assert desired.addresses == LOCAL.addresses
    assert desired.attachments == LOCAL.attachments


def test_backends_tell_the_way() -> None:
    backends = desired_state(MESH, LOCAL).backends
    mine, mine_inside, other = (backends[key] for key in (*on(4096, 3), *on(4097, 3), *on(4096, 4)))
    assert (mine.gateway, mine_inside.gateway, other.gateway) == (GATEWAY, None, None)
    assert (mine.vtep, other.vtep) == ("192.0.2.11", "192.0.2.12")
    assert mine_inside.mac == "02:42:ff:00:00:01"
    assert (mine.mac, other.mac) == ("02:42:0a:00:00:03", "02:42:0a:00:00:04")
    assert (mine.pool, mine_inside.pool) == (ON_INGRESS, ON_NET)
    assert mine.address == "10.0.0.3"


def test_mac_of() -> None:
    assert mac_of("10.0.255.16") == "02:42:0a:00:ff:10"


def test_networks_without_an_attachment_here_take_no_room() -> None:
    desired = desired_state(MESH, local_of(container(3), attachments=(NIC,)))
    assert {f.kind for f in desired.frontends.values()} == {FrontendKind.PORT}
    assert desired.pools.keys() == {ON_INGRESS}
    assert {key.vni for key in desired.backends} == {4096}


def test_the_ingress_network_has_no_direct_frontends() -> None:
    inside = Attachment("overlay", "/ns/1-net0", 6, "veth1", 4096)
    desired = desired_state(MESH, local_of(container(3), attachments=(VETH, inside)))
    assert {key.vni for key in desired.frontends} == {0, 4097}


def test_a_dnsrr_service_gets_nothing() -> None:
    dnsrr = msgspec.structs.replace(WEB, mode=EndpointMode.DNSRR)
    mesh = mesh_of(task(3, "n1"), services=(dnsrr,))
    desired = desired_state(mesh, LOCAL)
    assert (desired.frontends, desired.pools, desired.backends) == ({}, {}, {})
    assert notes(mesh, LOCAL) == ()


def test_an_encrypted_ingress_is_left_to_docker() -> None:
    encrypted = msgspec.structs.replace(INGRESS, encrypted=True)
    mesh = msgspec.structs.replace(MESH, networks={"net0": encrypted, "net1": NET})
    desired = desired_state(mesh, LOCAL)
    assert desired.pools.keys() == {ON_NET}
    assert FrontendKind.PORT not in {f.kind for f in desired.frontends.values()}
    (note,) = notes(mesh, LOCAL)
    assert (note.severity, note.subject) == (Severity.WARNING, "ingress")
    assert "encrypted" in note.text


def test_without_an_ingress_network_ports_are_not_served() -> None:
    mesh = msgspec.structs.replace(MESH, networks={"net1": NET})
    assert desired_state(mesh, LOCAL).pools.keys() == {ON_NET}
    (note,) = notes(mesh, LOCAL)
    assert note.severity is Severity.ERROR


def test_an_encrypted_overlay_is_served() -> None:
    encrypted = msgspec.structs.replace(NET, encrypted=True)
    mesh = msgspec.structs.replace(MESH, networks={"net0": INGRESS, "net1": encrypted})
    assert ON_NET in desired_state(mesh, LOCAL).pools


def test_a_network_that_is_not_known_yet_is_passed_over() -> None:
    mesh = msgspec.structs.replace(MESH, networks={"net0": INGRESS})
    assert desired_state(mesh, LOCAL).pools.keys() == {ON_INGRESS}


@pytest.mark.parametrize(
    ("swarm", "here", "result"),
    [
        (READY, READY, READY),
        (READY, DRAINING, DRAINING),
        (READY, GONE, GONE),
        (DRAINING, READY, DRAINING),
        (DRAINING, GONE, GONE),
        (GONE, READY, GONE),
    ],
)
def test_the_worse_state_counts(
    swarm: BackendState, here: BackendState, result: BackendState
) -> None:
    desired = desired_state(mesh_of(task(3, "n1", swarm)), local_of(container(3, here)))
    for vni in (4096, 4097):
        assert desired.backends[BackendKey("t3", vni)].state is result
        ready = desired.pools[PoolKey("web", vni)].ready
        assert ready == (on(vni, 3) if result is READY else ())


def test_a_task_of_this_node_without_a_container_is_gone_if_it_was_here() -> None:
    local = msgspec.structs.replace(local_of(), ended=frozenset({"t3", "t4"}))
    desired = desired_state(MESH, local)
    assert desired.backends[BackendKey("t3", 4097)].state is GONE
    assert desired.backends[BackendKey("t4", 4097)].state is READY
    assert desired.pools[ON_NET].ready == on(4097, 4)


@pytest.mark.parametrize(("swarm", "result"), [(READY, STARTING), (DRAINING, DRAINING)])
def test_a_task_that_its_node_has_not_seen_yet_has_not_started_well(
    swarm: BackendState, result: BackendState
) -> None:
    leaving = msgspec.structs.replace(task(4, "n2", DRAINING), well=True)
    desired = desired_state(mesh_of(task(3, "n1", swarm), leaving), local_of())
    assert desired.backends[BackendKey("t3", 4097)].state is result
    assert desired.pools[ON_NET].spare == (on(4097, 4) if result is STARTING else ())


def test_a_container_says_nothing_of_a_task_on_another_node() -> None:
    desired = desired_state(MESH, local_of(container(3), container(4, GONE)))
    assert desired.backends[BackendKey("t4", 4096)].state is READY
    assert desired.backends[BackendKey("t4", 4096)].gateway is None


def test_without_a_gateway_no_published_port_reaches_the_task() -> None:
    local = local_of(container(3, gateway=None))
    desired = desired_state(MESH, local)
    assert desired.pools[ON_INGRESS].ready == on(4096, 4)
    assert desired.pools[ON_NET].ready == on(4097, 3, 4)
    assert desired.backends[BackendKey("t3", 4096)].state is READY
    assert notes(mesh_of(task(3, "n1", DRAINING)), local) == ()
    (note,) = notes(MESH, local)
    assert (note.severity, note.subject) == (Severity.WARNING, "shop_web")
    assert "t3" in note.text


@pytest.mark.parametrize("known", [True, False])
def test_without_a_vtep_no_published_port_reaches_the_node(known: bool) -> None:
    nodes = {"n1": NODES["n1"]}
    if known:
        nodes["n2"] = msgspec.structs.replace(NODES["n2"], vtep="")
    mesh = mesh_of(task(3, "n1"), task(4, "n2"), task(5, "n2"), nodes=nodes)
    desired = desired_state(mesh, LOCAL)
    assert desired.pools[ON_INGRESS].ready == on(4096, 3)
    assert desired.pools[ON_NET].ready == on(4097, 3, 4, 5)
    assert desired.nodes == {"192.0.2.11"}
    (note,) = notes(mesh, LOCAL)
    assert note.subject == ("host-n2" if known else "n2")
    assert "2 task(s)" in note.text


def test_tasks_on_a_node_that_is_down_are_there_but_not_ready() -> None:
    nodes = {**NODES, "n2": msgspec.structs.replace(NODES["n2"], up=False)}
    desired = desired_state(msgspec.structs.replace(MESH, nodes=nodes), LOCAL)
    assert desired.pools[ON_INGRESS].ready == on(4096, 3)
    assert desired.pools[ON_NET].ready == on(4097, 3)
    assert BackendKey("t4", 4096) in desired.backends
    assert "192.0.2.12" in desired.nodes
    assert desired.lost == {"192.0.2.12"}
    assert desired_state(MESH, LOCAL).lost == frozenset()


def test_this_node_is_up_whatever_the_swarm_says() -> None:
    nodes = {**NODES, "n1": msgspec.structs.replace(NODES["n1"], up=False, vtep="")}
    desired = desired_state(msgspec.structs.replace(MESH, nodes=nodes), LOCAL)
    assert desired.pools[ON_INGRESS].ready == on(4096, 3, 4)
    assert "192.0.2.11" in desired.nodes


def test_the_lowest_service_id_gets_a_port_that_two_publish() -> None:
    other = Service("aaa", "first", EndpointMode.VIP, {}, (Port(Protocol.TCP, 8080, 1234),))
    mesh = mesh_of(task(3, "n1"), services=(WEB, other))
    frontend = desired_state(mesh, LOCAL).frontends[
        FrontendKey(0, port=8080, protocol=Protocol.TCP)
    ]
    assert (frontend.pool, frontend.target_port) == (PoolKey("aaa", 4096), 1234)
    (note,) = notes(mesh, LOCAL)
    assert (note.severity, note.subject) == (Severity.ERROR, "shop_web")
    assert "8080/tcp" in note.text
    assert "first" in note.text


def test_one_port_of_two_protocols_is_no_conflict() -> None:
    other = Service("aaa", "first", EndpointMode.VIP, {}, (Port(Protocol.UDP, 8080, 1234),))
    assert notes(mesh_of(task(3, "n1"), services=(WEB, other)), LOCAL) == ()


def test_a_vip_that_was_a_backends_address_stays_a_vip() -> None:
    stale = msgspec.structs.replace(task(3, "n1"), addresses={"net1": "10.0.1.2"})
    desired = desired_state(mesh_of(stale), LOCAL)
    assert desired.frontends[FrontendKey(4097, "10.0.1.2")].kind is FrontendKind.VIP


def test_a_service_without_tasks_has_frontends_and_empty_pools() -> None:
    desired = desired_state(mesh_of(), LOCAL)
    assert len(desired.frontends) == 3
    assert all(pool.ready == () for pool in desired.pools.values())


def test_a_task_without_an_address_on_the_network_is_no_backend_there() -> None:
    inside = msgspec.structs.replace(task(4, "n2"), addresses={"net1": "10.0.1.4"})
    desired = desired_state(mesh_of(inside), LOCAL)
    assert desired.backends.keys() == set(on(4097, 4))
    assert notes(mesh_of(inside), LOCAL) == ()


def test_nothing_known_is_nothing_desired() -> None:
    desired = desired_state(MeshState(), local_of())
    assert (desired.frontends, desired.pools, desired.backends) == ({}, {}, {})
    assert notes(MeshState(), local_of()) == ()


def labelled(**labels: str) -> Service:
    named = {f"ebpfmesh.{name}": value.replace("_", "-") for name, value in labels.items()}
    return msgspec.structs.replace(WEB, labels=named)


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("maglev", Scheduler.MAGLEV),
        ("random", Scheduler.RANDOM),
        ("rr", Scheduler.RR),
        ("least-conn", Scheduler.LEAST_CONN),
    ],
)
def test_scheduler_goes_to_every_frontend_and_pool(name: str, scheduler: Scheduler) -> None:
    service = labelled(scheduler=name)
    desired = desired_state(mesh_of(task(3, "n1"), task(4, "n2"), services=(service,)), LOCAL)
    balanced = [f for f in desired.frontends.values() if f.kind is not FrontendKind.DIRECT]
    assert [f.scheduler for f in balanced] == [scheduler] * 3
    in_turn = scheduler is not Scheduler.MAGLEV
    assert [pool.in_turn for pool in desired.pools.values()] == [in_turn] * 2


def test_affinity_goes_to_every_frontend() -> None:
    desired = desired_state(mesh_of(services=(labelled(affinity="client-ip"),)), LOCAL)
    assert [f.affinity for f in desired.frontends.values()] == [True] * 3
    assert not any(pool.in_turn for pool in desired.pools.values())


def test_allowed_clients_are_those_of_published_ports_alone() -> None:
    desired = desired_state(mesh_of(services=(labelled(allow="10.0.0.0/8,192.0.2.1"),)), LOCAL)
    assert desired.allowed == {ON_INGRESS: frozenset({"10.0.0.0/8", "192.0.2.1/32"})}
    restricted = {f.kind: f.restricted for f in desired.frontends.values()}
    assert restricted == {FrontendKind.PORT: True, FrontendKind.VIP: False}


@pytest.mark.parametrize("value", ["", "nonsense", "10.0.0.0/99"])
def test_a_list_that_cannot_be_read_lets_nobody_in(value: str) -> None:
    mesh = mesh_of(services=(labelled(allow=value),))
    desired = desired_state(mesh, LOCAL)
    assert desired.allowed == {ON_INGRESS: frozenset()}
    assert desired.frontends[FrontendKey(0, port=8080, protocol=Protocol.TCP)].restricted
    (note,) = notes(mesh, LOCAL)
    assert (note.severity, note.subject) == (Severity.ERROR, "shop_web")
    assert "nobody is let in" in note.text


def test_without_a_label_nobody_is_kept_out() -> None:
    desired = desired_state(MESH, LOCAL)
    assert desired.allowed == {}
    assert not any(f.restricted for f in desired.frontends.values())


LOCALLY = mesh_of(
    *(task(n, node) for n, node in ((3, "n1"), (4, "n2"), (5, "n1"), (6, "n2"))),
    services=(labelled(prefer="local"),),
)


def test_local_tasks_are_preferred() -> None:
    desired = desired_state(LOCALLY, local_of(container(3), container(5)))
    for pool, vni in ((ON_INGRESS, 4096), (ON_NET, 4097)):
        assert desired.pools[pool].ready == on(vni, 3, 4, 5, 6)
        assert desired.pools[pool].chosen == on(vni, 3, 5)
    assert desired.backends.keys() == {*on(4096, 3, 4, 5, 6), *on(4097, 3, 4, 5, 6)}


@pytest.mark.parametrize("state", [DRAINING, GONE])
def test_a_local_task_that_is_not_ready_is_not_preferred(state: BackendState) -> None:
    one_left = desired_state(LOCALLY, local_of(container(3, state), container(5)))
    assert one_left.pools[ON_NET].chosen == on(4097, 5)
    assert one_left.pools[ON_NET].ready == on(4097, 4, 5, 6)
    none_left = desired_state(LOCALLY, local_of(container(3, state), container(5, state)))
    for pool, vni in ((ON_INGRESS, 4096), (ON_NET, 4097)):
        assert none_left.pools[pool].chosen == on(vni, 4, 6)


def test_a_local_task_without_a_way_from_outside_is_preferred_inside_only() -> None:
    local = local_of(container(3, gateway=None), container(5, gateway=None))
    desired = desired_state(LOCALLY, local)
    assert desired.pools[ON_INGRESS].chosen == on(4096, 4, 6)
    assert desired.pools[ON_NET].chosen == on(4097, 3, 5)


def test_preference_is_each_nodes_own() -> None:
    elsewhere = msgspec.structs.replace(local_of(), node_id="n3", vtep="192.0.2.13")
    assert desired_state(LOCALLY, elsewhere).pools[ON_NET].chosen == on(4097, 3, 4, 5, 6)


def test_without_a_label_no_task_is_preferred() -> None:
    assert desired_state(MESH, LOCAL).pools[ON_NET].chosen == on(4097, 3, 4)


def test_labels_that_are_wrong_are_noted_and_the_others_kept() -> None:
    service = labelled(scheduler="fastest", prefer="local", weigth="2")
    mesh = mesh_of(task(3, "n1"), task(4, "n2"), services=(service,))
    found = notes(mesh, LOCAL)
    assert [(note.severity, note.subject) for note in found] == [(Severity.ERROR, "shop_web")] * 2
    assert "ebpfmesh.scheduler" in found[0].text
    assert "ebpfmesh.weigth" in found[1].text
    desired = desired_state(mesh, LOCAL)
    assert desired.pools[ON_NET].chosen == on(4097, 3)
    assert not desired.pools[ON_NET].in_turn


def test_a_list_that_nobody_enforces_is_noted() -> None:
    encrypted = msgspec.structs.replace(INGRESS, encrypted=True)
    mesh = mesh_of(
        services=(labelled(allow="10.0.0.0/8"),), networks={"net0": encrypted, "net1": NET}
    )
    errors = [note for note in notes(mesh, LOCAL) if note.severity is Severity.ERROR]
    assert ["not enforced" in note.text for note in errors] == [True]


@given(st.permutations([task(n, "n1" if n % 2 else "n2") for n in range(3, 13)]))
def test_order_of_arrival_does_not_matter(tasks: list[Task]) -> None:
    desired = desired_state(mesh_of(*tasks), LOCAL)
    assert desired == desired_state(mesh_of(*sorted(tasks, key=lambda t: t.id)), LOCAL)
    assert list(desired.pools[ON_NET].ready) == sorted(desired.pools[ON_NET].ready)


def swarm_of(services: int) -> MeshState:
    """Each with ten tasks, on two networks and with a port."""
    found = tuple(
        Service(
            f"s{i:04d}",
            f"s{i}",
            EndpointMode.VIP,
            {"net1": f"10.1.{i // 250}.{i % 250}"},
            (Port(Protocol.TCP, 10000 + i, 80),),
        )
        for i in range(services)
    )
    tasks = (
        Task(
            f"t{i:05d}",
            f"s{i % services:04d}",
            "n2",
            READY,
            {"net0": f"10.2.{i // 250}.{i % 250}", "net1": f"10.3.{i // 250}.{i % 250}"},
        )
        for i in range(10 * services)
    )
    return mesh_of(*tasks, services=found)


def lines_run(mesh: MeshState) -> int:
    """How many lines of code it takes, which no other work of the machine changes."""
    count = 0

    def trace(_frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        desired = desired_state(mesh, LOCAL)
    finally:
        sys.settrace(before)
    assert len(desired.backends) == 2 * len(mesh.tasks)
    return count


def test_the_work_grows_with_services_and_tasks_not_with_their_product() -> None:
    assert lines_run(swarm_of(80)) < 2.2 * lines_run(swarm_of(40))


def test_a_worker_hears_of_an_encrypted_ingress_and_says_so_once() -> None:
    """Only managers see the option; a worker has it through the hub, and serves no port either."""
    encrypted = msgspec.structs.replace(INGRESS, encrypted=True)
    told = encode(Full(msgspec.structs.replace(MESH, networks={"net0": encrypted})), 1 << 20)
    message = decode_from_hub(told[4:])  # behind its length
    assert isinstance(message, Full)
    assert FrontendKind.PORT not in {
        f.kind for f in desired_state(message.state, LOCAL).frontends.values()
    }
    watch = IngressWatch()
    with capture_logs() as lines:
        for mesh in (message.state, message.state, MESH, MESH):
            watch.look(mesh)
    assert [line["event"] for line in lines] == ["ingress.not_served", "ingress.served"]
    assert "encrypted" in lines[0]["reason"]


# --- tasks that are starting ------------------------------------------------------------


def pools_of(*tasks: Task, local: LocalView = LOCAL) -> list[Pool]:
    pools = desired_state(mesh_of(*tasks), local).pools
    return [pools[ON_INGRESS], pools[ON_NET]]


def well(number: int, node: str) -> Task:
    """Of no more use for the Swarm, but not told to stop yet."""
    return msgspec.structs.replace(task(number, node, DRAINING), well=True)


def test_a_task_that_starts_gets_no_flows_while_others_are_ready() -> None:
    for pool in pools_of(task(3, "n1"), task(4, "n2", STARTING)):
        assert (pool.ready, pool.spare) == (on(pool.key.vni, 3), ())
    local = local_of(container(3, STARTING))
    for pool in pools_of(task(3, "n1"), task(4, "n2"), local=local):
        assert (pool.ready, pool.spare) == (on(pool.key.vni, 4), ())


def test_of_its_own_tasks_a_node_knows_best_whether_they_have_started() -> None:
    for pool in pools_of(task(3, "n1", STARTING)):
        assert pool.ready == on(pool.key.vni, 3)


@pytest.mark.parametrize(
    ("others", "spare"),
    [
        ((well(4, "n2"),), (4,)),
        ((well(4, "n2"), well(3, "n1")), (3, 4)),
        ((task(4, "n2", DRAINING),), (5,)),
        ((task(4, "n2", GONE),), (5,)),
        ((), (5,)),
    ],
)
def test_until_the_first_is_ready_the_leaving_go_on_or_the_starting_answer_for_themselves(
    others: tuple[Task, ...], spare: tuple[int, ...]
) -> None:
    desired = desired_state(mesh_of(task(5, "n2", STARTING), *others), LOCAL)
    for vni in (4096, 4097):
        pool = desired.pools[PoolKey("web", vni)]
        assert (pool.ready, pool.chosen) == ((), on(vni, *spare))
        marked = {key for key, backend in desired.backends.items() if backend.spare}
        assert marked >= set(pool.chosen)
    assert all(
        b.spare == (b.key.task_id in {f"t{n}" for n in spare}) for b in desired.backends.values()
    )


def test_a_local_task_that_was_told_to_stop_does_not_stand_in() -> None:
    local = local_of(container(3, DRAINING))
    for pool in pools_of(well(3, "n1"), task(5, "n2", STARTING), local=local):
        assert pool.chosen == on(pool.key.vni, 5)


def test_without_a_successor_nobody_stands_in() -> None:
    for pool in pools_of(well(3, "n1"), well(4, "n2")):
        assert pool.chosen == ()


def test_who_cannot_be_reached_does_not_stand_in() -> None:
    down = {**NODES, "n2": msgspec.structs.replace(NODES["n2"], up=False)}
    mesh = mesh_of(well(4, "n2"), task(5, "n2", STARTING), nodes=down)
    assert desired_state(mesh, LOCAL).pools[ON_NET].chosen == ()


def test_a_successor_counts_before_there_is_a_way_to_it() -> None:
    """Its node knows the way only when it has looked."""
    mesh = mesh_of(well(4, "n2"), task(5, "n1", STARTING))
    for pool in pools_of(*mesh.tasks.values(), local=local_of()):
        assert pool.chosen == on(pool.key.vni, 4)


# --- nodes that nobody hears ------------------------------------------------------------


def silent(*nodes: str) -> dict[str, Node]:
    return NODES | {n: msgspec.structs.replace(NODES[n], silent_ns=1) for n in nodes}


def test_tasks_on_a_silent_node_get_nothing_that_others_can_take() -> None:
    mesh = mesh_of(task(1, "n1"), task(2, "n2"), task(3, "n2", DRAINING), nodes=silent("n2"))
    local = local_of(LocalTask("t1", "c1", READY, GATEWAY))
    found = desired_state(mesh, local)
    assert found.pools[ON_INGRESS].chosen == (BackendKey("t1", 4096),)
    states = {key.task_id: b.state for key, b in found.backends.items()}
    assert states == {"t1": READY, "t2": STOPPING, "t3": STOPPING}
    assert found.lost == frozenset()


def test_where_nobody_else_is_ready_a_silent_nodes_tasks_go_on() -> None:
    mesh = mesh_of(task(1, "n1", DRAINING), task(2, "n2"), nodes=silent("n2"))
    found = desired_state(mesh, local_of(LocalTask("t1", "c1", READY, GATEWAY)))
    assert found.pools[ON_INGRESS].chosen == (BackendKey("t2", 4096),)
    assert found.backends[BackendKey("t2", 4096)].state is READY


def test_nobody_tells_a_node_that_it_is_silent_itself() -> None:
    mesh = mesh_of(task(1, "n1"), task(2, "n2"), nodes=silent("n1"))
    found = desired_state(mesh, local_of(LocalTask("t1", "c1", READY, GATEWAY)))
    assert found.backends[BackendKey("t1", 4096)].state is READY


def test_a_silent_node_is_noted_with_the_time() -> None:
    nodes = NODES | {"n2": msgspec.structs.replace(NODES["n2"], silent_ns=1_795_281_603 * 10**9)}
    (note,) = notes(mesh_of(task(1, "n1"), nodes=nodes), local_of(LocalTask("t1", "c1", READY)))[
        -1:
    ]
    assert note.severity is Severity.WARNING
    assert note.subject == "host-n2"
    assert note.text.startswith("unreachable since 2026-11-21 17:20:03 UTC")


def test_sockets_are_led_on_networks_that_have_vips() -> None:
    """The ingress network has none, nor has one that no program is attached to."""
    here, there = Membership(4097, "10.0.1.3"), Membership(4099, "10.0.3.3")
    namespaces = {7: (Membership(4096, "10.0.0.3"), here, there), 8: (there,)}
    inside = Attachment("overlay", "/ns/ingress", 7, "veth1", 4096)
    local = local_of(container(3), attachments=(VETH, NIC, inside))
    local = msgspec.structs.replace(local, namespaces=namespaces)
    assert desired_state(MESH, local).namespaces == {7: (here,)}
