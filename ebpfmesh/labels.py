# SPDX-License-Identifier: Apache-2.0
"""Service labels, ``ebpfmesh.*``, as a typed policy. Pure, no I/O.

A value that is wrong costs its own label only: the default is used for that one. The exception is
`ALLOW`, which fails closed: an entry that cannot be read allows nobody, the others count, and a
list without any good entry allows nobody at all. What was asked for is a closed door; a typing
error must not open it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from ipaddress import ip_network

from ebpfmesh.model import EndpointMode, Frozen, Scheduler, Service
from ebpfmesh.status import PolicyStatus

PREFIX = "ebpfmesh."
AFFINITY = PREFIX + "affinity"
SCHEDULER = PREFIX + "scheduler"
PREFER = PREFIX + "prefer"
ALLOW = PREFIX + "allow"
READY = PREFIX + "ready"

LISTENING, STARTED = "listening", "started"

SCHEDULERS = {
    "maglev": Scheduler.MAGLEV,
    "random": Scheduler.RANDOM,
    "rr": Scheduler.RR,
    "least-conn": Scheduler.LEAST_CONN,
}

ACCEPTED: Mapping[str, str] = {
    AFFINITY: "client-ip",
    SCHEDULER: ", ".join(SCHEDULERS),
    PREFER: "local",
    ALLOW: "networks or addresses, separated by commas: 192.0.2.0/24,198.51.100.7",
    READY: f"{LISTENING}, {STARTED}",
}
"""Every label, and what it may be, in the words of an error."""

MAX_NETWORKS = 1000
"""How many entries of a list count: all services share one map (MAX_ALLOWED in bpf/config.h)."""

_SHOWN = 60  # characters of a refused value


class Policy(Frozen, frozen=True):
    """What the labels of a service ask for.

    `allow` is None without the label; else the networks (of IPv4 and IPv6, host bits zero) whose
    clients may ask its published ports. `listening`: a task without a health check is ready when it
    listens, not as soon as it is started.
    """

    scheduler: Scheduler = Scheduler.MAGLEV
    affinity: bool = False
    local: bool = False
    allow: frozenset[str] | None = None
    listening: bool = True


class Refused(Frozen, frozen=True):
    """A label that is not followed as it stands: its value, what is accepted, what is done."""

    label: str
    value: str
    accepted: str
    instead: str

    @property
    def text(self) -> str:
        """All of it, in one line."""
        label = "".join(filter(str.isprintable, _shown(self.label)))
        return f"label {label}={self.value!r}: {self.accepted}; {self.instead}"


class Reading(Frozen, frozen=True):
    """A policy, and what was wrong with the labels that it was read from."""

    policy: Policy = Policy()
    refused: tuple[Refused, ...] = ()


def read(labels: Mapping[str, str]) -> Reading:
    """Read a service's labels; those that do not begin with `PREFIX` are not ours."""
    ours = tuple(sorted((k, v) for k, v in labels.items() if k.startswith(PREFIX)))
    return _read(ours) if ours else _NOTHING


def in_words(policy: Policy) -> PolicyStatus:
    """Return the policy in the words of the labels, for people."""
    return PolicyStatus(
        scheduler=next(word for word, one in SCHEDULERS.items() if one is policy.scheduler),
        affinity=ACCEPTED[AFFINITY] if policy.affinity else "",
        prefer=ACCEPTED[PREFER] if policy.local else "",
        allow=None if policy.allow is None else tuple(sorted(policy.allow)),
        ready=LISTENING if policy.listening else STARTED,
    )


def without_effect(service: Service) -> str:
    """Say why labels of the service, though right, change nothing; empty if they do."""
    ours = sorted(label for label in service.labels if label in ACCEPTED)
    if ours and service.mode is not EndpointMode.VIP:
        return f"{', '.join(ours)} without effect: nothing is balanced in endpoint mode dnsrr"
    if ALLOW in ours and not service.ports:
        return f"{ALLOW} without effect: the service publishes no port in mode ingress"
    return ""


_NOTHING = Reading()


@lru_cache(maxsize=4096)
def _read(labels: tuple[tuple[str, str], ...]) -> Reading:
    """The policy of these labels; services seldom change, and every sync asks for all."""
    refused: list[Refused] = []
    fields: dict[str, object] = {}
    for label, value in labels:
        reader = _READERS.get(label)
        if reader is None:
            refused.append(_unknown(label, value))
            continue
        fields |= reader(value.strip(), refused)
    if fields.get("affinity") and fields.get("scheduler", Scheduler.MAGLEV) != Scheduler.MAGLEV:
        refused.append(_contradiction(dict(labels)[SCHEDULER]))
        del fields["scheduler"]
    return Reading(Policy(**fields), tuple(refused))  # type: ignore[arg-type]


Fields = dict[str, object]
Reader = Callable[[str, list[Refused]], Fields]


def _read_affinity(value: str, refused: list[Refused]) -> Fields:
    if value == ACCEPTED[AFFINITY]:
        return {"affinity": True}
    refused.append(_wrong(AFFINITY, value, "a client may get any backend"))
    return {}


def _read_scheduler(value: str, refused: list[Refused]) -> Fields:
    if value in SCHEDULERS:
        return {"scheduler": SCHEDULERS[value]}
    refused.append(_wrong(SCHEDULER, value, "maglev is used"))
    return {}


def _read_prefer(value: str, refused: list[Refused]) -> Fields:
    if value == ACCEPTED[PREFER]:
        return {"local": True}
    refused.append(_wrong(PREFER, value, "no task is preferred"))
    return {}


def _read_ready(value: str, refused: list[Refused]) -> Fields:
    if value in {LISTENING, STARTED}:
        return {"listening": value == LISTENING}
    refused.append(_wrong(READY, value, "listening is used"))
    return {}


def _read_allow(value: str, refused: list[Refused]) -> Fields:
    good = set()
    bad = []
    entries = value.split(",")
    if len(entries) > MAX_NETWORKS:
        accepted, instead = f"accepted: at most {MAX_NETWORKS} entries", "only the first are let in"
        refused.append(Refused(ALLOW, _shown(value), accepted, instead))
    for entry in entries[:MAX_NETWORKS]:
        try:
            good.add(_network(entry.strip()))
        except ValueError:
            bad.append(entry.strip())
    if bad:
        instead = "only the others are let in" if good else "nobody is let in"
        refused.append(_wrong(ALLOW, ",".join(bad), instead))
    return {"allow": frozenset(good)}


def _network(entry: str) -> str:
    """Return it in its one spelling. Raises ValueError, for host bits too: what do they mean."""
    if "%" in entry:
        raise ValueError("a network of one link only")
    return str(ip_network(entry))


_READERS: Mapping[str, Reader] = {
    AFFINITY: _read_affinity,
    SCHEDULER: _read_scheduler,
    PREFER: _read_prefer,
    ALLOW: _read_allow,
    READY: _read_ready,
}


def _wrong(label: str, value: str, instead: str) -> Refused:
    return Refused(label, _shown(value), f"accepted: {ACCEPTED[label]}", instead)


def _unknown(label: str, value: str) -> Refused:
    names = {known.removeprefix(PREFIX): known for known in ACCEPTED}
    close = get_close_matches(label.removeprefix(PREFIX), names, n=1)
    known = f"did you mean {names[close[0]]}?" if close else f"known are {', '.join(ACCEPTED)}"
    return Refused(label, _shown(value), f"no such label, {known}", "it is passed over")


def _contradiction(value: str) -> Refused:
    accepted = f"accepted with {AFFINITY}: maglev"
    return Refused(SCHEDULER, _shown(value), accepted, "maglev is used")


def _shown(value: str) -> str:
    return value if len(value) <= _SHOWN else value[:_SHOWN] + "..."


def problems(services: Mapping[str, Service]) -> Iterator[tuple[Service, Refused]]:
    """Yield every label that is refused, in order of service id."""
    for _, service in sorted(services.items()):
        for refused in read(service.labels).refused:
            yield service, refused
