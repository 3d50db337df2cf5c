# SPDX-License-Identifier: Apache-2.0
"""What a guest found, as numbers and as a table. Pure, no I/O."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """Instructions that the verifier walked and bytes of stack; or why it refused."""

    instructions: int
    stack: int
    error: str


@dataclass(frozen=True)
class Outcome:
    """One kernel. `tests` is None where none were asked for. Programs by (name, variant)."""

    release: str
    seconds: float
    programs: dict[tuple[str, str], Program]
    tests: Tests | None

    def problems(self) -> Iterator[str]:
        """What must not be; nothing if all is well."""
        if not self.programs:
            yield "no program was loaded"
        for (name, variant), program in self.programs.items():
            if program.error:
                yield f"{name} ({variant}): {program.error}"
        if self.tests is not None:
            yield from self.tests.problems()


@dataclass(frozen=True)
class Tests:
    """A run of pytest, counted."""

    passed: int
    skipped: int
    failed: tuple[str, ...]

    def problems(self) -> Iterator[str]:
        """Tests that failed, or that there were none."""
        yield from self.failed
        if self.skipped:
            yield f"{self.skipped} tests were skipped"
        if not self.passed:
            yield "no test passed"


def outcome(files: Mapping[str, str], seconds: float, *, tested: bool) -> Outcome:
    """Reads what the guest wrote; what is missing counts as nothing found."""
    programs = {
        (row["program"], row["variant"]): Program(row["instructions"], row["stack"], row["error"])
        for row in json.loads(files.get("programs.json", "[]"))
    }
    tests = _tests(files.get("tests.xml", "<none/>")) if tested else None
    return Outcome(files.get("kernel", "").strip(), seconds, programs, tests)


def _tests(text: str) -> Tests:
    cases = list(ET.fromstring(text).iter("testcase"))  # noqa: S314 (our own guest wrote it)
    failed = [case for case in cases if case.find("failure") is not None]
    failed += [case for case in cases if case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    names = tuple(f"{case.get('classname')}::{case.get('name')}" for case in failed)
    return Tests(len(cases) - len(failed) - len(skipped), len(skipped), names)


def _cell(program: Program | None) -> tuple[str, str]:
    if program is None:
        return "", ""
    if program.error:
        return "refused", ""
    return str(program.instructions), str(program.stack)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Markdown: program x kernel. A variant has a row only where it differs from the first."""
    names = list(dict.fromkeys(key for found in outcomes for key in found.programs))
    first = names[0][1] if names else ""
    head = ["program"]
    for found in outcomes:
        head += [f"{found.release} instructions", "stack"]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' --: |' * (len(head) - 1)}"]
    for name, variant in names:
        rows = [found.programs.get((name, variant)) for found in outcomes]
        if variant != first and rows == [found.programs.get((name, first)) for found in outcomes]:
            continue
        label = name if variant == first else f"{name}, {variant}"
        cells = [text for row in rows for text in _cell(row)]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def summary(found: Outcome) -> str:
    """One line for a kernel."""
    loaded = sum(not program.error for program in found.programs.values())
    text = f"{found.release}: {loaded} of {len(found.programs)} programs loaded"
    if found.tests is not None:
        failed = len(found.tests.failed)
        text += f", {found.tests.passed} tests passed, {failed} failed"
    return f"{text}, {found.seconds:.0f} s"
