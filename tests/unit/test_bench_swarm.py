# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter

from bench import gone
from bench.maglev import build, moved, names
from bench.swarm import (
    Size,
    documents,
    local_view,
    mesh,
    node_id,
    service_id,
    snapshot,
    task_id,
    without,
)
from ebpfmesh.desired import desired_state, notes
from ebpfmesh.model import FrontendKind

SMALL = Size(services=20, tasks=200, nodes=10, networks=4, publishing=5)


def test_a_made_up_swarm_is_read_like_a_real_one() -> None:
    state = mesh(SMALL)
    assert (len(state.services), len(state.tasks), len(state.nodes)) == (20, 200, 10)
    assert sum(network.ingress for network in state.networks.values()) == 1
    assert sum(bool(service.ports) for service in state.services.values()) == 4
    assert sum(node.manager for node in state.nodes.values()) == 1


def test_nobody_shares_an_address() -> None:
    state = mesh(Size())
    addresses = [a for task in state.tasks.values() for a in task.addresses.items()]
    addresses += [v for service in state.services.values() for v in service.vips.items()]
    assert len(set(addresses)) == len(addresses) == 10_000 + 2_000 + 1_000


def test_a_node_of_it_serves_all_of_it() -> None:
    state = mesh(SMALL)
    local = local_view(state, SMALL)
    desired = desired_state(state, local)
    kinds = [frontend.kind for frontend in desired.frontends.values()]
    assert kinds.count(FrontendKind.VIP) == 20
    assert kinds.count(FrontendKind.PORT) == 4
    assert kinds.count(FrontendKind.DIRECT) == 200
    assert all(len(pool.ready) == 10 for pool in desired.pools.values())
    assert notes(state, local) == ()


def test_a_task_that_is_gone_is_missed_by_its_pool_alone() -> None:
    before = mesh(SMALL)
    after = without(before, task_id(1))
    local = local_view(before, SMALL, node=9)
    old, new = desired_state(before, local).pools, desired_state(after, local).pools
    assert [len(new[key].ready) for key in new if new[key] != old[key]] == [9]
    assert after.version > before.version
    assert node_id(9) == local.node_id


def test_what_moves_is_counted_among_those_who_stay() -> None:
    backends = names(10)
    table = build(backends, 1021)
    assert moved(table, table, backends, backends) == 0
    fewer = backends[1:]
    assert 0 < moved(table, build(fewer, 1021), backends, fewer) < 0.05


def test_a_large_service_has_its_tasks_and_the_others_share_the_rest() -> None:
    size = Size(services=20, tasks=200, nodes=10, networks=4, large=67)
    counts = Counter(task.service_id for task in mesh(size).tasks.values())
    assert counts.pop(service_id(0)) == 67
    assert len(counts) == 19
    assert set(counts.values()) == {7}


def test_a_task_that_is_gone_is_listed_no_more() -> None:
    listed = snapshot(documents(SMALL))
    left = gone.without(listed, task_id(7))
    assert {doc.id for doc in listed.tasks} - {doc.id for doc in left.tasks} == {task_id(7)}
    assert (left.services, left.nodes, left.networks) == (
        listed.services,
        listed.nodes,
        listed.networks,
    )


def test_a_watch_counts_until_the_table_is_there() -> None:
    watch = gone.Watch()
    for step in ("state", "plan"):
        watch.lap(step)
    watch.stop("swap")
    before = dict(watch.cpu), watch.elapsed_ms
    watch.lap("what comes after")
    assert (watch.cpu, watch.elapsed_ms) == before
    assert list(watch.cpu) == ["state", "plan", "swap"]
    assert all(took >= 0 for took in watch.cpu.values())


def test_the_way_of_a_task_gone_is_told_by_step_and_in_all() -> None:
    rounds = [gone.Watch(), gone.Watch()]
    for number, watch in enumerate(rounds, 1):
        watch.cpu, watch.elapsed_ms = {"state": 1.0 * number, "swap": 2.0 * number}, 9.0 * number
    found = {(f.name, f.params.get("step")): f.rounds for f in gone.figures(10, 13, rounds)}
    assert found == {
        ("task gone, step by step", "state"): (1.0, 2.0),
        ("task gone, step by step", "swap"): (2.0, 4.0),
        ("task gone to table swapped, CPU time", None): (3.0, 6.0),
        ("task gone to table swapped", None): (9.0, 18.0),
    }
