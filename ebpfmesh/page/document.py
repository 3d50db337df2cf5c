# SPDX-License-Identifier: Apache-2.0
"""The frame of the page, and the headers that it is served with. Pure but for its two assets."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from ebpfmesh.page.html import Html, element, join

_HERE = Path(__file__).parent
_STYLE = (_HERE / "style.css").read_text(encoding="utf-8")
_SCRIPT = (_HERE / "script.js").read_text(encoding="utf-8")


def _hash(asset: str) -> str:
    """As Content-Security-Policy names a text that may stand in the page (CSP 3, section 2.3.1)."""
    digest = hashlib.sha256(asset.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash(_STYLE)}",
            f"script-src {_hash(_SCRIPT)}",
            "connect-src 'self'",
            "img-src data:",  # the empty icon, so that none is asked for
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def document(title: str, live: Html) -> str:
    """Return the whole page around what `live` shows."""
    head = element(
        "head",
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<link rel="icon" href="data:,">'),
        element("title", title),
        element("style", Html(_STYLE)),
    )
    body = element(
        "body",
        element("p", "The agent does not answer; what you see is old.", id="lost", class_="bad"),
        element("main", live, id="live"),
        element(
            "footer",
            "Read-only, as this node sees it. ",
            element("a", "metrics", href="metrics"),
        ),
        element("script", Html(_SCRIPT)),
    )
    return join(Html("<!doctype html>\n"), element("html", head, body, lang="en"))
