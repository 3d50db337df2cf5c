# SPDX-License-Identifier: Apache-2.0
"""The flow of an event: from dockerd to the maps of the node, and to the hubs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from prometheus_client import generate_latest

from ebpfmesh.agent.coverage import Coverage
from ebpfmesh.agent.journal import Journal
from ebpfmesh.agent.keeper import Keeper
from ebpfmesh.agent.offers import Offers
from ebpfmesh.agent.readiness import Readiness
from ebpfmesh.agent.reconcile import Reconciler
from ebpfmesh.agent.viewer import Viewer
from ebpfmesh.agent.worker import Workers
from ebpfmesh.datapath.discover import Sandbox
from ebpfmesh.datapath.listening import Listener
from ebpfmesh.model import (
    Attachment,
    BackendKey,
    BackendState,
    Desired,
    EndpointMode,
    LocalTask,
    LocalView,
    MeshState,
    Network,
    Node,
    Port,
    Protocol,
    Service,
    Task,
)
from ebpfmesh.swarm.api import (
    ContainerConfig,
    ContainerDoc,
    ContainerState,
    EndpointDoc,
    NetworkDoc,
    NetworkSettings,
)
from ebpfmesh.swarm.errors import DockerUnavailable
from ebpfmesh.swarm.events import Event, Kind
from ebpfmesh.swarm.local import SERVICE_ID, TASK_ID, Endpoint, LocalContainer

READY, STARTING, DRAINING, STOPPING, GONE = BackendState
PATIENCE_S = 20.0
LONG_AGO_S = 1.0
WEB = Service("web", "web", EndpointMode.VIP, {}, (Port(Protocol.TCP, 8080, 80),))
CONTAINER = LocalContainer("c1", "t1", "web", "/ns/c1", 7, READY, started_s=LONG_AGO_S)
TASK = Task("t1", "web", "n1", READY, {"net0": "10.0.0.3"})
MESH = MeshState(
    version=1,
    nodes={"n1": Node("n1", "one", "192.0.2.11", "192.0.2.11")},
    networks={"net0": Network("net0", "ingress", 4096, ingress=True)},
    services={"web": WEB},
    tasks={"t1": TASK},
)


def doc_of(container: LocalContainer) -> ContainerDoc:
    """As dockerd describes it."""
    started = datetime.fromtimestamp(container.started_s, tz=UTC).isoformat()
    return ContainerDoc(
        container.id,
        ContainerState("running", running=True, pid=container.pid, started_at=started),
        ContainerConfig({TASK_ID: container.task_id, SERVICE_ID: container.service_id}),
        NetworkSettings(
            container.sandbox,
            networks={
                key: EndpointDoc(network_id=key, ip_address=end.address)
                for key, end in container.endpoints.items()
            },
        ),
    )


class FakeNode:
    """dockerd, links, sockets and maps of one node."""

    def __init__(self, seen: Sequence[str] = (), served: Sequence[str] = ()) -> None:
        self.containers = [CONTAINER]
        self.answering, self.seen, self.placing = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.writing = asyncio.Event()
        for each in (self.answering, self.seen, self.placing, self.writing):
            each.set()
        self.begun = 0
        self.busy: set[str] = set()
        self.containers_seen: Sequence[LocalContainer] = ()
        self.error = ""
        self.lists = self.looks = 0
        self.listening: set[Listener] = set()
        self.attached: Set[Attachment] = frozenset()
        self.attachments: frozenset[Attachment] = frozenset()
        self.desired = self.actual = Desired()
        self.peers: dict[str, int] = {}
        self.sync_error: Exception | None = None
        self.fails_late = False
        self.link_up = True
        self.heard: list[dict[str, BackendState]] = []
        self.reports: list[tuple[dict[str, BackendState], int]] = []
        workers = SimpleNamespace(
            maps=self._write, looks=self._see, links=self._place, sockets=self._call
        )
        readiness = Readiness(1000.0, look=lambda _: frozenset(self.listening))
        self.keeper = Keeper(
            self,
            cast(Viewer, self),
            cast(Reconciler, self),
            cast(Workers, workers),
            readiness=readiness,
            coverage=Coverage(),
            offers=Offers(served),
            journal=Journal(self.actual),
            report=self._report,
            seen=seen,
        )

    @staticmethod
    async def _call(function: Callable[..., Any], *args: object, **kwargs: object) -> Any:
        await asyncio.sleep(0)
        return function(*args, **kwargs)

    async def _write(self, function: Callable[..., Any], *args: object, **kwargs: object) -> Any:
        self.begun += 1
        await self.writing.wait()
        return await self._call(function, *args, **kwargs)

    async def _see(self, function: Callable[..., Any], *args: object) -> Any:
        result = function(*args)
        await self.seen.wait()
        return result

    async def _place(self, function: Callable[..., Any], *args: object, **kwargs: object) -> Any:
        await self.placing.wait()
        return function(*args, **kwargs)

    def _report(self, _vtep: str, tasks: dict[str, BackendState], origin_ns: int) -> None:
        """The hubs hear only of what is new."""
        if not self.reports or tasks != self.reports[-1][0]:
            self.reports.append((tasks, origin_ns))

    async def task_container_ids(self) -> list[str]:
        self.lists += 1
        await self._answer()
        return [container.id for container in self.containers]

    async def container(self, container_id: str) -> ContainerDoc | None:
        await self._answer()
        while container_id in self.busy:
            await asyncio.sleep(0)
        return next((doc_of(c) for c in self.containers if c.id == container_id), None)

    async def gateways(self) -> NetworkDoc | None:
        return None

    async def _answer(self) -> None:
        await self.answering.wait()
        if self.error:
            raise DockerUnavailable(self.error)

    def look_at_links(self) -> None:
        self.looks += 1

    def look_at_tasks(self, containers: Sequence[LocalContainer]) -> None:
        self.containers_seen = containers

    def view(
        self, containers: Sequence[LocalContainer], known: Mapping[str, BackendState]
    ) -> LocalView:
        assert containers is self.containers_seen
        tasks = {
            c.task_id: LocalTask(c.task_id, c.id, max(c.state, known.get(c.task_id, READY)))
            for c in containers
        }
        return LocalView(
            "n1",
            "192.0.2.11",
            "eth0",
            tasks=tasks,
            attachments=self.attachments,
            link_up=self.link_up,
        )

    def sandbox(self, container: LocalContainer) -> Sandbox | None:
        assert container in self.containers_seen
        return Sandbox(None, {}, self.peers)

    def sync(self, desired: Desired, *, whole: bool, touched: object) -> int:
        del whole, touched  # of the Reconciler's interest
        if self.sync_error:
            self.actual = desired if self.fails_late else self.actual
            raise self.sync_error
        steps = int(desired != self.desired)
        self.desired = self.actual = desired
        return steps

    def attach(self, desired: Desired, *, whole: bool) -> int:  # noqa: ARG002 - as the Reconciler
        self.attached = desired.attachments
        return 0

    def tell(self, states: Mapping[str, BackendState]) -> None:
        if states:
            self.heard.append(dict(states))

    # -- what is asked ----------------------------------------------------------------------

    @property
    def state(self) -> BackendState | None:
        backend = self.desired.backends.get(BackendKey("t1", 4096))
        return backend.state if backend else None

    def told(self, action: str, detail: str = "", **attributes: str) -> int:
        """dockerd tells; returns when it says that it happened."""
        at_ns = time.time_ns()
        attributes = {TASK_ID: "t1", **attributes}
        self.keeper.notice(Event(Kind.CONTAINER, action, "c1", "local", detail, attributes, at_ns))
        return at_ns

    def converged(self) -> int:
        """How many changes were followed so far."""
        for line in generate_latest(self.keeper.convergence.registry).decode().splitlines():
            if line.startswith("ebpfmesh_convergence_seconds_count"):
                return int(float(line.split()[1]))
        raise AssertionError


@asynccontextmanager
async def running(
    mesh: MeshState = MESH,
    seen: Sequence[str] = (),
    served: Sequence[str] = (),
    **changes: object,
) -> AsyncIterator[FakeNode]:
    node = FakeNode(seen, served)
    for name, value in changes.items():
        setattr(node, name, value)
    node.keeper.take_state(mesh)
    task = asyncio.create_task(node.keeper.run())
    try:
        yield node
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("action", "detail", "attributes", "state"),
    [
        ("die", "", {}, GONE),
        ("stop", "", {}, GONE),
        ("destroy", "", {}, GONE),
        ("kill", "", {"signal": "15"}, STOPPING),
        ("kill", "", {"signal": "9"}, STOPPING),
        ("health_status", "unhealthy", {}, DRAINING),
    ],
)
async def test_bad_news_reaches_maps_and_hubs_before_dockerd_is_asked(
    action: str, detail: str, attributes: dict[str, str], state: BackendState
) -> None:
    async with running() as node:
        await until(lambda: node.state is READY)
        node.answering.clear()
        at_ns = node.told(action, detail, **attributes)
        assert node.reports[-1] == ({"t1": state}, at_ns)
        await until(lambda: node.state is state)
        await until(lambda: node.converged() == 1)


@pytest.mark.asyncio
async def test_while_dockerd_lists_its_containers_the_swarms_changes_are_followed() -> None:
    async with running() as node:
        await until(lambda: node.state is READY)
        node.answering.clear()
        node.keeper.look_again("a test", containers=True)
        await until(lambda: node.lists == 2)
        leaving = msgspec.structs.replace(TASK, state=DRAINING)
        node.keeper.take_state(msgspec.structs.replace(MESH, version=2, tasks={"t1": leaving}))
        await until(lambda: node.state is DRAINING)


@pytest.mark.asyncio
async def test_a_task_that_the_swarm_knows_of_first_is_not_gone() -> None:
    """Else those that it replaces would not go on until it listens."""
    async with running(containers=[]) as node:
        await until(lambda: node.state is STARTING)
        node.containers = [CONTAINER]
        node.told("start")
        await until(lambda: node.state is READY)
        node.containers = []
        node.keeper.look_again("a test", containers=True)
        await until(lambda: node.state is GONE)


@pytest.mark.asyncio
async def test_a_task_that_ended_while_no_agent_ran_is_gone() -> None:
    async with running(containers=[], seen=["t1"]) as node:
        await until(lambda: node.state is GONE)


@pytest.mark.asyncio
async def test_what_the_swarm_says_needs_no_look_at_the_node() -> None:
    async with running() as node:
        await until(lambda: node.state is READY)
        looks = node.looks
        leaving = msgspec.structs.replace(TASK, state=DRAINING)
        node.keeper.take_state(msgspec.structs.replace(MESH, version=2, tasks={"t1": leaving}))
        await until(lambda: node.state is DRAINING)
        assert node.looks == looks
        node.keeper.look_again("a test")
        await until(lambda: node.looks > looks)


@pytest.mark.asyncio
async def test_a_task_that_begins_to_listen_is_ready_and_reported() -> None:
    fresh = msgspec.structs.replace(CONTAINER, started_s=time.time())
    async with running(containers=[fresh]) as node:
        await until(lambda: node.state is STARTING)
        assert node.reports[-1][0] == {"t1": STARTING}
        before_ns = time.time_ns()
        await asyncio.sleep(0.03)
        node.listening.add(Listener(Protocol.TCP, 80))
        await until(lambda: node.state is READY)
        tasks, origin_ns = node.reports[-1]
        assert tasks == {"t1": READY}
        assert before_ns <= origin_ns <= time.time_ns()
        assert node.converged() == 1
        node.listening.clear()
        node.keeper.look_again("a test", containers=True)
        await until(lambda: node.lists == 2)
        assert node.state is READY


@pytest.mark.asyncio
async def test_an_old_cause_is_not_told_with_a_new_fact() -> None:
    fresh = msgspec.structs.replace(CONTAINER, started_s=time.time())
    async with running(containers=[fresh]) as node:
        await until(lambda: node.state is STARTING)
        node.listening.add(Listener(Protocol.TCP, 80))
        await until(lambda: node.reports[-1][0] == {"t1": READY})
        node.containers = []
        node.keeper.look_again("a test", containers=True)
        await until(lambda: node.reports[-1] == ({}, 0))


@pytest.mark.asyncio
async def test_only_changes_that_the_maps_follow_are_counted() -> None:
    async with running() as node:
        await until(lambda: node.state is READY)
        again = msgspec.structs.replace(MESH, version=2, origin_ns=time.time_ns())
        node.keeper.take_state(again)
        await until(lambda: node.keeper.timer.count >= 2)
        assert node.converged() == 0
        leaving = {"t1": msgspec.structs.replace(TASK, state=DRAINING)}
        node.keeper.take_state(msgspec.structs.replace(again, version=3, tasks=leaving))
        await until(lambda: node.state is DRAINING)
        await until(lambda: node.converged() == 1)


@pytest.mark.asyncio
async def test_a_change_that_fails_at_first_is_counted_when_it_is_done() -> None:
    async with running() as node:
        await until(lambda: node.state is READY)
        node.sync_error = OSError("no")
        node.told("die")
        await until(lambda: node.keeper.error == "no")
        assert node.converged() == 0
        node.sync_error = None
        await until(lambda: node.converged() == 1)
        await until(lambda: not node.keeper.error)


@pytest.mark.asyncio
async def test_without_dockerd_the_swarms_changes_are_followed_and_the_error_stays() -> None:
    async with running() as node:
        await until(lambda: node.state is READY)
        node.error = "gone fishing"
        node.keeper.look_again("a test", containers=True)
        await until(lambda: node.keeper.error == "gone fishing")
        leaving = msgspec.structs.replace(TASK, state=DRAINING)
        node.keeper.take_state(msgspec.structs.replace(MESH, version=2, tasks={"t1": leaving}))
        await until(lambda: node.state is DRAINING)
        assert node.keeper.error == "gone fishing"
        node.error = ""
        await until(lambda: not node.keeper.error)


@pytest.mark.asyncio
async def test_what_the_kernel_tells_of_an_end_reaches_maps_and_hubs_at_once() -> None:
    async with running() as node:
        await until(lambda: node.state is READY)
        node.answering.clear()
        before_ns = time.time_ns()
        node.keeper.died("t1")
        tasks, origin_ns = node.reports[-1]
        assert (tasks, origin_ns >= before_ns) == ({"t1": GONE}, True)
        await until(lambda: node.state is GONE)
        await until(lambda: node.converged() == 1)


@pytest.mark.asyncio
async def test_a_task_that_is_ready_when_it_is_first_seen_has_been_so_since_its_start() -> None:
    async with running(containers=[]) as node:
        await until(lambda: node.lists == 1)
        node.containers = [CONTAINER]
        at_ns = node.told("start")
        await until(lambda: node.reports[-1:] == [({"t1": READY}, at_ns)])
        assert not node.keeper._started_ns
        node.told("start")
        node.told("die")
        assert not node.keeper._started_ns


@pytest.mark.asyncio
async def test_while_the_node_is_looked_at_the_swarms_changes_are_followed() -> None:
    """The kernel may keep who looks at links waiting for as long as a container takes to end."""
    async with running() as node:
        await until(lambda: node.state is READY)
        node.seen.clear()
        looks = node.looks
        node.keeper.look_again("a test")
        await until(lambda: node.looks > looks)
        leaving = msgspec.structs.replace(TASK, state=DRAINING)
        node.keeper.take_state(msgspec.structs.replace(MESH, version=2, tasks={"t1": leaving}))
        await until(lambda: node.state is DRAINING)
        node.told("kill", signal="15")
        await until(lambda: node.state is STOPPING)
        node.seen.set()
        await until(lambda: node.looks > looks + 1)
        assert node.state is STOPPING


@pytest.mark.asyncio
async def test_while_programs_are_put_in_place_changes_are_followed() -> None:
    async with running() as node:
        await until(lambda: node.state is READY and node.keeper.synced)
        node.placing.clear()
        node.attachments = frozenset({Attachment("overlay", "/ns", 7, "veth0", 4096)})
        node.keeper.look_again("a test")
        await until(lambda: node.desired.attachments == node.attachments)
        node.told("kill", signal="15")
        await until(lambda: node.state is STOPPING)
        assert not node.attached
        node.placing.set()
        await until(lambda: node.attached == node.attachments)


@pytest.mark.asyncio
async def test_a_task_that_begins_waits_for_programs_at_its_links() -> None:
    """The hubs hear of it when they are there, and nobody else has to wait."""
    other = msgspec.structs.replace(TASK, id="t2", node_id="n2")
    mesh = msgspec.structs.replace(MESH, tasks={"t1": TASK, "t2": other})
    container = msgspec.structs.replace(CONTAINER, endpoints={"net0": Endpoint("10.0.0.3", "")})
    async with running(mesh, containers=[container], peers={"10.0.0.3": 7}) as node:
        node.placing.clear()
        await until(lambda: node.state is STARTING and bool(node.reports))
        assert node.desired.backends[BackendKey("t2", 4096)].state is READY
        assert node.reports[-1][0] == {"t1": STARTING}
        node.attachments = frozenset({Attachment("overlay", "/ns/1-net0", 7, "veth0", 4096)})
        node.keeper.look_again("links")
        await until(lambda: node.desired.attachments == node.attachments)
        assert node.state is STARTING
        before_ns = time.time_ns()
        node.placing.set()
        await until(lambda: node.state is READY)
        tasks, origin_ns = node.reports[-1]
        assert tasks == {"t1": READY}
        assert 0 < origin_ns < before_ns


@pytest.mark.asyncio
async def test_programs_that_stand_are_enough_while_others_are_put_in_place() -> None:
    place = Attachment("overlay", "/ns/1-net0", 7, "veth0", 4096)
    container = msgspec.structs.replace(CONTAINER, endpoints={"net0": Endpoint("10.0.0.3", "")})
    async with running(containers=[container], peers={"10.0.0.3": 7}) as node:
        node.placing.clear()
        await until(lambda: node.state is STARTING)
        node.attached = {place}
        await until(lambda: node.state is READY)
        assert not node.keeper.synced


@pytest.mark.asyncio
async def test_a_container_that_dockerd_is_busy_with_keeps_no_other_waiting() -> None:
    busy = msgspec.structs.replace(CONTAINER, id="c0", task_id="t0")
    async with running(containers=[busy]) as node:
        await until(lambda: node.state is STARTING)
        node.busy = {"c0"}
        node.told("kill", signal="15", **{TASK_ID: "t0"})
        node.keeper.look_again("a test", containers=True)
        node.containers.append(CONTAINER)
        node.told("start")
        await until(lambda: node.state is READY)
        node.busy = set()


@pytest.mark.asyncio
async def test_a_task_that_begins_waits_for_no_look_at_links() -> None:
    async with running(containers=[]) as node:
        await until(lambda: node.state is STARTING)
        node.seen.clear()
        looks = node.looks
        node.keeper.look_again("a test")
        await until(lambda: node.looks > looks)
        node.containers = [CONTAINER]
        at_ns = node.told("start")
        await until(lambda: node.state is READY)
        assert node.reports[-1] == ({"t1": READY}, at_ns)
        assert not node.seen.is_set()


@pytest.mark.asyncio
async def test_a_node_is_in_step_when_its_programs_are_in_place() -> None:
    async with running() as node:
        node.placing.clear()
        await until(lambda: node.state is READY)
        assert not node.keeper.synced
        node.placing.set()
        await until(lambda: node.keeper.synced)


@pytest.mark.asyncio
async def test_that_the_link_to_the_other_nodes_is_down_is_told_once() -> None:
    async with running() as node:

        def told() -> list[tuple[str, dict[str, str]]]:
            found = [(change.event, change.fields) for change in node.keeper.journal.recent]
            return [one for one in found if one[0].startswith("link.")]

        for node.link_up in (False, False, True):
            seen = node.looks
            node.keeper.look_again("links")
            await until(lambda seen=seen: node.looks > seen)  # type: ignore[misc]
        await until(lambda: len(told()) > 1)
        assert told() == [("link.up", {"link": "eth0"}), ("link.down", {"link": "eth0"})]


@pytest.mark.asyncio
async def test_maps_are_told_of_an_end_whatever_else_goes_on() -> None:
    """Even while a look at the node, or a plan, is under way."""
    async with running() as node:
        await until(lambda: node.state is READY)
        node.keeper.died("t1")
        assert node.heard == [{"t1": GONE}]
        node.keeper.died("t1")
        assert len(node.heard) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("action", "attributes", "told"),
    [
        ("kill", {"signal": "15"}, [{"t1": STOPPING}]),
        ("die", {}, [{"t1": GONE}]),
        ("health_status", {}, []),
        ("start", {}, []),
    ],
)
async def test_maps_are_told_what_dockerd_says_of_an_end(
    action: str, attributes: dict[str, str], told: list[dict[str, BackendState]]
) -> None:
    async with running() as node:
        await until(lambda: node.state is READY)
        node.told(action, "unhealthy", **attributes)
        assert node.heard == told


@pytest.mark.asyncio
async def test_maps_are_told_what_other_nodes_say_of_an_end() -> None:
    async with running() as node:
        await until(lambda: node.state is READY)
        ended = msgspec.structs.replace(TASK, id="t2", node_id="n2", state=GONE)
        mesh = msgspec.structs.replace(MESH, version=2, tasks={"t1": TASK, "t2": ended})
        node.keeper.take_state(mesh)
        assert node.heard == [{"t2": GONE}]
        node.keeper.take_state(msgspec.structs.replace(mesh, version=3))
        assert len(node.heard) == 1


@pytest.mark.asyncio
async def test_hubs_hear_that_a_task_is_ready_when_the_maps_hold_it() -> None:
    """Others send to it as soon as they hear; the maps may be long at something else."""
    fresh, before_ns = msgspec.structs.replace(CONTAINER, started_s=time.time()), time.time_ns()
    async with running(containers=[fresh]) as node:
        await until(lambda: node.state is STARTING)
        node.writing.clear()
        begun = node.begun
        node.listening.add(Listener(Protocol.TCP, 80))
        await until(lambda: node.begun > begun)
        assert node.keeper.local
        assert node.keeper.local.tasks["t1"].state is READY
        assert node.reports[-1][0] == {"t1": STARTING}
        after_ns = time.time_ns()
        node.writing.set()
        await until(lambda: node.reports[-1][0] == {"t1": READY})
        assert node.state is READY
        assert before_ns <= node.reports[-1][1] <= after_ns


@pytest.mark.asyncio
async def test_bad_news_wait_for_no_map() -> None:
    async with running() as node:
        await until(lambda: node.state is READY)
        node.writing.clear()
        begun = node.begun
        node.keeper.take_state(msgspec.structs.replace(MESH, version=2))
        await until(lambda: node.begun > begun)
        at_ns = node.told("health_status", "unhealthy")
        assert node.reports[-1] == ({"t1": DRAINING}, at_ns)
        node.writing.set()


@pytest.mark.asyncio
async def test_a_task_that_got_flows_from_an_earlier_agent_is_ready_all_the_time() -> None:
    async with running(MeshState(), served=["t1"]) as node:
        node.writing.clear()
        await until(lambda: bool(node.begun))
        node.keeper.take_state(MESH)
        node.writing.set()
        await until(lambda: node.state is READY)
        assert [tasks for tasks, _ in node.reports] == [{"t1": READY}]


@pytest.mark.asyncio
async def test_while_maps_cannot_be_written_only_what_they_hold_is_ready() -> None:
    async with running() as node:
        await until(lambda: node.reports[-1:] == [({"t1": READY}, 0)])
        node.sync_error = OSError("no")
        t2 = msgspec.structs.replace(TASK, id="t2", addresses={"net0": "10.0.0.4"})
        node.containers.append(msgspec.structs.replace(CONTAINER, id="c2", task_id="t2"))
        mesh = msgspec.structs.replace(MESH, version=2, tasks={"t1": TASK, "t2": t2})
        node.keeper.take_state(mesh)
        node.keeper.look_again("a test", containers=True)
        await until(lambda: node.keeper.error == "no")
        await until(lambda: node.reports[-1][0] == {"t1": READY, "t2": STARTING})
        node.fails_late = True
        await until(lambda: node.reports[-1][0] == {"t1": READY, "t2": READY})
        assert node.keeper.error == "no"


@pytest.mark.asyncio
async def test_a_task_is_told_as_new_as_the_swarm_has_listed_it() -> None:
    """Before that no maps could hold it: how long it has been ready does not matter."""
    async with running(msgspec.structs.replace(MESH, tasks={})) as node:
        await until(lambda: node.reports[-1:] == [({"t1": STARTING}, 0)])
        node.told("health_status", "unhealthy")
        node.told("health_status", "healthy")
        await until(lambda: node.reports[-1][0] == {"t1": STARTING})
        listed_ns = time.time_ns()
        starting = {"t1": msgspec.structs.replace(TASK, state=STARTING)}
        mesh = msgspec.structs.replace(MESH, version=2, tasks=starting, origin_ns=listed_ns)
        node.keeper.take_state(mesh)
        await until(lambda: node.reports[-1] == ({"t1": READY}, listed_ns))
        assert node.state is READY


@pytest.mark.asyncio
async def test_a_task_of_a_service_without_a_vip_is_ready() -> None:
    plain = Service("web", "web", EndpointMode.DNSRR, {})
    async with running(msgspec.structs.replace(MESH, services={"web": plain})) as node:
        await until(lambda: node.reports[-1:] == [({"t1": READY}, 0)])
        assert not node.desired.backends
