# SPDX-License-Identifier: Apache-2.0
"""Keeps the ways to other nodes' tasks in the overlays: looks, and puts back what is missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

from ebpfmesh.agent.worker import Worker
from ebpfmesh.datapath.overlay import overlay_of
from ebpfmesh.model import LocalView, MeshState
from ebpfmesh.ways import Goal, Repair, Ways, goals

log = structlog.get_logger(__name__)

LOOK_S = 0.5
REST = 10
"""A look is followed by a rest of this many times its own duration, at least."""


class WayKeeper:
    """Looks again and again.

    Nothing tells when an entry goes: a socket in each namespace would hear it, but keep the
    namespace alive; one that hears all namespaces takes a capability that agents do not have.
    """

    def __init__(self, worker: Worker, known: Callable[[], tuple[MeshState, LocalView | None]]):
        """`known` tells the Swarm's state, and the node's as far as it has been seen."""
        self._worker = worker
        self._known = known
        self._ways: dict[str, Ways] = {}
        self._seen: tuple[object, object] = (None, None)
        self._goals: dict[str, dict[str, Goal]] = {}
        self._error = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began_s = time.monotonic()
            await self.look()
            await asyncio.sleep(max(LOOK_S, REST * (time.monotonic() - began_s)))

    async def look(self) -> None:
        """Puts back what is missing now, and takes out what is over of ours."""
        mesh, local = self._known()
        if not mesh.version or local is None:
            return
        wanted = self._wanted(mesh, local)
        self._ways = {netns: self._ways.get(netns) or Ways() for netns in wanted}
        names = {a.netns: a.vni for a in local.attachments}
        networks = {net.vni: net.name for net in mesh.networks.values()}
        for netns, tasks in wanted.items():
            repair = await self._worker(self._repair, netns, tasks)
            self._say(repair, networks[names[netns]])

    def _wanted(self, mesh: MeshState, local: LocalView) -> dict[str, dict[str, Goal]]:
        """Made anew only where something may have changed."""
        if self._seen[0] is not mesh or self._seen[1] is not local.attachments:
            self._seen, self._goals = (mesh, local.attachments), goals(mesh, local)
        return self._goals

    def _repair(self, netns: str, wanted: Mapping[str, Goal]) -> Repair:
        try:
            with overlay_of(netns) as overlay:
                if overlay is None:
                    return Repair()
                repair = self._ways[netns].repair(wanted, overlay.found(), time.monotonic())
                for way in repair.put.values():
                    overlay.put(way)
                for way in repair.take.values():
                    overlay.take(way)
                for mac in repair.forget:
                    overlay.forget(mac)
        except FileNotFoundError:
            return Repair()
        except OSError as error:
            if str(error) != self._error:
                self._error = str(error)
                log.warning("ways.not_kept", netns=netns, error=self._error)
            return Repair()
        self._error = ""
        return repair

    def _say(self, repair: Repair, network: str) -> None:
        for event, ways in (("way.kept", repair.put), ("way.released", repair.take)):
            for task, way in ways.items():
                log.info(event, network=network, task=task, address=way.address, vtep=way.vtep)
