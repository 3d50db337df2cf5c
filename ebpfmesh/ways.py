# SPDX-License-Identifier: Apache-2.0
"""Ways to other nodes' tasks through overlays: what they should be, what to put back. Pure, no I/O.

libnetwork writes a permanent neighbour and a forwarding entry for every remote endpoint, and takes
both out as soon as its gossip does not hear the endpoint's dockerd any more, whether the task lives
or not. After a partition it may miss those of new tasks for minutes. What has been there once is
put back for as long as the Swarm's state has the task; what has not come for a while is written.

The overlay's bridge learns besides that an endpoint is behind the tunnel, and believes it for five
minutes after its last frame. Docker gives addresses again, and a MAC with each: a task that gets
one here meanwhile would not be reached before it sends a frame of its own. So what was learned of
an endpoint that no other node has any more is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from ebpfmesh.desired import mac_of
from ebpfmesh.model import BackendState, Frozen, LocalView, MeshState

PATIENCE_S = 3.0
"""Gossip brings the way to a new task within a second; it has so long before we write it."""

LINGER_S = 5.0
"""libnetwork takes its own entries out when a task ends: it has so long before we do."""


class Way(Frozen, frozen=True, order=True):
    """A remote endpoint: its address and MAC, and the VTEP of its node."""

    address: str
    mac: str
    vtep: str


class Goal(Frozen, frozen=True):
    """A task that lives elsewhere."""

    address: str
    vtep: str

    def usual_way(self) -> Way:
        """By the MAC that Docker makes of an address; the Swarm does not tell it."""
        return Way(self.address, mac_of(self.address), self.vtep)


class Found(msgspec.Struct, frozen=True):
    """What an overlay's namespace holds for good: address -> MAC, MAC -> VTEP.

    And the MACs that its bridge has learned to be behind the tunnel.
    """

    neighbours: dict[str, str] = {}
    forwards: dict[str, str] = {}
    learned: frozenset[str] = frozenset()

    def has(self, way: Way) -> bool:
        """Whether the way is whole."""
        to = self.forwards.get(way.mac)
        return self.neighbours.get(way.address) == way.mac and to == way.vtep

    def is_of_another(self, way: Way) -> bool:
        """Whether its address, or its MAC, leads somewhere else by now."""
        to = self.forwards.get(way.mac, way.vtep)
        return self.neighbours.get(way.address, way.mac) != way.mac or to != way.vtep

    def to(self, goal: Goal) -> Way | None:
        """The way to a task, if there is one."""
        mac = self.neighbours.get(goal.address, "")
        way = Way(goal.address, mac, goal.vtep)
        return way if self.has(way) else None


class Repair(msgspec.Struct, frozen=True):
    """What to put back, and what to take out, by task id; which MACs the bridge shall forget."""

    put: dict[str, Way] = {}
    take: dict[str, Way] = {}
    forget: frozenset[str] = frozenset()


def goals(mesh: MeshState, local: LocalView) -> dict[str, dict[str, Goal]]:
    """Return, by the namespaces of this node's plain overlays, the tasks that live elsewhere.

    One that has been told to stop is left to libnetwork.
    """
    networks = {
        net.vni: net.id for net in mesh.networks.values() if not (net.ingress or net.encrypted)
    }
    places = {a.netns: networks[a.vni] for a in local.attachments if a.vni in networks}
    found: dict[str, dict[str, Goal]] = {netns: {} for netns in places}
    for netns, network in places.items():
        for task in mesh.tasks.values():
            node = mesh.nodes.get(task.node_id)
            address = task.addresses.get(network)
            if node is None or node.id == local.node_id or not node.vtep or not address:
                continue
            if task.state < BackendState.STOPPING:
                found[netns][task.id] = Goal(address, node.vtep)
    return found


class Ways:
    """What one overlay's namespace has had, and what of it is ours."""

    def __init__(self) -> None:
        self._seen: dict[str, Way] = {}
        self._missed_s: dict[str, float] = {}
        self._ours: dict[str, Way] = {}
        self._over_s: dict[str, float] = {}

    def repair(self, wanted: Mapping[str, Goal], found: Found, now_s: float) -> Repair:
        """Return what to do; what is put counts as ours from then on."""
        put = dict(self._missing(wanted, found, now_s))
        self._ours |= put
        take = dict(self._over(wanted, found, now_s))
        held = found.forwards.keys() | {way.mac for way in put.values()}
        return Repair(put, take, found.learned - held)

    def _missing(
        self, wanted: Mapping[str, Goal], found: Found, now_s: float
    ) -> Iterator[tuple[str, Way]]:
        self._seen = {task: way for task, way in self._seen.items() if task in wanted}
        there = {task: way for task, goal in wanted.items() if (way := found.to(goal)) is not None}
        self._seen |= there
        self._missed_s = {
            task: self._missed_s.get(task, now_s) for task in wanted if task not in there
        }
        for task, since_s in self._missed_s.items():
            way = self._known(task, wanted[task], now_s - since_s)
            if way is not None and not found.is_of_another(way):
                yield task, way

    def _known(self, task: str, goal: Goal, missed_for_s: float) -> Way | None:
        """The way as it was, or as it should be if it has not come for so long."""
        way = self._seen.get(task)
        if way is not None and (way.address, way.vtep) == (goal.address, goal.vtep):
            return way
        return goal.usual_way() if missed_for_s >= PATIENCE_S else None

    def _over(
        self, wanted: Mapping[str, Goal], found: Found, now_s: float
    ) -> Iterator[tuple[str, Way]]:
        """Those of ours whose task has been gone for a while, unless another has the address."""
        self._over_s = {
            task: self._over_s.get(task, now_s) for task in self._ours if task not in wanted
        }
        taken = _addresses(wanted.values())
        for task, since_s in self._over_s.items():
            if now_s - since_s < LINGER_S:
                continue
            way = self._ours.pop(task)
            if way.address not in taken and found.has(way):
                yield task, way


def _addresses(wanted: Iterable[Goal]) -> frozenset[str]:
    return frozenset(goal.address for goal in wanted)
