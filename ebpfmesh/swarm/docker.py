# SPDX-License-Identifier: Apache-2.0
"""A typed face for aiodocker, which is untyped: one method per request that is made."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol, TypeVar

import aiohttp
from aiodocker import Docker, DockerError
from aiodocker.events import DockerEvents
from aiodocker.networks import DockerNetwork

from ebpfmesh.swarm.api import (
    ContainerDoc,
    InfoDoc,
    NetworkDoc,
    NodeDoc,
    ServiceDoc,
    TaskDoc,
    decode,
    decode_json,
)
from ebpfmesh.swarm.errors import DockerRefused, DockerUnavailable, UnexpectedAnswer
from ebpfmesh.swarm.events import WANTED_ACTIONS, Event, Kind, event
from ebpfmesh.swarm.local import TASK_ID

T = TypeVar("T")

NO_CONNECTION = 900
"""aiodocker's status for a dockerd that it could not reach."""

NOT_FOUND = 404


class EventLines(Protocol):
    """aiodocker's end of a stream of events."""

    async def get(self) -> object:
        """The next event, None at the end of the stream."""
        ...


class Engine:
    """One dockerd. Every failure is a `SwarmError` with its cause.

    Made inside a running event loop, as aiodocker demands.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._docker: Any = Docker(url=url, timeout=aiohttp.ClientTimeout(total=timeout_s))

    async def close(self) -> None:
        """Let go of the connections to dockerd."""
        await self._docker.close()

    async def info(self) -> InfoDoc:
        """The daemon, and its place in a Swarm."""
        return decode(await self._ask(self._docker.system.info()), InfoDoc)

    async def services(self) -> list[ServiceDoc]:
        """All services; a manager answers."""
        return decode(await self._ask(self._docker.services.list()), list[ServiceDoc])

    async def tasks(self) -> list[TaskDoc]:
        """All tasks, old ones too; a manager answers.

        Nothing else is as long, or asked for as often.
        """
        return decode_json(await self._ask(self._text("tasks")), list[TaskDoc])

    async def nodes(self) -> list[NodeDoc]:
        """All nodes; a manager answers."""
        return decode(await self._ask(self._docker.nodes.list()), list[NodeDoc])

    async def networks(self) -> list[NetworkDoc]:
        """The Swarm's networks, on a manager, and this node's own."""
        return decode(await self._ask(self._docker.networks.list()), list[NetworkDoc])

    async def network(self, name: str) -> NetworkDoc | None:
        """One network with its local endpoints, None if there is none of that name."""
        inspect: Any = DockerNetwork
        answer = await self._find(inspect(self._docker, name).show())
        return None if answer is None else decode(answer, NetworkDoc)

    async def task_container_ids(self) -> list[str]:
        """The running containers that Swarm made."""
        filters = json.dumps({"label": [TASK_ID]})
        found = await self._ask(self._docker.containers.list(filters=filters))
        return [container.id for container in found]

    async def container(self, container_id: str) -> ContainerDoc | None:
        """One container, None if it is gone."""
        answer = await self._find(self._docker.containers.container(container_id).show())
        return None if answer is None else decode(answer, ContainerDoc)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Event]]:
        """Follow the events from now on, until dockerd closes the stream.

        dockerd replays what happened since the given second, so nothing is lost between a
        snapshot taken inside this context and the first event.
        """
        since = int(time.time())
        await self.info()
        make: Any = DockerEvents
        stream = make(self._docker)
        lines: EventLines = stream.subscribe(create_task=False)
        running = asyncio.create_task(
            stream.run(since=since, filters=_event_filters()), name="docker-events"
        )
        try:
            yield self._events(lines, running)
        finally:
            running.cancel()
            await asyncio.wait([running])

    async def _events(self, lines: EventLines, running: asyncio.Task[None]) -> AsyncIterator[Event]:
        while (line := await lines.get()) is not None:
            if (decoded := event(line)) is not None:
                yield decoded
        await self._ask(running)
        raise DockerUnavailable(f"dockerd at {self.url} closed its stream of events")

    async def _text(self, path: str) -> bytes:
        """An answer as it comes; aiodocker's public methods make dicts of it."""
        async with self._docker._query(path) as response:
            text: bytes = await response.read()
            return text

    async def _find(self, request: Awaitable[T]) -> T | None:
        """The answer, or None for an object that does not exist."""
        try:
            return await self._ask(request)
        except DockerRefused as error:
            if isinstance(error.__cause__, DockerError) and error.__cause__.status == NOT_FOUND:
                return None
            raise

    async def _ask(self, request: Awaitable[T]) -> T:
        with self._explained():
            return await request

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn every failure of a request into one of ours, with what to do about it."""
        try:
            yield
        except DockerError as error:
            if error.status != NO_CONNECTION:
                raise DockerRefused(f"dockerd refused: {error.message}") from error
            raise DockerUnavailable(self._advice(error)) from error
        except TimeoutError as error:
            raise DockerUnavailable(
                f"dockerd at {self.url} does not answer within {self._timeout_s:g} s"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise DockerUnavailable(self._advice(error)) from error
        except ValueError as error:
            raise UnexpectedAnswer(f"dockerd at {self.url} answered no JSON: {error}") from error

    def _advice(self, error: Exception) -> str:
        """What to tell the operator: which socket, what is wrong with it, what to do."""
        cause = _os_error(error)
        if isinstance(cause, PermissionError):
            return f"no permission to open {self.url}; run as root or in the group `docker`"
        if isinstance(cause, FileNotFoundError):
            return f"{self.url} does not exist; is dockerd running, is this its socket's path?"
        if isinstance(cause, ConnectionRefusedError):
            return f"nobody listens on {self.url}; is dockerd running?"
        return f"the connection to dockerd at {self.url} failed: {cause}"


def _os_error(error: BaseException) -> BaseException:
    """The system's own error below the HTTP client's, if there is one."""
    current: BaseException | None = error
    while current is not None:
        found = getattr(current, "os_error", current)
        if isinstance(found, OSError) and not isinstance(found, aiohttp.ClientError):
            return found
        current = current.__cause__ or current.__context__
    return error


def _event_filters() -> str:
    return json.dumps({"type": [kind.value for kind in Kind], "event": list(WANTED_ACTIONS)})
