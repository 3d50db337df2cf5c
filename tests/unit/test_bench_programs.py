# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct

import pytest

from bench.programs.__main__ import ONE_SHOT, growth
from bench.programs.assemble import TC, XDP, Vary, empty, restorer
from bench.programs.cases import numbered
from bench.result import Figure

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


def test_growth_is_over_the_same_program_in_the_smallest_scenario() -> None:
    def cost(program: str, flows: int, ns: float, of: int = 1) -> Figure:
        params = {"program": program, "services": 1, "backends": 10, "flows": flows, "of": of}
        return Figure(ONE_SHOT, "ns", (ns,), params)  # type: ignore[arg-type]

    figures = [cost("a", 0, 100), cost("a", 0, 500, of=5), cost("b", 0, 10), cost("a", 9, 120)]
    (found,) = growth(figures)
    assert (found.median, found.params["flows"], found.met) == (1.2, 9, True)
