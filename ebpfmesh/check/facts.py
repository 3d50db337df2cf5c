# SPDX-License-Identifier: Apache-2.0
"""What is known of a node before anything runs on it. Pure data."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ebpfmesh.model import Frozen

# Whether programs are compiled cannot be seen.
JIT_HIDDEN = "hidden"

# Kind of program -> why the kernel does not load it.
Programs = dict[str, str]


class Level(StrEnum):
    """`WARNING`: it runs, with less. `FAILURE`: it does not. `INFO` asks for nothing."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    FAILURE = "failure"


class Verdict(Frozen, frozen=True, omit_defaults=False):
    """One line; `todo` says what to do about it, if anything."""

    level: Level
    subject: str
    text: str
    todo: str = ""


class Mount(Frozen, frozen=True):
    """Where a file system of which kind is mounted; `private` if what comes below stays there."""

    target: str
    kind: str
    private: bool = False


class LinkFacts(Frozen, frozen=True):
    """A link of the node; `xdp` names the program on it."""

    name: str
    mtu: int
    addresses: tuple[str, ...] = ()
    xdp: str = ""


class Filter(Frozen, frozen=True):
    """A program in tc ingress of the device."""

    name: str
    priority: int


class SwarmFacts(Frozen, frozen=True):
    """What dockerd says of the node; `error` is why it did not."""

    error: str = ""
    address: str = ""
    manager: bool = False
    engine_version: str = ""
    certificates_error: str = ""
    encrypted_ingress: bool = False


class Facts(Frozen, frozen=True):
    """All of it. `links` is None if they could not be looked at.

    `refused` and `tc_error` say what the kernel would not do; `tcx` is how many programs are at the
    device's tcx hook, which are none of ours, `native_xdp` whether the device's driver runs XDP,
    `systemd` whether that runs here, `clock_kept` whether something keeps the clock right: None if
    that is unknown.
    """

    root: bool
    capabilities: int
    kernel: str
    jit: str
    mounts: tuple[Mount, ...]
    bcc: str
    bcc_library: bool
    missing_headers: str
    compiled: bool
    swarm: SwarmFacts
    links: tuple[LinkFacts, ...] | None
    filters: tuple[Filter, ...]
    rp_filter: dict[str, int]
    ip_vs: bool
    listening: frozenset[int]
    agent: bool
    refused: Programs = msgspec.field(default_factory=dict)
    tc_error: str = ""
    tcx: int = 0
    native_xdp: bool | None = None
    systemd: bool = False
    clock_kept: bool | None = None
