# SPDX-License-Identifier: Apache-2.0
"""What a shell may put in where a service's name is wanted."""

from __future__ import annotations

import re

from ebpfmesh.cli.client import AgentError, fetch_status, socket_path
from ebpfmesh.config import ConfigError

# As Swarm names services; what a shell or a terminal would read otherwise is left out.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def service_names(begun: str) -> list[str]:
    """Return the names that begin like that; none if no agent can be asked."""
    try:
        known = fetch_status(socket_path(None)).services
    except (AgentError, ConfigError):
        return []
    names = {service.name for service in known}
    return sorted(name for name in names if name.startswith(begun) and _PLAIN.fullmatch(name))
