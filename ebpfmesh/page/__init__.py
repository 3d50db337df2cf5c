# SPDX-License-Identifier: Apache-2.0
"""The agent's page: what a node balances, for people with a browser. Pure: values in, HTML out.

Everything that comes from the Swarm is escaped (`ebpfmesh.page.html`), and nothing is loaded from
anywhere: style and script stand in the page, and its policy allows those two texts alone.
"""

from __future__ import annotations

from ebpfmesh.page.document import HEADERS, document
from ebpfmesh.page.sections import View, live

__all__ = ["HEADERS", "View", "document", "live"]
