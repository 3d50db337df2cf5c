# SPDX-License-Identifier: Apache-2.0
"""Where an object lies that came with the package: no clang and no headers are needed for it."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from ebpfmesh.datapath.source import amalgamate, source_dir

# Goes up with every change of what an object's file holds: another one's is not read.
FORMAT = 2


def shipped(directory: Path | None = None) -> Path:
    """The file for the programs in `directory`, whether it is there or not.

    Its name tells the programs, not who compiled them: instructions are the same to every kernel.
    """
    package = Path(__file__).resolve().parents[1]
    return package / "objects" / f"{digest(programs(directory or source_dir()))}.object"


def programs(directory: Path) -> bytes:
    """All that tells an object from one of other programs."""
    return f"{FORMAT} {platform.machine()}\n{amalgamate(directory)}".encode()


def digest(*parts: bytes) -> str:
    """A name for something that is made of these parts."""
    each = b"".join(hashlib.sha256(part).digest() for part in parts)
    return hashlib.sha256(each).hexdigest()[:32]
