# SPDX-License-Identifier: Apache-2.0
"""The table of README.md, from the results: ``python -m bench.ipvs.readme`` writes it anew."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from bench.ipvs.figures import ADDED
from bench.ipvs.plan import EBPFMESH, EBPFMESH_HALF, IPVS, OVERLAY, WORK
from bench.machine import ROOT
from bench.result import Result
from bench.store import RESULTS

README = ROOT / "README.md"
_BEGIN, _END = "<!-- by python -m bench.ipvs.readme -->\n", "<!-- end -->"


def table(result: Result) -> str:
    """What is added to direct inside an overlay network, and how much of IPVS's that is. Pure."""
    return "".join(f"| {' | '.join(row)} |\n" for row in _rows(result))


def _rows(result: Result) -> Iterator[tuple[str, ...]]:
    yield "", IPVS, EBPFMESH_HALF, "task on the client's node"
    yield "---", "---:", "---:", "---:"
    for work in WORK.values():
        ipvs = _added(result, work, IPVS)
        ours = (_added(result, work, side) for side in (EBPFMESH_HALF, EBPFMESH))
        yield work, f"{ipvs:,.0f}", *(f"{each:,.0f} ({each / ipvs:.0%})" for each in ours)


def _added(result: Result, work: str, side: str) -> float:
    (found,) = result.select(ADDED, network=OVERLAY, work=work, side=side)
    return found.median


def with_table(text: str, made: str) -> str:
    """The text, with another table between the two comments. Pure."""
    parted = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    return parted.sub(lambda _: f"{_BEGIN}\n{made}\n{_END}", text)


def results() -> Result:
    """The last ones."""
    return msgspec.json.decode((RESULTS / "ipvs.json").read_bytes(), type=Result)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(), table(results())))
