# SPDX-License-Identifier: Apache-2.0
"""Says once, in the log, what is wrong with the services' labels."""

from __future__ import annotations

import structlog

from ebpfmesh.desired import Note, Severity, label_notes
from ebpfmesh.model import MeshState

log = structlog.get_logger(__name__)


class LabelWatch:
    """Remembers what it has said: a line when a label becomes wrong, one when that is over."""

    def __init__(self) -> None:
        self._said: frozenset[Note] = frozenset()
        self._seen: tuple[object, object] = (None, None)

    def look(self, mesh: MeshState) -> None:
        """Say what is new since the last look."""
        seen, self._seen = self._seen, (mesh.services, mesh.networks)
        if mesh.services is seen[0] and mesh.networks is seen[1]:
            return
        notes = frozenset(label_notes(mesh))
        for note in sorted(notes - self._said):
            say = log.error if note.severity is Severity.ERROR else log.warning
            say("label.refused", service=note.subject, reason=note.text)
        for note in sorted(self._said - notes):
            log.info("label.settled", service=note.subject, reason=note.text)
        self._said = notes
