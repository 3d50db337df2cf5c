# SPDX-License-Identifier: Apache-2.0
"""What keeps an agent from being healthy, in words for `ebpfmesh status`. Pure, no I/O."""

from __future__ import annotations

import msgspec

from ebpfmesh.hub.link import LinkSettings
from ebpfmesh.status import HubStatus


class Condition(msgspec.Struct, frozen=True):
    """How an agent is doing.

    `link` is the one to the other nodes: `link_there` tells whether it exists, `link_up` whether it
    has a carrier. `behind` and `unsaved` are errors, empty if there are none. `uncovered` are tasks
    that get flows, though programs are missing at their links.
    """

    hub: HubStatus
    uptime_s: float
    synced: bool
    programs: int
    link: str
    link_there: bool = True
    link_up: bool = True
    behind: str = ""
    unsaved: str = ""
    uncovered: frozenset[str] = frozenset()


def problems(now: Condition) -> tuple[str, ...]:
    """One line for each; none if the agent is healthy."""
    return tuple(filter(None, (_hub(now), *_node(now), *_disk(now))))


def _hub(now: Condition) -> str:
    """A hub is there, and a manager has confirmed lately what it says."""
    hub = now.hub
    if not hub.connected:
        cause = f": {hub.last_error}" if hub.last_error else ""
        return f"no hub for {hub.since_s:.0f} s{cause}"
    age_s = now.uptime_s if hub.age_s is None else hub.age_s
    if age_s <= LinkSettings().stale_after_s:
        return ""
    since = " that the agent runs" if hub.age_s is None else ""
    return f"no manager has confirmed the Swarm's state for {age_s:.0f} s{since}"


def _node(now: Condition) -> tuple[str, ...]:
    found = []
    if not now.synced:
        found.append("nothing is known of the Swarm yet")
    if now.behind:
        found.append(f"the maps are behind: {now.behind}")
    if not now.link_there:
        found.append(f"the link {now.link} to the other nodes has gone: start the agent again")
    elif not now.link_up:
        found.append(f"the link {now.link} to the other nodes is down")
    if not now.programs:
        found.append("no programs are attached")
    if now.uncovered:
        tasks = ", ".join(sorted(now.uncovered))
        found.append(f"programs are missing at links of tasks that get flows: {tasks}")
    return tuple(found)


def _disk(now: Condition) -> tuple[str, ...]:
    if not now.unsaved:
        return ()
    return (f"a restart without a manager would begin with an old state: {now.unsaved}",)
