from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from ebpfmesh.agent.answers import Answers
from ebpfmesh.agent.http import serve_socket
from ebpfmesh.agent.naming import Named, Naming
from ebpfmesh.agent.tracer import MAX_LISTENERS, Listener, TooManyListeners, Tracer
from ebpfmesh.datapath.errors import MapError
from ebpfmesh.datapath.events import Event, Ring
from ebpfmesh.model import (
    Backend,
    BackendKey,
    BackendState,
    EndpointMode,
    Frontend,
    FrontendKey,
    FrontendKind,
    Gateway,
    MeshState,
    Network,
    Node,
    PoolKey,
    Protocol,
)
from ebpfmesh.model import Service as SwarmService
from ebpfmesh.tracing import Kind, Told, Watch
from ebpfmesh.tracing import Path as Way

REASONS = {1: ("drop", "no_backend"), 2: ("handback", "no_frontend")}
FLOW, DROP, ORDINARY = 1 << 0, 1 << 1, 1 << 2

INGRESS, SHOP = PoolKey("s1", 0), PoolKey("s1", 4097)
PUBLISHED = Frontend(FrontendKey(0, port=8080, protocol=Protocol.TCP), FrontendKind.PORT, INGRESS)
VIP = Frontend(FrontendKey(4097, "10.0.1.2"), FrontendKind.VIP, SHOP)
HERE = Backend(
    *(BackendKey("t1", 0), INGRESS, "10.0.0.5", "", "192.0.2.11", BackendState.READY),
    gateway=Gateway("172.18.0.5", "", 7),
)
THERE = Backend(BackendKey("t2", 4097), SHOP, "10.0.1.6", "", "192.0.2.12", BackendState.READY)
NAMING = Naming(
    MeshState(
        nodes={"n2": Node("n2", "node2", "", "192.0.2.12")},
        networks={"k": Network("k", "shop", 4097)},
        services={"s1": SwarmService("s1", "web", EndpointMode.VIP)},
    ),
    {each.key: each for each in (PUBLISHED, VIP)},
    {each.key: each for each in (HERE, THERE)},
    {HERE.key: 1, THERE.key: 2},
)


@pytest.mark.parametrize(
    ("number", "named"), [(1, Named("web")), (2, Named("web", "shop")), (3, Named()), (0, Named())]
)
def test_whose_a_backend_is(number: int, named: Named) -> None:
    assert NAMING.of_number(number) == named


def event(what: int = 0, **fields: Any) -> Event:
    known = {
        "time_ns": 0,
        "path": 1,
        "program": "overlay_ingress",
        "protocol": 6,
        "tcp_flags": 2,
        "source": "10.0.1.3",
        "source_port": 4000,
        "destination": "10.0.1.2",
        "destination_port": 80,
        "length": 40,
        "vni": 4097,
        "backend": 2,
        "entry": "",
        "head": b"",
    }
    return Event(what=what, **{**known, **fields})


class FakeRing:
    """Has what is put in, and notes what it is asked for."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.wanted: list[int] = []
        self.losses = 0
        self.opened = self.closed = 0
        self.error: Exception | None = None

    def open(self) -> Ring:
        if self.error:
            raise self.error
        self.opened += 1
        return cast("Ring", self)

    def want(self, wanted: int, seconds: float) -> None:
        assert 0 < seconds < 10, "it has to end by itself"
        self.wanted.append(wanted)

    def read(self, most: int) -> list[Event]:
        if self.error:
            raise self.error
        found, self.events = self.events[:most], self.events[most:]
        return found

    def lost(self) -> int:
        lost, self.losses = self.losses, 0
        return lost

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def ring() -> FakeRing:
    return FakeRing()


@pytest.fixture
def tracer(ring: FakeRing, monkeypatch: pytest.MonkeyPatch) -> Tracer:
    monkeypatch.setattr("ebpfmesh.agent.tracer._INTERVAL_S", 0.001)
    return Tracer(ring.open, lambda: NAMING, reasons=REASONS)


async def heard(listener: Listener) -> list[Told]:
    while not (told := await listener.take(10)) and not listener.ended:
        pass
    return told


async def test_a_flow_in_words(tracer: Tracer, ring: FakeRing) -> None:
    async with tracer.listen(Watch()) as listener:
        ring.events.append(event())
        (told,) = await heard(listener)
    assert (told.kind, told.reason, told.path) == (Kind.FLOW, "", Way.VIP)
    assert (told.source, told.destination) == ("10.0.1.3:4000", "10.0.1.2:80")
    assert (told.protocol, told.flags) == ("tcp", "S")
    assert (told.service, told.network) == ("web", "shop")
    assert (told.backend, told.task, told.node) == ("10.0.1.6", "t2", "node2")


async def test_who_has_been_asked_is_said_of_a_drop(tracer: Tracer, ring: FakeRing) -> None:
    head = (
        bytes(12)
        + b"\x08\0"
        + bytes.fromhex("4500002800010000400600000a0000c8c000020b0fa01f90000000000000000050020000")
    )
    ends: dict[str, Any] = {"source": "", "destination": "", "protocol": 0, "backend": 0}
    async with tracer.listen(Watch()) as listener:
        ring.events.append(event(1, vni=0, head=head, path=0, **ends))
        (told,) = await heard(listener)
    assert (told.kind, told.reason, told.service) == (Kind.DROP, "no_backend", "web")
    assert (told.source, told.destination) == ("10.0.0.200:4000", "192.0.2.11:8080")


def test_names_of_either_end() -> None:
    web = Named("web", "")
    assert NAMING.of_end(0, "192.0.2.11", 8080, 6) == web
    assert NAMING.of_end(0, "192.0.2.11", 8080, 17) == Named()
    assert NAMING.of_end(0, "192.0.2.11", 8080, 47) == Named()
    assert NAMING.of_end(0, "172.18.0.5", 80, 6) == web
    assert NAMING.of_end(4097, "10.0.1.6", 80, 6) == Named("web", "shop")
    assert NAMING.of_end(4097, "10.0.1.99", 80, 6) == Named()


async def test_programs_are_asked_for_what_anyone_wants(tracer: Tracer, ring: FakeRing) -> None:
    flows, drops = Watch(kinds=frozenset({Kind.FLOW})), Watch(kinds=frozenset({Kind.DROP}))
    async with tracer.listen(flows) as one:
        assert ring.wanted[-1] == FLOW
        async with tracer.listen(drops) as two:
            assert ring.wanted[-1] == FLOW | DROP
            ring.events += [event(), event(1)]
            assert [told.kind for told in await heard(one)] == [Kind.FLOW]
            assert [told.kind for told in await heard(two)] == [Kind.DROP]
    assert tracer._reading is not None
    await tracer._reading
    assert (ring.opened, ring.closed) == (1, 1)
    async with tracer.listen(drops):
        assert ring.wanted[-1] == DROP
    assert ring.opened == 2


async def test_what_is_lost_is_said(tracer: Tracer, ring: FakeRing) -> None:
    async with tracer.listen(Watch()) as listener:
        ring.losses = 7
        (told,) = await heard(listener)
    assert (told.kind, told.lost) == (Kind.LOST, 7)


async def test_who_is_slow_loses_and_is_told_so(tracer: Tracer) -> None:
    listener = Listener(Watch())
    one = Told(1, 0.0, Kind.FLOW)
    listener.give([one] * 1999, 0)
    listener.give([one] * 5, 2)
    told = await listener.take(1)
    assert len(told) == 2001
    assert (told[-1].kind, told[-1].lost) == (Kind.LOST, 6)
    assert await listener.take(0.01) == []


async def test_not_more_than_a_few_listen(tracer: Tracer) -> None:
    async def one_more(so_far: int) -> None:
        async with tracer.listen(Watch()):
            await one_more(so_far + 1)

    with pytest.raises(TooManyListeners, match=str(MAX_LISTENERS)):
        await one_more(0)
    async with tracer.listen(Watch()):
        pass


async def test_a_ring_that_cannot_be_read(tracer: Tracer, ring: FakeRing) -> None:
    ring.error = MapError("it is broken")
    with pytest.raises(MapError):
        async with tracer.listen(Watch()):
            pass
    ring.error = None
    async with tracer.listen(Watch()) as listener:
        ring.error = MapError("it broke")
        assert await heard(listener) == []
        assert listener.ended


# --- on the agent's socket


@pytest.fixture
async def ask(tracer: Tracer, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    class Fake:
        pass

    fake = Fake()
    fake.tracer = tracer  # type: ignore[attr-defined]
    runner = await serve_socket(cast("Answers", fake), tmp_path / "s")
    connector = aiohttp.UnixConnector(str(tmp_path / "s"))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield lambda query="": session.get(f"http://agent/trace{query}")
    await runner.cleanup()


async def test_lines_of_json(ask: Callable[..., Any], ring: FakeRing, tracer: Tracer) -> None:
    async with ask("?kind=drop&reason=no_backend") as answer:
        assert await answer.content.readline() == b"\n"
        assert ring.wanted[-1] == DROP
        ring.events += [event(), event(1)]
        told = json.loads(await answer.content.readline())
    assert (told["version"], told["kind"], told["service"]) == (1, "drop", "web")


async def test_silence_is_heard_too(ask: Callable[..., Any]) -> None:
    async with ask() as answer:
        for _ in range(2):
            assert await answer.content.readline() == b"\n"


async def test_who_leaves_is_noticed(ask: Callable[..., Any], tracer: Tracer) -> None:
    async with ask() as answer:
        await answer.content.readline()
        answer.close()
    assert tracer._reading is not None
    await asyncio.wait_for(tracer._reading, 10)


async def test_nonsense_is_refused(ask: Callable[..., Any]) -> None:
    for query in ("?kind=x", "?reason=x", "?client=x"):
        async with ask(query) as answer:
            assert (answer.status, "wanted" in await answer.text()) in {(400, True), (400, False)}


async def test_one_too_many_is_refused(ask: Callable[..., Any], tracer: Tracer) -> None:
    tracer._listeners |= {Listener(Watch()) for _ in range(MAX_LISTENERS)}
    async with ask() as answer:
        assert answer.status == 503
        assert "end one" in await answer.text()
