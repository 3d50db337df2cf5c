# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from bench.ipvs import readme
from bench.ipvs.figures import ADDED, OF_IPVS, PLOTS, RATE, figures
from bench.ipvs.plan import (
    DIRECT,
    EBPFMESH,
    IPVS,
    PACKET,
    ROUTER,
    SIDES,
    WORK,
    Round,
    told,
)
from bench.ipvs.swarm import ADDED as SWARM_ADDED
from bench.ipvs.swarm import OF_SWARM, OVER_SWARM
from bench.ipvs.swarm import figures as swarm_figures
from bench.lab.figures import CONNECTIONS, DATAGRAMS, REQUESTS, Report, Side
from bench.lab.figures import Path as Way
from bench.plot import series
from bench.result import Machine, Result
from tests.kernels.machine import Job, pack

SAID = """\
peer 10.0.1.2
packet 10622.0
answer 10700.5
new 10737.0
got 3
got 4
connection 192966.0
kept 46272.0
bulk 1000000.0
"""


def test_a_run_says_what_each_kind_of_work_took() -> None:
    found = told(SAID)
    assert (found.peer, found.got) == ("10.0.1.2", (3, 4))
    assert found.instructions["answer"] == 10700.5
    assert list(found.instructions) == list(WORK)


def test_a_run_that_says_less_is_refused() -> None:
    with pytest.raises(ValueError, match="not what was to be measured"):
        told(SAID.replace("kept 46272.0\n", ""))


def _round(side: str, instructions: float) -> Round:
    return Round(ROUTER, side, dict.fromkeys(WORK, instructions))


ROUNDS = [
    *(_round(DIRECT, 1000), _round(IPVS, 1500), _round(EBPFMESH, 1050)),
    *(_round(EBPFMESH, 1070), _round(IPVS, 1600), _round(DIRECT, 1020)),
]


def _found(name: str, side: str) -> tuple[float, ...]:
    everything = Result("ipvs", Machine("", "", 1, "", "", ""), tuple(figures(ROUNDS)))
    (figure,) = everything.select(name, network=ROUTER, side=side, work=WORK[PACKET])
    return figure.rounds


def test_sides_are_compared_within_a_round() -> None:
    assert _found(ADDED, EBPFMESH) == (50, 50)
    assert _found(ADDED, IPVS) == (500, 580)
    assert _found(OF_IPVS, EBPFMESH) == (50 / 500, 50 / 580)
    assert _found(RATE, EBPFMESH) == (1000 / 1050, 1020 / 1070)


def test_only_ebpfmesh_has_targets() -> None:
    aims = [f for f in figures(ROUNDS) if f.met is not None]
    assert {f.params["side"] for f in aims} == {EBPFMESH}
    assert [f.met for f in aims if f.params["work"] == WORK[PACKET]] == [True]


def test_plots_have_a_bar_for_each_side() -> None:
    everything = Result("ipvs", Machine("", "", 1, "", "", ""), tuple(figures(ROUNDS)))
    for plot in (each for each in PLOTS if not each.lines):
        (bars,) = series(plot, everything).values()
        assert [bar.params["side"] for bar in bars] == [EBPFMESH, IPVS]


def test_every_network_has_what_all_are_compared_with() -> None:
    for sides in SIDES.values():
        assert {DIRECT, IPVS, EBPFMESH} <= set(sides)


def test_ebpfmesh_is_compared_with_dockers_own() -> None:
    def reports(*done: int) -> list[Report]:
        return [Report(done=each, bytes=0, lost=0, failed=0, seconds=0.5) for each in done]

    rounds = {
        Side.DIRECT: reports(100, 110),
        Side.EBPFMESH: reports(90, 99),
        Side.SWARM: reports(30, 33),
    }
    for workload, met in ((CONNECTIONS, True), (REQUESTS, None)):
        found = swarm_figures(Way.REMOTE, workload, rounds)
        (over,) = (figure for figure in found if figure.name == OVER_SWARM)
        assert (over.rounds, over.met) == ((3, 3), met)


def test_what_is_added_is_told_of_both_and_compared() -> None:
    rounds = {
        side: [Report(done=done, bytes=0, lost=0, failed=0, seconds=0.001)]
        for side, done in ((Side.DIRECT, 100), (Side.EBPFMESH, 80), (Side.SWARM, 50))
    }
    found = list(swarm_figures(Way.MESH, DATAGRAMS, rounds))
    added = {f.params["side"]: f.median for f in found if f.name == SWARM_ADDED}
    assert added == pytest.approx({Side.EBPFMESH: 2500, Side.SWARM: 10000})
    (of_swarm,) = (f.median for f in found if f.name == OF_SWARM)
    assert of_swarm == pytest.approx(0.25)


def test_what_a_guest_shall_do_survives_its_shell(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for name in ("bpf", "ebpfmesh", "tests"):
        (checkout / name).mkdir(parents=True)
    (checkout / "pyproject.toml").write_text("")
    more = tmp_path / "more"
    more.write_text("more")
    job = Job(checkout, {"TESTS": "a -k 'b or c'"}, {"bench/more": more})
    pack(job, tmp_path / "tar")
    with tarfile.open(tmp_path / "tar") as archive:
        told_to = archive.extractfile("guest.env")
        assert told_to is not None
        assert told_to.read().decode() == """TESTS='a -k '"'"'b or c'"'"''\n"""
        assert archive.getmember("bench/more").size == 4


def test_the_readme_has_the_last_results() -> None:
    """If not: python -m bench.ipvs.readme."""
    text = readme.README.read_text()
    made = readme.table(readme.results())
    assert made in text
    assert readme.with_table(text, made) == text
    assert readme.with_table(text, "other\n") != text
