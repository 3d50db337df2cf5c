# SPDX-License-Identifier: Apache-2.0
"""Reading the per-CPU counters."""

from __future__ import annotations

from typing import Any

from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.source import reasons, source_dir
from ebpfmesh.model import Frozen


class Counter(Frozen, frozen=True):
    """Sums over all CPUs; `connections` counts new flows, bytes count from the IP header on."""

    packets_to_backend: int = 0
    packets_to_client: int = 0
    bytes_to_backend: int = 0
    bytes_to_client: int = 0
    connections: int = 0


class Counters:
    """The counters of one `Module`."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._reasons = reasons(source_dir())

    def frontend(self, frontend_id: int) -> Counter:
        """What this node translated for a frontend."""
        return self._read("frontend_counters", frontend_id)

    def backend(self, backend_id: int) -> Counter:
        """What this node translated for a backend."""
        return self._read("backend_counters", backend_id)

    def entry(self, frontend_id: int) -> Counter:
        """What came in at this node for a published port, wherever it was sent on to."""
        return self._read("entry_counters", frontend_id)

    def reasons(self) -> dict[tuple[str, str], int]:
        """(``drop``, ``handback`` or ``retry``, reason) -> packets."""
        table = self._module.table("reasons")
        return {name: sum(table[index]) for index, name in self._reasons.items()}

    def _read(self, name: str, index: int) -> Counter:
        per_cpu: list[Any] = self._module.table(name)[index]
        return Counter(
            packets_to_backend=sum(c.packets[0] for c in per_cpu),
            packets_to_client=sum(c.packets[1] for c in per_cpu),
            bytes_to_backend=sum(c.bytes[0] for c in per_cpu),
            bytes_to_client=sum(c.bytes[1] for c in per_cpu),
            connections=sum(c.connections for c in per_cpu),
        )
