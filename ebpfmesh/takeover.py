# SPDX-License-Identifier: Apache-2.0
"""Taking over from the path that balanced before, and giving back to it. Pure, no I/O.

While a node is taken over, a TCP packet that begins no connection and belongs to none that is known
is left to the kernel: it is of one that the path before has open. While a node gives back, what
begins a flow is the kernel's, and known flows go on. Times are nanoseconds of CLOCK_MONOTONIC,
which is the clock of the programs.
"""

from __future__ import annotations

from enum import IntEnum

from ebpfmesh.model import Frozen

SECOND_NS = 10**9


class Mode(IntEnum):
    """The values are those of bpf/types.h. `UNSET`: fresh maps, no agent has said anything yet."""

    UNSET = 0
    SERVING = 1
    GIVING_BACK = 2
    MOVING = 3


class RunSettings(Frozen, frozen=True, omit_defaults=False):
    """What all programs are told while they run; `since_ns` is when the mode began."""

    mode: Mode = Mode.UNSET
    since_ns: int = 0
    takeover_until_ns: int = 0


def served(before: RunSettings, now_ns: int, grace_s: float, *, relieved: bool) -> RunSettings:
    """Return the settings of a node whose agent starts to serve.

    Where an agent has served already they stay. Otherwise, and where all was being given back, open
    connections may be the kernel's for `grace_s`; not for longer than the kernel runs, for after a
    boot there are none. `relieved` tells that the path before was ebpfmesh with other maps: its
    connections find their backends again.
    """
    if before.mode is Mode.SERVING:
        return before
    if before.mode is Mode.MOVING:  # an agent has died over it
        return RunSettings(Mode.SERVING, before.since_ns, before.takeover_until_ns)
    grace_ns = 0 if relieved else min(int(grace_s * SECOND_NS), now_ns)
    return RunSettings(Mode.SERVING, now_ns, now_ns + grace_ns)


def given_back(before: RunSettings, now_ns: int) -> RunSettings:
    """Return the settings of a node that leaves new flows to the kernel from now on."""
    if before.mode is Mode.GIVING_BACK:
        return before
    return RunSettings(Mode.GIVING_BACK, now_ns, 0)


def moved(before: RunSettings, now_ns: int) -> RunSettings:
    """Return the settings of a node whose flows are just being moved to other maps.

    Nothing begins meanwhile, and known flows go on. It ends by itself: MOVING_NS in bpf/config.h.
    """
    return RunSettings(Mode.MOVING, now_ns, before.takeover_until_ns)


def seconds_left(settings: RunSettings, now_ns: int) -> float:
    """Return how long unknown connections are the kernel's yet."""
    if settings.mode is not Mode.SERVING:
        return 0.0
    return max(0, settings.takeover_until_ns - now_ns) / SECOND_NS
