from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from ebpfmesh import pcapng
from ebpfmesh.agent import capture
from ebpfmesh.agent.answers import Answers
from ebpfmesh.agent.capture import MAX_PLACES, Capturer, Known, NothingToCapture, places
from ebpfmesh.agent.http import serve_socket
from ebpfmesh.agent.worker import Worker
from ebpfmesh.model import (
    Attachment,
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
    PoolKey,
    Protocol,
    Service,
)
from ebpfmesh.swarm.local import LocalContainer

MESH = MeshState(
    networks={"k": Network("k", "shop", 4097)},
    services={
        "s1": Service("s1", "web", EndpointMode.VIP),
        "s2": Service("s2", "named", EndpointMode.DNSRR),
    },
)
INGRESS, SHOP = PoolKey("s1", 4096), PoolKey("s1", 4097)
PORT = Frontend(
    FrontendKey(0, port=8080, protocol=Protocol.TCP), FrontendKind.PORT, INGRESS, target_port=80
)
VIP = Frontend(FrontendKey(4097, "10.0.1.2"), FrontendKind.VIP, SHOP)
GATEWAY = Gateway("172.18.0.5", "", 7)
HERE = Backend(
    *(BackendKey("t" * 25, 4096), INGRESS, "10.0.0.5", "", "192.0.2.11", BackendState.READY),
    gateway=GATEWAY,
)
ON_SHOP = Backend(BackendKey("t" * 25, 4097), SHOP, "10.0.1.6", "", "", BackendState.READY)
NIC, EDGE = Attachment("nic", "", 2, "eth0"), Attachment("edge", "", 3, "eth1")
BRIDGED = Attachment("gateway", "", 7, "veth7")
OVERLAY = Attachment("overlay", "/run/netns/1-k", 5, "veth0", 4097)
OTHER = Attachment("overlay", "/run/netns/1-o", 6, "veth0", 4098)
CONTAINER = LocalContainer("c", "t" * 25, "s1", "/run/netns/c", 1, BackendState.READY)
KNOWN = Known(MESH, [PORT, VIP], [HERE, ON_SHOP], [NIC, EDGE, BRIDGED, OVERLAY, OTHER], [CONTAINER])


@pytest.fixture(autouse=True)
def links(monkeypatch: pytest.MonkeyPatch) -> None:
    """What netlink would tell of the namespaces."""
    inside = {("/run/netns/c", "172.18.0.5"): 9}
    monkeypatch.setattr(capture, "_link_with", lambda *where: inside.get(where, 0))
    monkeypatch.setattr(
        capture, "_tunnels", lambda netns: [(4, "vxlan0")] if netns.endswith("-k") else []
    )


def test_every_place_that_packets_pass() -> None:
    found = {(p.netns, p.ifindex): p for p in places("web", KNOWN, 4789)}
    assert set(found) == {
        *(("", 2), ("", 3), ("/run/netns/c", 9)),
        *(("/run/netns/1-k", 5), ("/run/netns/1-k", 4)),
    }
    assert found["", 2].name == "eth0"
    assert found["/run/netns/c", 9].name == "task tttttttttttt"
    assert found["/run/netns/1-k", 5].name == "veth0 on shop"
    assert found["/run/netns/1-k", 4].name == "vxlan0 on shop"
    assert all(place.description for place in found.values())


def test_without_a_port_no_nic() -> None:
    known = KNOWN._replace(frontends=[VIP])
    assert {p.netns for p in places("web", known, 4789)} == {"/run/netns/1-k"}


def test_a_task_whose_network_has_gone() -> None:
    known = KNOWN._replace(containers=[])
    assert "/run/netns/c" not in {p.netns for p in places("web", known, 4789)}


def test_nothing_passes_here() -> None:
    for name, why in (("nobody", "no service is called"), ("named", "publishes no port")):
        with pytest.raises(NothingToCapture, match=why):
            places(name, KNOWN, 4789)


def test_there_is_an_end_to_places() -> None:
    many = [Attachment("overlay", "/run/netns/1-k", n, f"veth{n}", 4097) for n in range(100)]
    assert len(places("web", KNOWN._replace(attached=many), 4789)) == MAX_PLACES


# --- on the agent's socket


class FakeRecording:
    """Ends after so many looks."""

    looks = 2

    def __init__(self, _at: object, _asked: object) -> None:
        self._left = self.looks

    @property
    def over(self) -> bool:
        return self._left <= 0

    def head(self) -> bytes:
        return pcapng.section("test")

    def more(self) -> bytes:
        self._left -= 1
        return pcapng.packet(0, 1, b"x", 1, outbound=False)

    def statistics(self) -> bytes:
        return pcapng.statistics(0, 1, 1, 0)

    def close(self) -> None:
        pass


@pytest.fixture
def paused() -> list[bool]:
    """Each time that XDP was told to pause, or to go on."""
    return []


@pytest.fixture
async def ask(
    paused: list[bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Callable[..., Any]]:
    monkeypatch.setattr(capture, "Recording", FakeRecording)
    actual = SimpleNamespace(frontends={0: PORT}, backends={})
    reconciler = SimpleNamespace(actual=actual, attached={NIC: None})
    reconciler.pause_xdp = lambda **told: paused.append(told["paused"])
    keeper = SimpleNamespace(mesh=MESH, reconciler=reconciler, containers=())
    worker = Worker()
    fake = SimpleNamespace(capturer=Capturer(cast("Any", keeper), worker, 4789), tracer=None)
    runner = await serve_socket(cast("Answers", fake), tmp_path / "s")
    connector = aiohttp.UnixConnector(str(tmp_path / "s"))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield lambda query: session.get(f"http://agent/capture?{query}")
    await runner.cleanup()
    worker.close()


async def test_xdp_pauses_while_it_runs(ask: Callable[..., Any], paused: list[bool]) -> None:
    async with ask("service=web") as answer:
        body = await answer.read()
    found = FakeRecording(None, None)
    assert body == found.head() + 2 * found.more() + found.statistics()
    assert paused == [True, False]


async def test_xdp_stays_if_wanted(ask: Callable[..., Any], paused: list[bool]) -> None:
    async with ask("service=web&xdp=1") as answer:
        await answer.read()
    assert paused == []


async def test_xdp_comes_back_with_the_last(
    ask: Callable[..., Any], paused: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeRecording, "looks", 10**9)
    async with ask("service=web") as one, ask("service=web") as other:
        await one.content.read(1)
        await other.content.read(1)
        one.close()
        await other.content.read(1)
        assert paused == [True]
    while paused != [True, False]:
        async with ask("service=nobody") as answer:
            await answer.read()


async def test_one_too_many_is_refused(
    ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "MAX_CAPTURES", 0)
    async with ask("service=web") as answer:
        assert answer.status == 503
        assert "end one" in await answer.text()


async def test_nonsense_is_refused(ask: Callable[..., Any], paused: list[bool]) -> None:
    for query, status in (("service=web&count=x", 400), ("service=nobody", 409)):
        async with ask(query) as answer:
            assert answer.status == status
    assert paused == []
