# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds per packet of each program, above an empty program of its type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench import kernel
from bench.kernel import Shots
from bench.machine import last_cpu, no_collections, pin
from bench.node import bench_nodes
from bench.plot import Plot
from bench.programs.assemble import XDP, empty, restorer
from bench.programs.cases import Case, Cases
from bench.programs.world import MAX_FLOWS, Furnished, Scenario
from bench.result import Figure, Machine, Param, differences, interleaved, ratios
from bench.store import began, parser, save, say
from tests.bpf.net import NODE_A
from tests.bpf.prog_run import SkbContext, XdpContext
from tests.bpf.sandbox import ifindex

SMALLEST = Scenario()
# The first one is the smallest again: how far two measures of the same are apart.
SCENARIOS = (
    SMALLEST,
    Scenario(services=100),
    Scenario(services=1000),
    Scenario(backends=100),
    Scenario(backends=1000),
    Scenario(flows=100_000),
    Scenario(flows=1_000_000),
    Scenario(1000, 1000, 1_000_000),
)
QUICK_ONES = (SMALLEST, Scenario(20, 20, 1000))
CROWD = 5000
GROWTH = 1.3  # what a program may cost in any scenario, over the smallest
ONE_SHOT, REPEATED = "cost above empty, one-shot", "cost above empty, repeated"
GROWN = "cost over the smallest case"
_EMPTY = "empty"


@dataclass(frozen=True)
class Effort:
    """How many runs a round has."""

    shots: int = 30_000
    repeats: int = 500_000
    new_flows: int = 50_000
    crowd: int = CROWD


QUICK = Effort(shots=500, repeats=5000, new_flows=500, crowd=50)


class Bench:
    """Measures one case after the other on one node."""

    def __init__(self, rounds: int, effort: Effort) -> None:
        self._rounds, self._effort = rounds, effort
        self._opened = 0
        self._empty = {kind: kernel.load(kind, empty(kind), "empty") for kind in (3, XDP)}

    def one_shot(self, cases: Mapping[str, Case], flows: int) -> dict[str, tuple[float, ...]]:
        """Nanoseconds above the empty program, run by run, in each round; all cases in turns."""
        count = self._effort.shots

        def of(case: Case, fd: int) -> Callable[[], float]:
            def one_round() -> float:
                packets = self._packets(case, flows)
                with no_collections():
                    return float(median(Shots(fd, packets, _context(case)).run(count)))

            return one_round

        sides = {name: of(case, case.fd) for name, case in cases.items()}
        one = next(iter(cases.values()))
        sides[_EMPTY] = of(one, self._empty[one.kind])
        for warm_up in sides.values():  # memory that nobody has touched yet costs more
            warm_up()
        found = interleaved(sides, self._rounds)
        floor = found.pop(_EMPTY)
        return {name: differences(rounds, floor) for name, rounds in found.items()}

    def _packets(self, case: Case, flows: int) -> list[bytes]:
        """Those of known flows come again; each new flow is another one."""
        if case.known or not case.vary:
            return case.packets(0, flows)
        self._opened += self._effort.shots
        return case.packets(self._opened, self._effort.shots)

    def repeated(self, case: Case) -> tuple[float, ...]:
        """The same, of many runs in one call behind a restorer."""
        count = self._effort.repeats if case.known else self._effort.new_flows
        vary = () if case.known else case.vary
        context = _context(case)

        def of(fd: int) -> Callable[[], float]:
            code = restorer(case.kind, case.packet, kernel.jump_table(fd), vary)
            shots = Shots(kernel.load(case.kind, code, "restorer"), [case.packet], context)
            assert fd != case.fd or shots.verdicts() == {case.verdict}
            return lambda: shots.repeat(count)

        sides = {"program": of(case.fd), "empty": of(self._empty[case.kind])}
        found = interleaved(sides, self._rounds)
        return differences(found["program"], found["empty"])

    def check(self, case: Case) -> None:
        """Opens the first flow if need be; the program must do what is to be measured."""
        if case.open_flow:
            case.open_flow(0)
        (verdict,) = Shots(case.fd, [case.packet], _context(case)).verdicts()
        assert verdict == case.verdict, f"{case.name}: verdict {verdict}, not {case.verdict}"

    def figures(self, case: Case) -> Iterator[Figure]:
        """All that is measured of a case in the smallest scenario."""
        self.check(case)
        crowds = [1]
        if case.known and case.vary:
            crowds.append(self._effort.crowd)
        for crowd in crowds:
            for number in range(crowd if crowd > 1 else 0):
                assert case.open_flow is not None
                case.open_flow(number)
            found = self.one_shot({"program": case}, crowd)["program"]
            params: dict[str, Param] = {"program": case.name, **SMALLEST.params, "of": crowd}
            target = dict(case.at_most).get(crowd)
            yield Figure(ONE_SHOT, "ns", found, params, at_most=target)
        if case.restorable:
            params = {"program": case.name, **SMALLEST.params}
            yield Figure(REPEATED, "ns", self.repeated(case), params)

    def grown(self, case: Case, least: Case, scenario: Scenario) -> Iterator[Figure]:
        """What a case costs in this scenario; and over what it costs in the smallest, in turns."""
        self.check(case)
        self.check(least)
        found = self.one_shot({"scenario": case, "smallest": least}, 1)
        params: dict[str, Param] = {"program": case.name, **scenario.params}
        yield Figure(ONE_SHOT, "ns", found["scenario"], {**params, "of": 1})
        rounds = ratios(found["scenario"], found["smallest"])
        yield Figure(GROWN, "times", rounds, params, at_most=GROWTH)


def _context(case: Case) -> XdpContext | SkbContext:
    if case.kind == XDP:
        return XdpContext(data_end=len(case.packet), ingress_ifindex=ifindex(case.device))
    return SkbContext(ifindex=ifindex(case.device))


PLOTS = (
    Plot(
        "cost",
        "Cost per packet above an empty program (one service, 10 backends, one-shot)",
        ONE_SHOT,
        x="program",
        where={**SMALLEST.params, "of": 1},
    ),
    Plot(
        "flows",
        "Cost per packet above an empty program, by other people's flows (one-shot)",
        ONE_SHOT,
        x="flows",
        lines="program",
        where={"services": 1, "backends": 10, "of": 1},
    ),
)


def in_smallest(bench: Bench, node: Furnished) -> Iterator[Figure]:
    """What each program costs where there is next to nothing beside it."""
    node.furnish(SMALLEST)
    for case in Cases(node).all():
        yield from bench.figures(case)


def in_larger(
    bench: Bench, nodes: tuple[Furnished, Furnished], scenarios: Sequence[Scenario]
) -> Iterator[Figure]:
    """What each costs in these scenarios, over the smallest, which another node has meanwhile."""
    small, large = nodes
    small.furnish(SMALLEST)
    for scenario in scenarios:
        small.forget_flows()
        large.furnish(scenario)
        for case, least in zip(Cases(large).all(), Cases(small).all(), strict=True):
            yield from bench.grown(case, least, scenario)


def keep(machine: Machine, figures: Sequence[Figure], to: Path, *, growth_only: bool) -> None:
    """Ratios apart from times: a busy machine spoils the times."""
    if not growth_only:
        save("programs", machine, [f for f in figures if f.name != GROWN], PLOTS, to)
    if grown := [f for f in figures if f.name == GROWN]:
        save("programs-growth", machine, grown, (), to)


def main() -> None:
    """Run the bench."""
    options = parser(__doc__)
    options.add_argument("--growth", action="store_true", help="only scenarios over the smallest")
    options.add_argument("--shots", type=int, help="runs in a round")
    given = options.parse_args()
    machine = began(given.note)
    pin(last_cpu())
    effort = QUICK if given.quick else Effort()
    bench = Bench(given.rounds, replace(effort, shots=given.shots or effort.shots))
    figures: list[Figure] = []
    with bench_nodes(2, NODE_A, MAX_FLOWS=MAX_FLOWS) as (one, other):
        nodes = Furnished(one), Furnished(other)
        alone = [] if given.growth else [in_smallest(bench, nodes[0])]
        beside = [
            in_larger(bench, nodes, [each]) for each in (QUICK_ONES if given.quick else SCENARIOS)
        ]
        for part in [*alone, *beside]:
            for figure in part:
                say(figure)
                figures.append(figure)
            keep(machine, figures, given.out, growth_only=given.growth)


if __name__ == "__main__":
    main()
