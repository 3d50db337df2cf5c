# SPDX-License-Identifier: Apache-2.0
"""The task containers of this node, each as dockerd has described it last.

dockerd keeps whoever asks about a container waiting while it starts it or clears it away, half a
second and more. So each is asked about by itself, and no answer waits for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from ebpfmesh.swarm.api import ContainerDoc, NetworkDoc
from ebpfmesh.swarm.errors import SwarmError
from ebpfmesh.swarm.local import LocalContainer, local_container

_RETRY_S = 1.0

# What can be asked, beside the ids of containers.
_LIST, _GATEWAYS = "list", "gateways"


class Source(Protocol):
    """The part of `SwarmClient` that this needs."""

    async def task_container_ids(self) -> list[str]:
        """List the running ones."""
        ...

    async def container(self, container_id: str) -> ContainerDoc | None:
        """Describe one; None if it is gone."""
        ...

    async def gateways(self) -> NetworkDoc | None:
        """Say who has which address on docker_gwbridge."""
        ...


class Containers:
    """Keeps `listed` up to date, and calls `changed` whenever it is another.

    `told` hears of each question that dockerd has answered, or with which error it has not: it is
    asked again then.
    """

    def __init__(
        self,
        source: Source,
        changed: Callable[[], None],
        told: Callable[[str, SwarmError | None], None],
    ) -> None:
        self.listed: tuple[LocalContainer, ...] | None = None
        self._source = source
        self._changed = changed
        self._told = told
        self._docs: dict[str, ContainerDoc] = {}
        self._containers: dict[str, LocalContainer | None] = {}  # None: it runs no task
        self._gateways: NetworkDoc | None = None
        self._wanted = {_LIST, _GATEWAYS}
        self._asked: set[str] = set()
        self._wake = asyncio.Event()
        self._wake.set()

    def look(self) -> None:
        """Any of them may have changed."""
        self._want(_LIST, _GATEWAYS)

    def look_at(self, container_id: str) -> None:
        """One of them may have changed."""
        self._want(container_id, _GATEWAYS)

    def _want(self, *questions: str) -> None:
        self._wanted.update(questions)
        self._wake.set()

    async def run(self) -> None:
        """Asks until cancelled; what is wanted again while it is asked is asked once more."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for question in self._wanted - self._asked:
                    self._wanted.discard(question)
                    self._asked.add(question)
                    group.create_task(self._ask(question), name=f"docker {question}")

    async def _ask(self, question: str) -> None:
        try:
            await self._answer(question)
        except SwarmError as error:
            self._told(question, error)
            await asyncio.sleep(_RETRY_S)
            self._wanted.add(question)
        else:
            self._told(question, None)
        self._asked.discard(question)
        self._wake.set()
        self._list()

    async def _answer(self, question: str) -> None:
        if question == _LIST:
            # One that is not listed may have been started meanwhile: it is asked about, too.
            self._want(*await self._source.task_container_ids(), *self._docs)
        elif question == _GATEWAYS:
            self._gateways = await self._source.gateways()
            self._containers = {
                k: local_container(v, self._gateways) for k, v in self._docs.items()
            }
        elif (doc := await self._source.container(question)) and doc.state.running:
            self._docs[question] = doc
            self._containers[question] = local_container(doc, self._gateways)
        else:
            self._docs.pop(question, None)
            self._containers.pop(question, None)

    def _list(self) -> None:
        """Those that are known; at first only when each of them is."""
        if self.listed is None and self._wanted | self._asked:
            return
        listed = tuple(one for one in self._containers.values() if one is not None)
        if listed != self.listed:
            self.listed = listed
            self._changed()
