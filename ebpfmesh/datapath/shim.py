# SPDX-License-Identifier: Apache-2.0
"""Stand-in for the kernel's headers.

bcc wants a kernel source tree for a handful of type names. The programs use only the user
space API, which the C library's packages bring (Debian: ``linux-libc-dev``), so a few files
and links serve, and a node needs no headers of its very kernel.
"""

from __future__ import annotations

import platform
from pathlib import Path

from ebpfmesh.datapath.errors import HeadersMissing

_TYPES = """\
#ifndef EBPFMESH_SHIM_TYPES_H
#define EBPFMESH_SHIM_TYPES_H
#include <uapi/linux/types.h>
typedef __u8 u8; typedef __u16 u16; typedef __u32 u32; typedef __u64 u64;
typedef __s8 s8; typedef __s16 s16; typedef __s32 s32; typedef __s64 s64;
typedef unsigned long size_t; typedef unsigned long uintptr_t; typedef _Bool bool;
#endif
"""

# The least kernel, not the one that runs: the programs are to be the same on all.
_VERSION = """\
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 1, 0)
"""

_FILES = {
    "linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "linux/types.h": _TYPES,
    "linux/version.h": _VERSION,
    "linux/log2.h": "",
    "asm/page.h": "",
    "uapi/linux/bpf.h": "",  # bcc brings its own
}

_INCLUDE = Path("/usr/include")
_ASM = _INCLUDE / f"{platform.machine()}-linux-gnu" / "asm"


def headers() -> list[Path]:
    """Every header that the stand-in offers, in order of their names."""
    places = (_INCLUDE / "linux", _INCLUDE / "asm-generic", _ASM)
    return [path for place in places for path in sorted(place.glob("*.h"))]


def _link_all(source: Path, target: Path) -> None:
    """Links every header of `source` into `target`, but for those that are there already."""
    for header in source.iterdir():
        link = target / header.name
        if not link.exists():
            link.symlink_to(header)


def make_shim(root: Path) -> Path:
    """Writes the stand-in below `root` and returns it, for ``BCC_KERNEL_SOURCE``.

    Raises `HeadersMissing` if `linux-libc-dev` is not installed.
    """
    for needed in (_ASM, _INCLUDE / "asm-generic", _INCLUDE / "linux"):
        if not needed.is_dir():
            raise HeadersMissing(f"{needed} is missing: install linux-libc-dev")
    include = root / "include"
    for name, text in _FILES.items():
        path = include / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    _link_all(_INCLUDE / "linux", include / "uapi" / "linux")
    _link_all(_ASM, include / "asm")
    (include / "asm-generic").symlink_to(_INCLUDE / "asm-generic")
    return root
