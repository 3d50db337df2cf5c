# SPDX-License-Identifier: Apache-2.0
"""Rounds of the guest -> figures. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.ipvs.plan import (
    CONNECTION,
    DIRECT,
    EBPFMESH,
    EBPFMESH_HALF,
    IPVS,
    KEPT,
    NEW,
    OVERLAY,
    PACKET,
    ROUTER,
    SIDES,
    WORK,
    Round,
)
from bench.plot import Plot
from bench.result import Figure, Param, differences, ratios

TAKEN = "instructions, the whole guest"
ADDED = "added to direct"
OF_IPVS = "added, over what IPVS adds"
RATE = "rate, over direct"
_UNIT = "instructions"

# What ebpfmesh shall add at most, over IPVS; and its rate at least, over direct: in the router.
_OURS = (EBPFMESH, EBPFMESH_HALF)
AT_MOST = {PACKET: 0.12, NEW: 0.20}
AT_LEAST = {CONNECTION: 0.97, KEPT: 0.985}

Values = dict[tuple[str, str, str], tuple[float, ...]]


def by_side(rounds: Sequence[Round]) -> Values:
    """Place, side and kind of work -> instructions in each round."""
    found: Values = {}
    for each in rounds:
        for work, value in each.instructions.items():
            key = each.place, each.side, work
            found[key] = (*found.get(key, ()), value)
    return found


def figures(rounds: Sequence[Round]) -> list[Figure]:
    """All of them: what was taken, and each side beside direct and beside IPVS."""
    values = by_side(rounds)
    made = (_taken, _added, _of_ipvs, _rates)
    return [figure for part in made for figure in part(values)]


def _rows(values: Values) -> Iterator[tuple[str, str, str, dict[str, Param]]]:
    for place, sides in SIDES.items():
        for work, name in WORK.items():
            for side in sides:
                if (place, side, work) in values:
                    yield place, side, work, {"network": place, "work": name, "side": side}


def _taken(values: Values) -> Iterator[Figure]:
    for place, side, work, params in _rows(values):
        yield Figure(TAKEN, _UNIT, values[place, side, work], params)


def _above(values: Values, place: str, side: str, work: str) -> tuple[float, ...]:
    return differences(values[place, side, work], values[place, DIRECT, work])


def _added(values: Values) -> Iterator[Figure]:
    for place, side, work, params in _rows(values):
        if side != DIRECT:
            yield Figure(ADDED, _UNIT, _above(values, place, side, work), params)


def _of_ipvs(values: Values) -> Iterator[Figure]:
    for place, side, work, params in _rows(values):
        if side in {DIRECT, IPVS} or (place, IPVS, work) not in values:
            continue
        added, of_ipvs = (_above(values, place, each, work) for each in (side, IPVS))
        ours = side in _OURS and place == ROUTER
        target = AT_MOST.get(work) if ours else None
        yield Figure(OF_IPVS, "times", ratios(added, of_ipvs), params, at_most=target)


def _rates(values: Values) -> Iterator[Figure]:
    for place, side, work, params in _rows(values):
        if side == DIRECT:
            continue
        rate = ratios(values[place, DIRECT, work], values[place, side, work])
        ours = side in _OURS and place == ROUTER
        target = AT_LEAST.get(work) if ours else None
        yield Figure(RATE, "times", rate, params, at_least=target)


def _plot(slug: str, title: str, figure: str, work: str) -> Plot:
    where: dict[str, Param] = {"network": ROUTER, "work": WORK[work]}
    return Plot(slug, title, figure, x="side", where=where)


PLOTS = (
    _plot("packet", "Instructions added to a small UDP packet, known flow", ADDED, PACKET),
    _plot("new", "Instructions added to a UDP packet that opens a flow", ADDED, NEW),
    _plot("connection", "TCP connections per instruction, over direct", RATE, CONNECTION),
    Plot(
        "overlay",
        "Instructions added inside an overlay network: 1 is what IPVS in Swarm adds",
        OF_IPVS,
        x="work",
        lines="side",
        where={"network": OVERLAY},
        bars=True,
    ),
)
