# SPDX-License-Identifier: Apache-2.0
"""Says once, in the log, why no published port is served."""

from __future__ import annotations

import structlog

from ebpfmesh.desired import ingress_notes
from ebpfmesh.model import MeshState

log = structlog.get_logger(__name__)


class IngressWatch:
    """Remembers what it has said: a line when ports are not served, one when they are again."""

    def __init__(self) -> None:
        self._said = ""
        self._seen: tuple[object, object] = (None, None)

    def look(self, mesh: MeshState) -> None:
        """Say what is new since the last look."""
        seen, self._seen = self._seen, (mesh.services, mesh.networks)
        if mesh.services is seen[0] and mesh.networks is seen[1]:
            return
        reason = "; ".join(note.text for note in ingress_notes(mesh))
        if reason == self._said:
            return
        if reason:
            log.warning("ingress.not_served", reason=reason)
        else:
            log.info("ingress.served")
        self._said = reason
