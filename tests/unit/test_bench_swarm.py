# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter

from bench.maglev import build, moved, names
from bench.swarm import Size, local_view, mesh, node_id, service_id, task_id, without
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
