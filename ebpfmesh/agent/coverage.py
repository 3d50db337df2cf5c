# SPDX-License-Identifier: Apache-2.0
"""Which tasks of this node would be ready, but for programs at their links. No I/O.

Programs are put there in a thread of their own, which the kernel may keep waiting for tenths of a
second; maps wait for none of that. What passes a link without programs is not translated, so until
then a task counts as one that is starting. Once covered, a container stays so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping, Set
from typing import NamedTuple

import structlog

from ebpfmesh.agent.senders import NETWORK_ID, network_of
from ebpfmesh.datapath.discover import Sandbox
from ebpfmesh.model import Attachment, BackendState
from ebpfmesh.swarm.local import LocalContainer

log = structlog.get_logger(__name__)

BOUND_S = 5.0

# The beginning of a network's id, empty for the node's own namespace; the link's number there.
Place = tuple[str, int]


_Key = tuple[str, int]


class _Wait(NamedTuple):
    """When it began (nanoseconds since 1970), and when it is over at the latest (monotonic)."""

    since_ns: int
    until_s: float


class Coverage:
    """Keeps the tasks that wait for programs, and those that have waited for too long.

    A container counts as ready `bound_s` after it was first found to wait for nothing else.
    """

    def __init__(
        self,
        bound_s: float = BOUND_S,
        *,
        now_s: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.waiting: dict[str, BackendState] = {}
        self.overdue: frozenset[str] = frozenset()
        self._bound_s = bound_s
        self._now_s = now_s
        self._wall_ns = wall_ns
        self._adopted: frozenset[str] = frozenset()
        self._covered: set[_Key] = set()
        self._waits: dict[_Key, _Wait] = {}
        self._over: set[_Key] = set()

    def adopt(self, task_ids: Iterable[str]) -> None:
        """Take these tasks for covered: they got flows before."""
        self._adopted = frozenset(task_ids)

    def look(
        self,
        ready: Iterable[LocalContainer],
        sandbox: Callable[[LocalContainer], Sandbox | None],
        networks: Container[str],
        attached: Iterable[Attachment],
    ) -> int:
        """Look at those that are ready otherwise; `networks` are the ids of the Swarm's.

        Returns since when the one that has waited for longest, of those that wait no more, did so
        (nanoseconds since 1970); 0 if there is none.
        """
        living = {_key(container): container for container in ready}
        fresh = [one for key, one in living.items() if key not in self._covered]
        standing = {(network_of(a.netns), a.ifindex) for a in attached} if fresh else set()
        self._covered &= living.keys()
        self._covered |= {
            _key(one)
            for one in fresh
            if one.task_id in self._adopted or _is_covered(one, sandbox(one), networks, standing)
        }
        before, waited = self._waits, self._waits.keys() - self._over
        self._waits = {
            key: before.get(key) or _Wait(self._wall_ns(), self._now_s() + self._bound_s)
            for key in living.keys() - self._covered
        }
        self._judge(living)
        came = (waited & living.keys()) - (self._waits.keys() - self._over)
        return min((before[key].since_ns for key in came), default=0)

    def _judge(self, living: Mapping[_Key, LocalContainer]) -> None:
        """Tell those apart whose time to wait has passed."""
        now_s = self._now_s()
        over = {key for key, wait in self._waits.items() if now_s >= wait.until_s}
        for key in over - self._over:
            log.warning("task.not_covered", task=living[key].task_id, ready_after_s=self._bound_s)
        self._over = over
        self.overdue = frozenset(living[key].task_id for key in over)
        waiting = (living[key].task_id for key in self._waits.keys() - over)
        self.waiting = dict.fromkeys(waiting, BackendState.STARTING)


def _is_covered(
    container: LocalContainer,
    sandbox: Sandbox | None,
    networks: Container[str],
    standing: Set[Place],
) -> bool:
    """Tell whether there are programs at each of its links that flows may come by.

    A link of a network that is not the Swarm's never has any. Until a container's own namespace has
    been seen nobody knows which links are its.
    """
    mine = {key: end for key, end in container.endpoints.items() if key in networks}
    if sandbox is None:
        return not mine
    places = {(key[:NETWORK_ID], sandbox.peers.get(end.address, 0)) for key, end in mine.items()}
    if sandbox.gateway is not None:
        places.add(("", sandbox.gateway.ifindex))
    return places <= standing


def _key(container: LocalContainer) -> _Key:
    """A container that was started again is another one, with other links."""
    return container.id, container.pid
