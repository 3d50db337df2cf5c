# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import msgspec
import pytest

from bench.lab.figures import (
    CONNECTIONS,
    DOWN,
    LATENCY_OVER_DIRECT,
    OVER_DIRECT,
    Path,
    Report,
    Side,
    half,
    in_order,
    latency,
    throughput,
    troubles,
)
from bench.lab.rules import iptables, nftables
from bench.lab.scene import PORTS, PUBLISHED

TASKS = ["10.0.1.3", "10.0.1.4", "10.0.1.5"]


def report(done: int = 0, **fields: float) -> Report:
    zero = {"done": done, "bytes": 0, "lost": 0, "failed": 0, "seconds": 2.0}
    return msgspec.convert(zero | fields, Report)


def test_a_side_is_compared_with_direct_round_by_round() -> None:
    rounds = {
        Side.DIRECT: [report(200), report(400), report(100)],
        Side.EBPFMESH: [report(190), report(360), report(99)],
    }
    found = list(throughput(Path.VIP, CONNECTIONS, rounds))
    assert [figure.rounds for figure in found] == [
        (100, 200, 50),
        (95, 180, 49.5),
        (0.95, 0.9, 0.99),
    ]
    over = found[-1]
    assert over.name == OVER_DIRECT
    assert (over.median, over.least, over.most, over.met) == (0.95, 0.9, 0.99, True)


def test_only_what_has_a_target_can_miss_it() -> None:
    rounds = {Side.DIRECT: [report(100)], Side.EBPFMESH: [report(94)], Side.IPTABLES: [report(1)]}
    met = {
        (path, str(f.params["side"])): f.met
        for path in (Path.VIP, Path.MESH, Path.REMOTE)
        for f in throughput(path, CONNECTIONS, rounds)
        if f.name == OVER_DIRECT
    }
    assert {key: value for key, value in met.items() if value is not None} == {
        (Path.VIP, Side.EBPFMESH): True,
        (Path.MESH, Side.EBPFMESH): False,
    }


def test_bulk_is_in_gbit() -> None:
    (direct,) = throughput(Path.VIP, DOWN, {Side.DIRECT: [report(bytes=500_000_000)]})
    assert (direct.unit, direct.rounds) == ("Gbit/s", (2.0,))


def test_latency_has_every_percentile_and_its_ratio() -> None:
    times: dict[str, float] = {"p50_us": 10, "p90_us": 20, "p99_us": 40, "p999_us": 80}
    rounds = {
        Side.DIRECT: [report(0, **times)],
        Side.NFTABLES: [report(0, **{name: value * 1.5 for name, value in times.items()})],
    }
    found = list(latency(Path.MESH, 5000, rounds))
    direct = [f for f in found if f.params["side"] == Side.DIRECT]
    assert [(f.params["percentile"], f.median) for f in direct] == [
        ("50", 10),
        ("90", 20),
        ("99", 40),
        ("99.9", 80),
    ]
    over = [f for f in found if f.name == LATENCY_OVER_DIRECT]
    assert [f.median for f in over] == [1.5] * 4


def test_half_of_what_direct_carries() -> None:
    assert half([report(2000), report(9000), report(2400)]) == 600


def test_what_failed_is_told_and_nothing_else() -> None:
    rounds = {
        Side.DIRECT: [report(1), report(1)],
        Side.EBPFMESH: [report(1), report(1, failed=2)],
    }
    (found,) = troubles(Path.VIP, CONNECTIONS, rounds)
    assert (found.name, found.params["side"], found.rounds) == ("failed", Side.EBPFMESH, (0, 2))


def test_ratios_come_first_and_the_rest_stays_in_order() -> None:
    rounds = {side: [report(1)] for side in (Side.DIRECT, Side.EBPFMESH)}
    mixed = [
        *latency(
            Path.VIP,
            1,
            {side: [report(p50_us=1, p90_us=1, p99_us=1, p999_us=1)] for side in rounds},
        ),
        *(f for p in (Path.VIP, Path.MESH) for f in throughput(p, CONNECTIONS, rounds)),
    ]
    found = in_order(mixed)
    assert [(f.name, f.params["path"]) for f in found[:2]] == [
        (OVER_DIRECT, Path.VIP),
        (OVER_DIRECT, Path.MESH),
    ]
    assert {f.name for f in found[2:6]} == {LATENCY_OVER_DIRECT}
    assert found[6:] == [f for f in mixed if not f.name.endswith("over direct")]


def test_no_two_sides_share_a_port() -> None:
    ports = [*PORTS.values(), *PUBLISHED.values()]
    assert len(set(ports)) == len(ports)


def test_iptables_gives_each_task_as_much() -> None:
    lines = iptables("OUTPUT", "10.0.1.2", 8003, TASKS).add.splitlines()
    tcp = [line for line in lines if "-p tcp" in line]
    assert len(lines) == 2 * len(tcp) == 2 * len(TASKS)
    left, shares = 1.0, []
    for line in tcp:
        chance = float(line.partition("--probability ")[2].split()[0]) if "--prob" in line else 1.0
        shares.append(left * chance)
        left -= left * chance
    assert shares == pytest.approx([1 / 3] * 3, abs=1e-5)
    assert [line.rpartition(" ")[2] for line in tcp] == TASKS


@pytest.mark.parametrize("masquerade", [False, True])
def test_iptables_takes_away_what_it_has_added(masquerade: bool) -> None:
    made = iptables("PREROUTING", "192.0.2.12", 8003, TASKS, masquerade=masquerade)
    assert made.delete == made.add.replace("--append", "--delete")
    assert ("MASQUERADE" in made.add) == masquerade


@pytest.mark.parametrize("masquerade", [False, True])
def test_nftables_has_one_table_with_a_slot_for_each_task(masquerade: bool) -> None:
    made = nftables("prerouting", "192.0.2.12", 8004, TASKS, masquerade=masquerade)
    assert "numgen random mod 3 map { 0 : 10.0.1.3, 1 : 10.0.1.4, 2 : 10.0.1.5 }" in made.add
    assert "hook prerouting" in made.add
    assert ("masquerade" in made.add) == masquerade
    assert made.delete == "nft delete table ip bench\n"
