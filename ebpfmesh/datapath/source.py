# SPDX-License-Identifier: Apache-2.0
"""The C programs as one text.

bcc rewrites map accesses only in the main file, not in what it includes; so the headers of
``bpf/`` are set in place of their ``#include`` lines, with ``#line`` marks that keep error
messages pointing at the file and line that a person edits.
"""

from __future__ import annotations

import re
from pathlib import Path

_INCLUDE = re.compile(r'^#include "([\w./]+)"$')
_REASON_LIST = r"#define {kind}_REASONS\(X\)(.*?)\n\n"
_PINNED = re.compile(r'^PINNED_MAP\((\w+),\s*"\w+(?:\$(\w+))?"', re.MULTILINE)
_UNPINNED = re.compile(r'^BPF_TABLE\("\w+", [^;]*, (\w+), [^;,]*\);', re.MULTILINE)
_RING = re.compile(r"^BPF_RINGBUF_OUTPUT\((\w+), \w+\);", re.MULTILINE)
_CONSTANT = re.compile(r"^#define (\w+) NODE_CONSTANT\((0x\w+), (\d+)\)$", re.MULTILINE)
_SIZE = re.compile(r"^#ifndef (\w+)\n#define \1 (\d+)$", re.MULTILINE)
_ENTRY_POINT = re.compile(r"^int (\w+)\(struct \w+ \*", re.MULTILINE)
_LAYOUT = re.compile(r"^#define LAYOUT_VERSION (\d+)$", re.MULTILINE)

MAIN = "ebpfmesh.c"


def source_dir() -> Path:
    """Where the C programs lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "bpf", package.parent / "bpf"):
        if (candidate / MAIN).is_file():
            return candidate
    raise FileNotFoundError(f"{MAIN} is neither in {package / 'bpf'} nor in {package.parent}/bpf")


def _inline(path: Path, seen: set[Path], out: list[str]) -> None:
    seen.add(path)
    out.append(f'#line 1 "{path.name}"')
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        match = _INCLUDE.match(line)
        if match is None:
            out.append(line)
            continue
        header = path.parent / match[1]
        if header not in seen:
            _inline(header, seen, out)
            out.append(f'#line {number + 1} "{path.name}"')


def amalgamate(directory: Path, main: str = MAIN) -> str:
    """`main` and every header of `directory` that it includes, each once, as one text."""
    out: list[str] = []
    _inline(directory / main, set(), out)
    return "\n".join(out) + "\n"


def layout_version(directory: Path) -> int:
    """The version of the maps' layout, as types.h states it."""
    match = _LAYOUT.search((directory / "types.h").read_text())
    if match is None:
        raise ValueError("types.h does not define LAYOUT_VERSION")
    return int(match[1])


def pinned_maps(directory: Path) -> dict[str, str]:
    """The names of the maps that are pinned -> that of the template, for a map of maps."""
    return dict(_PINNED.findall((directory / "maps.h").read_text()))


def map_names(directory: Path) -> list[str]:
    """The names of all maps."""
    text = (directory / "maps.h").read_text()
    return [*pinned_maps(directory), *_UNPINNED.findall(text), *_RING.findall(text)]


def node_constants(directory: Path) -> dict[str, tuple[int, int]]:
    """Name of each constant of a node -> its placeholder, and what it is where nothing is said."""
    found = _CONSTANT.findall((directory / "config.h").read_text())
    return {name: (int(placeholder, 0), int(otherwise)) for name, placeholder, otherwise in found}


def sizes(directory: Path) -> dict[str, int]:
    """Name of each size that may be given to the loader -> what it is where nothing is said."""
    found = _SIZE.findall((directory / "config.h").read_text())
    return {name: int(otherwise) for name, otherwise in found}


def entry_points(directory: Path) -> list[str]:
    """The names of the programs."""
    return _ENTRY_POINT.findall((directory / MAIN).read_text())


def reasons(directory: Path) -> dict[int, tuple[str, str]]:
    """Index in the `reasons` map -> kind (``drop``, ``handback``, ``retry``) and name."""
    text = (directory / "reasons.h").read_text()
    found: list[tuple[str, str]] = []
    for kind in ("DROP", "HANDBACK", "RETRY"):
        match = re.search(_REASON_LIST.format(kind=kind), text, re.DOTALL)
        if match is None:
            raise ValueError(f"reasons.h does not define {kind}_REASONS")
        found += [(kind.lower(), name) for name in re.findall(r"X\((\w+)\)", match[1])]
    return dict(enumerate(found, start=1))
