# SPDX-License-Identifier: Apache-2.0
"""The systems to test on: a kernel, and the Debian release that it comes with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class System:
    """`kernel` is the version (major.minor) that the suite's linux-image has, `python` its
    python3."""

    kernel: str
    suite: str
    python: str


SYSTEMS = (
    System("6.1", "bookworm", "3.11"),
    System("6.12", "trixie", "3.13"),
)

# Where disks are kept.
CACHE = Path("/var/cache/ebpfmesh-kernels")

# Only Debian's own archive is signed with the keys that debootstrap looks for.
MIRROR = "http://deb.debian.org/debian"

# What a node has (README), what the tests call, and what makes it a machine that boots.
PACKAGES = (
    "ethtool",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "libc6-dev",
    "linux-image-amd64",
    "linux-libc-dev",
    "python3",
    "python3-bpfcc",
    "zstd",
)
