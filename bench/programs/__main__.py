# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds per packet of each program, above an empty program of its type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from bench import kernel
from bench.kernel import Shots
from bench.machine import last_cpu, no_collections, pin
from bench.node import bench_node
from bench.plot import Plot
from bench.programs.assemble import XDP, empty, restorer
from bench.programs.cases import Case, Cases
from bench.programs.world import MAX_FLOWS, Furnished, Scenario
from bench.result import Figure, Param, differences, interleaved
from bench.store import began, parser, save, say
from tests.bpf.net import NODE_A
from tests.bpf.prog_run import SkbContext, XdpContext
from tests.bpf.sandbox import ifindex

SCENARIOS = (
    Scenario(),
    Scenario(services=100),
    Scenario(services=1000),
    Scenario(backends=100),
    Scenario(backends=1000),
    Scenario(flows=100_000),
    Scenario(flows=1_000_000),
    Scenario(1000, 1000, 1_000_000),
)
CROWD = 5000
GROWTH = 1.3  # what the largest scenario may cost, over the smallest
ONE_SHOT, REPEATED = "cost above empty, one-shot", "cost above empty, repeated"


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

    def one_shot(self, case: Case, flows: int) -> tuple[float, ...]:
        """Nanoseconds above the empty program, run by run, in each round."""
        context = _context(case)
        count = self._effort.shots

        def of(fd: int) -> Callable[[], float]:
            def one_round() -> float:
                packets = self._packets(case, flows)
                with no_collections():
                    return float(median(Shots(fd, packets, context).run(count)))

            return one_round

        sides = {"program": of(case.fd), "empty": of(self._empty[case.kind])}
        found = interleaved(sides, self._rounds)
        return differences(found["program"], found["empty"])

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

    def figures(self, case: Case, scenario: Scenario) -> Iterator[Figure]:
        """All that is measured of a case in one scenario."""
        self.check(case)
        crowds = [1]
        if case.known and case.vary and scenario == Scenario():
            crowds.append(self._effort.crowd)
        for crowd in crowds:
            for number in range(crowd if crowd > 1 else 0):
                assert case.open_flow is not None
                case.open_flow(number)
            params: dict[str, Param] = {"program": case.name, **scenario.params, "of": crowd}
            target = dict(case.at_most).get(crowd) if scenario == Scenario() else None
            yield Figure(ONE_SHOT, "ns", self.one_shot(case, crowd), params, at_most=target)
        if case.restorable and scenario == Scenario():
            params = {"program": case.name, **scenario.params}
            yield Figure(REPEATED, "ns", self.repeated(case), params)


def _context(case: Case) -> XdpContext | SkbContext:
    if case.kind == XDP:
        return XdpContext(data_end=len(case.packet), ingress_ifindex=ifindex(case.device))
    return SkbContext(ifindex=ifindex(case.device))


def growth(figures: list[Figure]) -> Iterator[Figure]:
    """Each program in each larger scenario, over the smallest one."""
    base = Scenario().params
    alone = [f for f in figures if f.name == ONE_SHOT and f.params["of"] == 1]
    smallest = {f.params["program"]: f.median for f in alone if base.items() <= f.params.items()}
    for figure in alone:
        if base.items() <= figure.params.items():
            continue
        rounds = tuple(value / smallest[figure.params["program"]] for value in figure.rounds)
        params = {key: value for key, value in figure.params.items() if key != "of"}
        yield Figure("cost over the smallest scenario", "times", rounds, params, at_most=GROWTH)


PLOTS = (
    Plot(
        "cost",
        "Cost per packet above an empty program (one service, 10 backends, one-shot)",
        ONE_SHOT,
        x="program",
        where={**Scenario().params, "of": 1},
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


def main() -> None:
    """Run the bench."""
    options = parser(__doc__)
    given = options.parse_args()
    machine = began(given.note)
    pin(last_cpu())
    bench = Bench(given.rounds, QUICK if given.quick else Effort())
    scenarios = SCENARIOS[:1] if given.quick else SCENARIOS
    figures: list[Figure] = []
    with bench_node(NODE_A, MAX_FLOWS=MAX_FLOWS) as node:
        furnished = Furnished(node)
        for scenario in scenarios:
            furnished.furnish(scenario)
            for case in Cases(furnished).all():
                for figure in bench.figures(case, scenario):
                    say(figure)
                    figures.append(figure)
            save("programs", machine, [*figures, *growth(figures)], PLOTS, given.out)


if __name__ == "__main__":
    main()
