# SPDX-License-Identifier: Apache-2.0
"""Which failures a change may cause, and which not. Pure, no I/O.

Times are of the machine's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ..loops import End, Failure, Report


class Bounds(msgspec.Struct, frozen=True):
    """After how long nobody asks a task any more, or gives it a new flow.

    One whose process was killed, whose node was cut off, that has left as it should. `answer_s`:
    after how long a request that nobody has answered is lost.
    """

    kill_s: float = 0.05
    cut_s: float = 3.0
    left_s: float = 1.0
    answer_s: float = 5.0


BUSY = Bounds(kill_s=5.0, cut_s=10.0, left_s=5.0, answer_s=10.0)
"""For machines that have other things to do: what takes longer is lost, not late."""

_FRESH = frozenset({"once", "udp"})
_DATAGRAMS = frozenset({"udp", "udp-kept"})


class Death(msgspec.Struct, frozen=True):
    """When a process was killed, and when it had ended: on a busy machine that takes its time."""

    from_s: float
    until_s: float


class Cut(msgspec.Struct, frozen=True):
    """When a task's node lost its cable, and when it served again."""

    from_s: float
    until_s: float


class Isolation(msgspec.Struct, frozen=True):
    """An address that nobody reached."""

    address: str
    from_s: float
    until_s: float


class Absence(msgspec.Struct, frozen=True):
    """When a node with clients of VIPs had no agent, these VIPs, and who left meanwhile.

    Its programs go by what it knew last: connections find out, datagrams do not.
    """

    targets: frozenset[str]
    left: frozenset[str]
    from_s: float
    until_s: float


class Marks(msgspec.Struct):
    """What a change has done, as far as that excuses anything.

    `left` holds the servers that were taken away as they should be, `killed` and `cut` those that
    were not, and when.
    """

    left: set[str] = msgspec.field(default_factory=set)
    killed: dict[str, Death] = msgspec.field(default_factory=dict)
    cut: dict[str, Cut] = msgspec.field(default_factory=dict)
    isolated: list[Isolation] = msgspec.field(default_factory=list)
    absent: list[Absence] = msgspec.field(default_factory=list)

    def add(self, other: Marks) -> None:
        self.left |= other.left
        self.killed |= other.killed
        self.cut |= other.cut
        self.isolated += other.isolated
        self.absent += other.absent

    @property
    def gone(self) -> set[str]:
        """Servers that are not there any more, one way or the other."""
        return self.left | self.killed.keys() | self.cut.keys()


def inexcusable(report: Report, marks: Marks, bounds: Bounds) -> list[Failure]:
    """Failures that nothing excuses, and held connections that a server that stays has closed."""
    found = [failure for failure in report.failures if not _excused(failure, marks, bounds)]
    return [*found, *_ended(report, marks)]


def _excused(failure: Failure, marks: Marks, bounds: Bounds) -> bool:
    """A request in flight at its end, or asked before anybody could know."""
    return (
        any(_meets(failure, isolation) for isolation in marks.isolated)
        or any(_is_blind(failure, absence, bounds.left_s) for absence in marks.absent)
        or any(_within(failure, cut.from_s, bounds.cut_s) for cut in marks.cut.values())
        or _is_held_there(failure, marks.cut.get(failure.host))
        or _rested_there(failure, marks.killed.get(failure.host))
        or any(
            _within(failure, death.from_s, death.until_s - death.from_s + bounds.kill_s)
            and _may_concern(failure, host)
            for host, death in marks.killed.items()
        )
    )


def _meets(failure: Failure, isolation: Isolation) -> bool:
    during = isolation.from_s < failure.at_s and failure.asked_s < isolation.until_s
    return _asked(failure) == isolation.address and during


def _is_blind(failure: Failure, absence: Absence, bound_s: float) -> bool:
    """A datagram that nobody could lead elsewhere, to a task that was not there any more."""
    during = absence.from_s < failure.at_s and failure.asked_s < absence.until_s + bound_s
    if not during or failure.mode not in _DATAGRAMS or _asked(failure) not in absence.targets:
        return False
    return bool(absence.left) if failure.mode in _FRESH else failure.host in absence.left


def _asked(failure: Failure) -> str:
    """The address."""
    return failure.target.rpartition(":")[0]


def _is_held_there(failure: Failure, cut: Cut | None) -> bool:
    """On a connection that rested when its task was cut off: nobody else can answer that."""
    return failure.mode == "hold" and cut is not None and failure.asked_s < cut.until_s


def _rested_there(failure: Failure, death: Death | None) -> bool:
    """On a connection that rested when its task was killed: it hears that when it is next asked."""
    return failure.mode == "hold" and death is not None and failure.at_s > death.from_s


def _within(failure: Failure, began_s: float, bound_s: float) -> bool:
    return began_s < failure.at_s and failure.asked_s < began_s + bound_s


def _may_concern(failure: Failure, host: str) -> bool:
    """Of a request that opens something new, the answer before does not tell where it goes."""
    return failure.host == host or failure.stage == "connect" or failure.mode in _FRESH


def _ended(report: Report, marks: Marks) -> Iterator[Failure]:
    for end in report.closed:
        if end.host not in marks.gone:
            fields = {name: getattr(end, name) for name in End.__struct_fields__}
            yield Failure(**fields, kind="closed", stage="held", took_s=0.0)
