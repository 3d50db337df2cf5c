# SPDX-License-Identifier: Apache-2.0
"""What is done in a run of chaos: a seed tells all of it. Pure, no I/O.

A step is one change of the service or of a node, and some of them are disturbed by what happens to
an agent meanwhile. Every step ends with all nodes well, so that any may follow any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from random import Random

import msgspec


class Kind(StrEnum):
    """What is done. Of a node: `node` says to which. Of the service: to whichever task."""

    ROLL = "roll"
    SCALE = "scale"
    DRAIN = "drain"
    PUBLISH = "publish"
    KILL_TASK = "kill a task"
    UNHEALTHY = "make a task unhealthy"
    FLAP = "flap"
    RESTART_AGENT = "restart the agent"
    KILL_AGENT = "kill the agent"
    UPGRADE_AGENT = "upgrade the agent"
    KILL_LEADER = "kill the leader"
    CUT_OFF = "cut off"


class Disturbance(msgspec.Struct, frozen=True):
    """What happens to the agent of a node, so long after the step began."""

    kind: Kind
    node: str
    after_s: float


class Step(msgspec.Struct, frozen=True):
    """One change; `amounts` says how much of it. `rest_s` follows."""

    kind: Kind
    node: str = ""
    amounts: tuple[int, ...] = ()
    disturbance: Disturbance | None = None
    rest_s: float = 0.0


class Cluster(msgspec.Struct, frozen=True):
    """Names of nodes; `cuttable` ones may lose their cable. Tasks: from `few` to `many`.

    Without `mortal` nodes, only tasks and agents come to harm: that is over sooner.
    """

    nodes: Sequence[str]
    cuttable: Sequence[str]
    mortal: bool = True
    few: int = 2
    many: int = 8


_WEIGHTS = {
    Kind.ROLL: 6,
    Kind.SCALE: 6,
    Kind.DRAIN: 4,
    Kind.PUBLISH: 3,
    Kind.KILL_TASK: 5,
    Kind.UNHEALTHY: 3,
    Kind.FLAP: 3,
    Kind.RESTART_AGENT: 3,
    Kind.KILL_AGENT: 3,
    Kind.UPGRADE_AGENT: 2,
    Kind.KILL_LEADER: 1,
    Kind.CUT_OFF: 1,
}
_OF_AGENTS = (Kind.RESTART_AGENT, Kind.KILL_AGENT)
_OF_SERVICE = frozenset({Kind.ROLL, Kind.SCALE, Kind.DRAIN, Kind.PUBLISH, Kind.FLAP})
_OF_NODES = frozenset({Kind.KILL_LEADER, Kind.CUT_OFF})
_DISTURBED = 0.4
_LATEST_S = 4.0
_LONGEST_REST_S = 2.0


def steps(seed: int, cluster: Cluster) -> Iterator[Step]:
    """Without an end. Each kind comes once before the first one comes again by chance."""
    random = Random(seed)  # noqa: S311 - it need not be hard to guess
    kinds = [kind for kind in _WEIGHTS if cluster.mortal or kind not in _OF_NODES]
    weights = [_WEIGHTS[kind] for kind in kinds]
    for kind in random.sample(kinds, len(kinds)):
        yield _step(random, kind, cluster)
    while True:
        yield _step(random, random.choices(kinds, weights)[0], cluster)


def _step(random: Random, kind: Kind, cluster: Cluster) -> Step:
    return Step(
        kind,
        _node(random, kind, cluster),
        _amounts(random, kind, cluster),
        _disturbance(random, kind, cluster),
        round(random.uniform(0, _LONGEST_REST_S), 2),
    )


def _node(random: Random, kind: Kind, cluster: Cluster) -> str:
    if kind is Kind.CUT_OFF:
        return random.choice(cluster.cuttable)
    if kind in {Kind.DRAIN, Kind.UPGRADE_AGENT, *_OF_AGENTS}:
        return random.choice(cluster.nodes)
    return ""


def _amounts(random: Random, kind: Kind, cluster: Cluster) -> tuple[int, ...]:
    if kind is Kind.ROLL:
        return (random.randint(1, 2),)
    if kind is Kind.FLAP:
        return (random.randint(5, 20),)
    if kind is Kind.CUT_OFF:
        return (random.randint(4, 12),)
    if kind is Kind.SCALE:
        counts = range(cluster.few, cluster.many + 1)
        return tuple(random.sample(counts, random.randint(1, 3)))
    return ()


def _disturbance(random: Random, kind: Kind, cluster: Cluster) -> Disturbance | None:
    if kind not in _OF_SERVICE or random.random() >= _DISTURBED:
        return None
    what = random.choice(_OF_AGENTS)
    return Disturbance(what, random.choice(cluster.nodes), round(random.uniform(0, _LATEST_S), 2))
