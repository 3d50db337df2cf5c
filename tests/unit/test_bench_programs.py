# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from bench import swarm
from bench.programs.__main__ import GROWN, ONE_SHOT, SCENARIOS, SMALLEST, keep
from bench.programs.assemble import TC, XDP, Vary, empty, restorer
from bench.programs.cases import numbered
from bench.programs.world import CLIENT, MAX_FLOWS, NETWORK, others, parts
from bench.result import Figure, Machine

HERE = Machine("6.1", "a CPU", 1, "abc", "python -m bench", "2026-01-01")
PACKET = bytes(range(54))


def operations(code: bytes) -> list[tuple[int, int, int]]:
    """Opcode, offset, immediate."""
    return [(op, off, imm) for op, _, off, imm in struct.iter_unpack("<BBhi", code)]


@pytest.mark.parametrize(("kind", "verdict"), [(TC, -1), (XDP, 2)])
def test_an_empty_program_lets_packets_pass(kind: int, verdict: int) -> None:
    assert operations(empty(kind)) == [(0xB7, 0, verdict), (0x95, 0, 0)]


@pytest.mark.parametrize("kind", [TC, XDP])
def test_a_restorer_writes_every_byte(kind: int) -> None:
    written = bytearray(len(PACKET))
    for op, off, imm in operations(restorer(kind, PACKET, 3)):
        if op == 0x62:
            struct.pack_into("<i", written, off, imm)
        elif op == 0x72:
            written[off] = imm
    assert bytes(written) == PACKET


def test_only_a_restorer_for_xdp_moves_the_packets_start() -> None:
    calls = {
        kind: [i for op, _, i in operations(restorer(kind, PACKET, 3)) if op == 0x85]
        for kind in (TC, XDP)
    }
    assert calls == {TC: [12], XDP: [54, 44, 12]}


def test_a_restorer_varies_its_fields_after_it_has_written_them() -> None:
    code = operations(restorer(TC, PACKET, 3, (Vary(34), Vary(36))))
    stores = [off for op, off, _ in code if op == 0x6B]
    assert stores == [34, 36]
    last_written = max(n for n, (op, _, _) in enumerate(code) if op in {0x62, 0x72})
    assert all(n > last_written for n, (op, _, _) in enumerate(code) if op == 0x6B)


def test_numbered_packets_differ_in_their_fields_alone() -> None:
    vary = (Vary(34, 1024, 100), Vary(36, 2000, 10))
    packets = {numbered(PACKET, vary, number) for number in range(1000)}
    assert len(packets) == 1000
    assert {packet[:34] + packet[38:] for packet in packets} == {PACKET[:34] + PACKET[38:]}


def test_flows_are_made_in_parts_that_miss_none() -> None:
    found = list(parts(18, most=7))
    assert [len(part) for part in found] == [7, 7, 4]
    assert np.concatenate(found).tolist() == list(range(18))


def test_each_of_a_million_other_flows_has_its_own_key() -> None:
    where = [("saddr", "u4"), ("daddr", "u4"), ("sport", "u2"), ("dport", "u2")]
    keys = np.zeros(MAX_FLOWS, dtype=[("t", where), ("vni", "u4"), ("protocol", "u1")])
    others(keys, np.arange(MAX_FLOWS, dtype=np.uint32))
    assert len(np.unique(keys["t"][["saddr", "sport"]])) == MAX_FLOWS


def test_every_dimension_of_a_scenario_goes_up_alone_and_all_together() -> None:
    for field, sizes in (
        ("services", {1, 100, 1000}),
        ("backends", {10, 100, 1000}),
        ("flows", {0, 100_000, 1_000_000}),
    ):
        assert {one.params[field] for one in SCENARIOS} == sizes
    assert SCENARIOS[0] == SMALLEST
    assert max(one.flows for one in SCENARIOS) < MAX_FLOWS


def test_the_client_has_nobody_elses_address() -> None:
    for scenario in SCENARIOS:
        tasks = scenario.backends + 10 * (scenario.services - 1) + 1
        assert CLIENT not in {swarm.task_address(n, NETWORK) for n in range(tasks)}
        assert CLIENT not in {swarm.vip(n, NETWORK) for n in range(scenario.services + 1)}


def test_ratios_are_kept_apart_from_times(tmp_path: Path) -> None:
    figures = [Figure(ONE_SHOT, "ns", (120.0,)), Figure(GROWN, "times", (1.2,), at_most=1.3)]
    keep(HERE, figures, tmp_path / "growth", growth_only=True)
    assert {path.stem for path in (tmp_path / "growth").iterdir()} == {"programs-growth"}
    keep(HERE, figures[1:], tmp_path, growth_only=True)
    assert "<= 1.3 | met" in (tmp_path / "programs-growth.md").read_text()
