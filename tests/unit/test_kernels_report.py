# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

from tests.kernels.report import Outcome, outcome, summary, table


def row(program: str, variant: str, instructions: int, error: str = "") -> dict[str, object]:
    return {
        "program": program,
        "variant": variant,
        "instructions": instructions,
        "stack": 100,
        "error": error,
    }


def guest(*rows: dict[str, object], tests: str | None = None, release: str = "6.1.0") -> Outcome:
    files = {"kernel": f"{release}\n", "programs.json": json.dumps(rows)}
    if tests is not None:
        files["tests.xml"] = f"<testsuites><testsuite>{tests}</testsuite></testsuites>"
    return outcome(files, 12.4, tested=True)


PASSED = '<testcase classname="bpf.test_vip" name="test_one"/>'
FAILED = '<testcase classname="bpf.test_vip" name="test_two"><failure/></testcase>'
BROKEN = '<testcase classname="bpf.test_vip" name="test_three"><error/></testcase>'
SKIPPED = '<testcase classname="bpf.test_vip" name="test_four"><skipped/></testcase>'


def test_all_is_well() -> None:
    found = guest(row("nic_xdp", "tunnel", 7), tests=PASSED)
    assert list(found.problems()) == []
    assert summary(found) == "6.1.0: 1 of 1 programs loaded, 1 tests passed, 0 failed, 12 s"


def test_every_kind_of_problem_is_told() -> None:
    found = guest(row("nic_xdp", "dsr", 0, "refused it"), tests=PASSED + FAILED + BROKEN + SKIPPED)
    assert list(found.problems()) == [
        "nic_xdp (dsr): refused it",
        "bpf.test_vip::test_two",
        "bpf.test_vip::test_three",
        "1 tests were skipped",
    ]


def test_a_guest_that_found_nothing_is_a_problem() -> None:
    found = outcome({}, 1, tested=True)
    assert list(found.problems()) == ["no program was loaded", "no test passed"]


def test_tests_may_be_left_out() -> None:
    files = {"programs.json": json.dumps([row("nic_xdp", "tunnel", 7)])}
    assert list(outcome(files, 1, tested=False).problems()) == []


def test_a_variant_has_a_row_where_it_differs() -> None:
    old = guest(
        row("nic_xdp", "tunnel", 7),
        row("gateway_ingress", "tunnel", 8),
        row("nic_xdp", "dsr", 7),
        row("gateway_ingress", "dsr", 9),
    )
    new = guest(row("nic_xdp", "tunnel", 0, "no"), row("nic_xdp", "dsr", 0, "no"), release="6.12")
    assert table([old, new]) == [
        "| program | 6.1.0 instructions | stack | 6.12 instructions | stack |",
        "| --- | --: | --: | --: | --: |",
        "| nic_xdp | 7 | 100 | refused |  |",
        "| gateway_ingress | 8 | 100 |  |  |",
        "| gateway_ingress, dsr | 9 | 100 |  |  |",
    ]
