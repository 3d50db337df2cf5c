# SPDX-License-Identifier: Apache-2.0
"""Types that answers, messages and files are read into, made known before there are threads.

msgspec learns what a Struct is made of when it first reads one. Where two threads are the first to
read one type at the same time, the process may end with SIGSEGV (seen with 0.22.0); not where the
type is known by then. An agent that starts has several threads that read.
"""

from __future__ import annotations

from typing import Any

import msgspec


def prepare(*types: Any) -> None:
    """Have msgspec learn these types, and what they are made of. Modules do so at their end."""
    for each in types:
        msgspec.json.Decoder(each)
