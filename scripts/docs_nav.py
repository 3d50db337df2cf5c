# SPDX-License-Identifier: Apache-2.0
"""A hook of mkdocs: every record below docs/adr has its place among the decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Put them behind what mkdocs.yml names, in their order."""
    home = Path(config["docs_dir"])
    records = sorted(str(page.relative_to(home)) for page in (home / "adr").glob("*.md"))
    config["nav"].append({"Decisions": records})
    return config
