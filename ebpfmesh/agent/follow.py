# SPDX-License-Identifier: Apache-2.0
"""Programs that take the places of others, wherever these are."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from ebpfmesh.datapath.attach import Attacher, has_programs
from ebpfmesh.datapath.errors import AttachError
from ebpfmesh.model import Attachment

log = structlog.get_logger(__name__)


class Follower:
    """Puts programs where programs are; other places are left to the first look."""

    def __init__(self, attacher: Attacher, places: Iterable[Attachment]) -> None:
        self._attacher = attacher
        self._places = [place for place in places if has_programs(place)]

    def load(self) -> None:
        """Makes all programs ready."""
        for place in self._places:
            self._attacher.load(place)

    def attach(self) -> None:
        """Replaces them, place by place: each in one step, that no packet notices."""
        for place in self._places:
            try:
                self._attacher.attach(place)
            except AttachError as error:
                log.warning("programs.not_replaced", link=place.name, error=str(error))


def cover(attacher: Attacher, places: Iterable[Attachment]) -> None:
    """Puts programs where none are.

    A task that began while no agent ran gets flows as soon as the maps know of it: its answers
    must meet a program then.
    """
    for place in places:
        if has_programs(place):
            continue
        try:
            attacher.attach(place)
        except AttachError as error:
            log.warning("programs.not_attached", link=place.name, error=str(error))
