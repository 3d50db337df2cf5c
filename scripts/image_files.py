# SPDX-License-Identifier: Apache-2.0
"""Files of an image, read out of what ``docker save`` writes; nothing of the image is run."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import IO

# What takes a file of a lower layer away, and all of a directory (OCI image-spec: layer.md).
_GONE, _EMPTIED = ".wh.", ".wh..wh..opq"


def read(archive: Path, wanted: re.Pattern[str]) -> dict[str, str]:
    """Return the text of each file whose path matches; of a symbolic link what it points to.

    Paths begin without a slash. A file that is none of these formats raises `tarfile.TarError` or
    `KeyError`.
    """
    found: dict[str, str] = {}
    with tarfile.open(archive) as image:
        (manifest,) = json.load(_open(image, "manifest.json"))
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=_open(image, name)) as layer:
                _put(layer, wanted, found)
    return found


def _put(layer: tarfile.TarFile, wanted: re.Pattern[str], found: dict[str, str]) -> None:
    """Lay a layer over what is below it."""
    own: dict[str, str] = {}
    for member in layer:
        path = member.name.removeprefix("./")
        directory, _, name = path.rpartition("/")
        if name == _EMPTIED:
            _take_away(found, f"{directory}/")
        elif name.startswith(_GONE):
            gone = path.removesuffix(name) + name.removeprefix(_GONE)
            _take_away(found, f"{gone}/", gone)
        elif wanted.fullmatch(path) and not member.isdir():
            own[path] = _text(layer, member)
    found.update(own)


def _take_away(found: dict[str, str], beginning: str, exact: str = "") -> None:
    for path in [path for path in found if path == exact or path.startswith(beginning)]:
        del found[path]


def _text(layer: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.issym():
        return member.linkname
    data = layer.extractfile(member)  # follows a hard link
    return data.read().decode(errors="replace") if data else ""


def _open(image: tarfile.TarFile, name: str) -> IO[bytes]:
    data = image.extractfile(name)
    if data is None:
        raise KeyError(f"{name} is no file")
    return data
