# SPDX-License-Identifier: Apache-2.0
"""What `make test-systemd` takes out of docs/install.md is there."""

from __future__ import annotations

import re

from ebpfmesh.cli import exits
from tests.systemd.trial import INSTALL, INSTALLING, NO_AGENT, REMOVING, block

TEXT = """\
By hand:

    first  # why
    second \\
        goes on

And

    third
"""


def test_a_block_is_the_first_one_with_whole_commands() -> None:
    assert block(TEXT, "By hand:\n") == ["first  # why", "second goes on"]
    assert block(TEXT, "And\n") == ["third"]


def test_the_document_says_how_to_begin_and_how_to_end() -> None:
    text = INSTALL.read_text()
    begin, end = (block(text, after) for after in (INSTALLING, REMOVING))
    assert begin[0].startswith("apt-get install ")
    assert begin[-2:] == ["systemctl enable --now ebpfmesh", "ebpfmesh status"]
    assert end[0] == "systemctl disable --now ebpfmesh"
    made = re.findall(r"ln -s \S+ (\S+)|-t (/etc/\S+)", "\n".join(begin))
    removed = " ".join(end)
    assert all(one.rstrip("/") in removed for pair in made for one in pair if one)


def test_nobody_answers_by_that_code() -> None:
    assert NO_AGENT == exits.NO_AGENT
