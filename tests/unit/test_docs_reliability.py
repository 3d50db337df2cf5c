# SPDX-License-Identifier: Apache-2.0
"""Every test that docs/reliability.md names exists, and so does what it quotes of the log."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text()
_FAULTS = TEXT[TEXT.index("**Faults.**") : TEXT.index("## What is not")]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:unit|bpf|lab)/[\w/]+\.py)", TEXT))))
def test_a_test_that_is_named_exists(name: str) -> None:
    assert (ROOT / "tests" / name).is_file()


@pytest.mark.parametrize("event", sorted(set(re.findall(r"`([a-z]+\.[a-z_]+)`", _FAULTS))))
def test_an_event_that_is_named_exists(event: str) -> None:
    head, tail = event.split(".")
    written = {event, f'"{tail}"'} if head == "hub" else {event}
    sources = [path.read_text() for path in (ROOT / "ebpfmesh").rglob("*.py")]
    assert any(words in source for words in written for source in sources)
