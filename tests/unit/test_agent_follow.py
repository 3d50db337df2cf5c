# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import cast

import pytest
from structlog.testing import capture_logs

from ebpfmesh.agent import follow
from ebpfmesh.datapath.attach import Attacher, Role
from ebpfmesh.datapath.errors import AttachError
from ebpfmesh.model import Attachment


def place(name: str) -> Attachment:
    return Attachment(Role.GATEWAY, "", int(name[4:]), name)


class Links:
    """Those that have programs, and one that takes none."""

    def __init__(self, *covered: str) -> None:
        self.covered = list(covered)

    def has(self, attachment: Attachment) -> bool:
        return attachment.name in self.covered

    def attach(self, attachment: Attachment) -> None:
        assert attachment.name not in self.covered
        if attachment.name == "veth9":
            raise AttachError("no such device")
        self.covered.append(attachment.name)


def test_programs_are_put_where_none_are(monkeypatch: pytest.MonkeyPatch) -> None:
    links = Links("veth1", "veth3")
    monkeypatch.setattr(follow, "has_programs", links.has)
    places = [place(f"veth{number}") for number in (1, 9, 2, 3, 4)]
    with capture_logs() as logs:
        follow.cover(cast(Attacher, links), places)
    assert links.covered == ["veth1", "veth3", "veth2", "veth4"]
    assert [(line["event"], line["link"]) for line in logs] == [("programs.not_attached", "veth9")]
