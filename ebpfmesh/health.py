# SPDX-License-Identifier: Apache-2.0
"""Whether the node's agent is ready, as an exit code: ``python -m ebpfmesh.health``.

For the health checks of containers. It costs a fraction of what the command line does.
"""

from __future__ import annotations

import http
import http.client
import os
import sys
from pathlib import Path

from ebpfmesh.config import ConfigError, load
from ebpfmesh.unix_http import get

_TIMEOUT_S = 4.0


def problem(socket: Path) -> str:
    """What keeps the agent on that socket from being ready; nothing if it is."""
    try:
        answer = get(socket, "/readyz", _TIMEOUT_S)
    except (OSError, http.client.HTTPException) as error:
        return f"no agent answers on {socket}: {error}"
    return "" if answer.status == http.HTTPStatus.OK else answer.body.decode().strip()


def main() -> int:
    """Returns the exit code: 0 if it is ready, 1 if not."""
    try:
        found = problem(Path(load(environ=os.environ).socket))
    except ConfigError as error:
        found = str(error)
    print(found or "ready")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
