# SPDX-License-Identifier: Apache-2.0
"""A seed tells all of a run of chaos."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from tests.lab.changes.chaos.plan import Cluster, Kind, Step, steps

CLUSTER = Cluster(("node1", "node2", "node3", "node4"), ("node4",), few=2, many=8)
AGENTS = {Kind.RESTART_AGENT, Kind.KILL_AGENT}

seeds = st.integers(min_value=0, max_value=2**32)


def planned(seed: int, count: int = 60) -> list[Step]:
    return list(islice(steps(seed, CLUSTER), count))


@given(seeds)
def test_a_seed_tells_all(seed: int) -> None:
    assert planned(seed) == planned(seed)


def test_another_seed_tells_something_else() -> None:
    assert len({tuple(planned(seed)) for seed in range(20)}) == 20


@given(seeds)
def test_nothing_is_left_out(seed: int) -> None:
    assert {step.kind for step in planned(seed, len(Kind))} == set(Kind)


@given(seeds)
def test_every_step_can_be_done(seed: int) -> None:
    for step in planned(seed):
        if step.kind is Kind.CUT_OFF:
            assert step.node in CLUSTER.cuttable
        elif step.kind in AGENTS | {Kind.DRAIN, Kind.UPGRADE_AGENT}:
            assert step.node in CLUSTER.nodes
        else:
            assert step.node == ""
        if step.kind is Kind.SCALE:
            assert step.amounts
            assert all(CLUSTER.few <= count <= CLUSTER.many for count in step.amounts)
        assert step.rest_s >= 0


@given(seeds)
def test_only_agents_are_hurt_during_another_step(seed: int) -> None:
    """What takes a node or a task away needs all agents, to say what it has cost."""
    found = [step for step in planned(seed) if step.disturbance]
    for step in found:
        assert step.disturbance is not None
        assert step.disturbance.kind in AGENTS
        assert step.disturbance.node in CLUSTER.nodes
        assert step.kind not in {Kind.KILL_LEADER, Kind.CUT_OFF, Kind.KILL_TASK, *AGENTS}


@given(seeds)
def test_nodes_that_shall_live_are_left_alone(seed: int) -> None:
    gentle = Cluster(CLUSTER.nodes, (), mortal=False)
    kinds = {step.kind for step in islice(steps(seed, gentle), 60)}
    assert kinds == set(Kind) - {Kind.KILL_LEADER, Kind.CUT_OFF}
