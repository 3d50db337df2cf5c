# SPDX-License-Identifier: Apache-2.0
"""Every test that docs/semantics.md names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (ROOT / "docs" / "semantics.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| behaviour", "| ---"))
]
_FILE = r"(?:unit|bpf|lab)/(?:steady/)?test_\w+\.py|lab/deploy/deployed\.py"
_NAME = re.compile(rf"`({_FILE})(?:::(test_\w+))?`")


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_row_names_tests_that_exist(row: str) -> None:
    assert row.count(" | ") == 3
    named = _NAME.findall(row.rsplit(" | ", maxsplit=1)[-1])
    assert named
    for file, function in named:
        path = ROOT / "tests" / file
        assert path.is_file(), file
        assert not function or function in functions(path), f"{file}::{function}"
