# SPDX-License-Identifier: Apache-2.0
"""Hubs and agents over real TLS on the loopback, with certificates like Swarm's."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from structlog.testing import capture_logs

from ebpfmesh.hub import (
    CertificateError,
    Certificates,
    HubAddress,
    HubClient,
    HubServer,
    LinkSettings,
    ServerSettings,
)
from ebpfmesh.hub.peer import HubParts, Peer, UpdateEncoder
from ebpfmesh.hub.protocol import (
    MAX_FROM_AGENT,
    Delta,
    FrameBuffer,
    FromAgent,
    FromHub,
    Hello,
    Ping,
    Refusal,
    Report,
    Welcome,
    decode_from_hub,
    encode,
)
from ebpfmesh.hub.silence import Patience
from ebpfmesh.latest import Latest
from ebpfmesh.model import BackendState, MeshState, Node, Task
from tests.unit.swarm_pki import WORKER, Authority

PATIENCE_S = 20.0
LOOPBACK = "127.0.0.1"

# --- certificates like Swarm's ----------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki") / "ours", "swarm-one")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki") / "theirs", "swarm-two")


def test_the_certificate_says_who_we_are(authority: Authority) -> None:
    certificates = Certificates(authority.issue("n1"))
    assert certificates.identity.node_id == "n1"
    assert certificates.identity.is_manager
    assert certificates.identity.swarm_id == "swarm-one"


def test_a_renewed_certificate_is_noticed(authority: Authority) -> None:
    certificates = Certificates(authority.issue("renewed"))
    before = certificates.server_context
    assert not certificates.reload_if_changed()
    authority.issue("renewed")
    assert certificates.reload_if_changed()
    assert certificates.server_context is not before


def test_a_broken_renewal_leaves_the_old_certificate_in_use(authority: Authority) -> None:
    certificates = Certificates(authority.issue("halfway"))
    before = certificates.server_context
    (certificates.directory / "swarm-node.crt").write_text("half a file")
    with pytest.raises(CertificateError, match="cannot use"):
        certificates.reload_if_changed()
    assert certificates.server_context is before


def test_missing_expired_and_locked_certificates_are_explained(
    authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(CertificateError, match="is this node in a Swarm"):
        Certificates(tmp_path)
    with pytest.raises(CertificateError, match=r"expired; it is .* UTC by this node's clock"):
        Certificates(authority.issue("old", days=-1))
    locked = authority.issue("locked")
    (locked / "swarm-node.key").write_text(
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n"
        "-----END EC PRIVATE KEY-----\n"
    )
    with pytest.raises(CertificateError, match="autolock=false"):
        Certificates(locked)


# --- hubs and agents --------------------------------------------------------------------


def mesh(version: int, *task_ids: str) -> MeshState:
    tasks = {key: Task(key, "web", "n1", BackendState.READY) for key in task_ids}
    return MeshState(version=version, nodes={"n1": Node("n1", "one", LOOPBACK)}, tasks=tasks)


class Hub:
    """A hub under test, with what it was told."""

    def __init__(self, directory: Path, state: MeshState, settings: ServerSettings) -> None:
        self.states = Latest(state)
        self.reports: dict[str, tuple[str, dict[str, BackendState]]] = {}
        self.origins: list[int] = []
        self.age_s = 0.0
        self.server = HubServer(
            Certificates(directory), self.states, self._take, lambda: self.age_s, settings
        )

    def _take(
        self, node_id: str, vtep: str, tasks: dict[str, BackendState], origin_ns: int
    ) -> None:
        self.reports[node_id] = (vtep, tasks)
        self.origins.append(origin_ns)

    @property
    def address(self) -> HubAddress:
        return HubAddress(LOOPBACK, self.server.port)


@asynccontextmanager
async def background(running: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(running)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def hub_of(
    directory: Path, state: MeshState, settings: ServerSettings | None = None
) -> AsyncIterator[Hub]:
    hub = Hub(directory, state, settings or ServerSettings())
    await hub.server.start(LOOPBACK, 0)
    async with background(hub.server.run()):
        yield hub


PATIENT = LinkSettings(silence_s=10.0, standby_silence_s=10.0)
"""A busy machine must not look like a dead hub."""


@asynccontextmanager
async def agent_of(
    directory: Path,
    *hubs: HubAddress,
    known: MeshState | None = None,
    settings: LinkSettings = PATIENT,
) -> AsyncIterator[HubClient]:
    client = HubClient(Certificates(directory), known=known, settings=settings)
    client.set_hubs(hubs)
    async with background(client.run()):
        yield client


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_an_agent_gets_the_state_and_every_later_one(authority: Authority) -> None:
    async with (
        hub_of(authority.issue("n1"), mesh(1, "a")) as hub,
        agent_of(authority.issue("n2", WORKER), hub.address) as agent,
    ):
        for state in (mesh(1, "a"), mesh(2, "a", "b"), mesh(3, "b"), mesh(4)):
            hub.states.set(state)
            await until(lambda state=state: agent.states.value == state)  # type: ignore[misc]
        status = agent.status
        assert (status.connected, status.hub_id, status.state_version) == (True, "n1", 4)
        assert [peer.node_id for peer in hub.server.peers()] == ["n2"]


@pytest.mark.asyncio
async def test_pings_go_on_while_the_state_changes_all_the_time(authority: Authority) -> None:
    settings = ServerSettings(ping_interval_s=0.05, standby_ping_interval_s=0.05)
    async with (
        hub_of(authority.issue("n1"), mesh(1), settings) as hub,
        agent_of(authority.issue("n2", WORKER), hub.address) as agent,
    ):
        await until(lambda: agent.status.state_age_s is not None)
        seen = agent._current_at
        for version in range(2, 200):
            hub.states.set(mesh(version))
            await asyncio.sleep(0.002)
        await until(lambda: agent.states.value.version == 199)
        assert seen is not None
        assert agent._current_at is not None
        assert agent._current_at > seen


@pytest.mark.asyncio
async def test_every_hub_gets_the_newest_report(authority: Authority) -> None:
    async with (
        hub_of(authority.issue("n1"), mesh(1)) as one,
        hub_of(authority.issue("n2"), mesh(1)) as two,
        agent_of(authority.issue("n3", WORKER), one.address, two.address) as agent,
    ):
        agent.report("192.0.2.13", {"a": BackendState.DRAINING})
        for hub in (one, two):
            expected = {"n3": ("192.0.2.13", {"a": BackendState.DRAINING})}
            await until(lambda hub=hub, expected=expected: hub.reports == expected)  # type: ignore[misc]


@pytest.mark.asyncio
async def test_when_its_hub_goes_the_agent_follows_the_next(authority: Authority) -> None:
    async with (
        hub_of(authority.issue("n2"), mesh(5, "b")) as second,
        hub_of(authority.issue("n1"), mesh(4, "a")) as first,
        agent_of(authority.issue("n3", WORKER), first.address, second.address) as agent,
    ):
        await until(lambda: agent.status.connected)
        await first.server.close()
        await until(lambda: agent.states.value == mesh(5, "b"))
        await until(lambda: agent.status.hub_id == "n2")


@pytest.mark.asyncio
async def test_a_hub_that_lost_the_swarm_is_left_for_one_in_touch(authority: Authority) -> None:
    async with (
        hub_of(authority.issue("n1"), mesh(4)) as first,
        hub_of(authority.issue("n2"), mesh(5)) as second,
    ):
        first.age_s = 1000.0
        async with agent_of(authority.issue("n3", WORKER), first.address, second.address) as agent:
            await until(lambda: agent.status.hub_id == "n2")
            await until(lambda: agent.states.value == mesh(5))


@pytest.mark.asyncio
async def test_an_older_state_waits_until_the_swarm_confirms_it(authority: Authority) -> None:
    async with hub_of(authority.issue("n1"), mesh(3)) as hub:
        hub.age_s = 1000.0
        async with agent_of(
            authority.issue("n3", WORKER), hub.address, known=mesh(9, "a")
        ) as agent:
            await until(lambda: agent._held_back)
            assert agent.states.value == mesh(9, "a")
            hub.age_s = 0.0
            await until(lambda: agent.states.value == mesh(3))


@pytest.mark.asyncio
async def test_that_no_manager_confirms_anything_is_said_and_that_one_does_again(
    authority: Authority,
) -> None:
    said: list[str] = []
    settings = msgspec.structs.replace(PATIENT, stale_after_s=0.1)
    async with hub_of(authority.issue("n1"), mesh(3)) as hub:
        client = HubClient(
            Certificates(authority.issue("n3", WORKER)),
            settings=settings,
            on_hub=lambda event, address: said.append(f"{event} {address}"),
        )
        client.set_hubs([hub.address])
        address, hub.age_s = str(hub.address), float("inf")
        async with background(client.run()):
            await until(lambda: len(said) == 2)
            assert client.status.connected
            assert client.status.state_age_s is None
            assert not client.caught_up.is_set()
            hub.age_s = 0.0
            await until(lambda: len(said) == 3)
            assert client.caught_up.is_set()
            hub.age_s = float("inf")
            await until(lambda: len(said) == 4)
            assert client.states.value == mesh(3)
    words = ("following", "unconfirmed", "confirmed", "unconfirmed")
    assert said == [f"{word} {address}" for word in words]


@pytest.mark.asyncio
async def test_a_silent_hub_is_noticed(authority: Authority) -> None:
    muted = ServerSettings(ping_interval_s=1000.0, standby_ping_interval_s=1000.0)
    impatient = LinkSettings(silence_s=0.3, standby_silence_s=0.3)
    async with (
        hub_of(authority.issue("n1"), mesh(3), muted) as hub,
        agent_of(authority.issue("n3", WORKER), hub.address, settings=impatient) as agent,
    ):
        await until(lambda: "silent for 0.3 s" in agent.status.last_error)
        assert agent.states.value == mesh(3)


@pytest.mark.asyncio
async def test_a_silent_agent_is_noticed_until_it_hangs_up(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that answers pings is not silent, nor is one that has closed its connection."""

    async def asked(*_: object) -> bool:
        return False

    monkeypatch.setattr("ebpfmesh.hub.hearing.answers", asked)
    said: list[set[str]] = []
    often = ServerSettings(ping_interval_s=0.05, standby_ping_interval_s=0.05)
    server = HubServer(
        Certificates(authority.issue("n1")),
        Latest(mesh(1)),
        lambda *_: None,
        lambda: 0.0,
        msgspec.structs.replace(often, silence_s=PATIENCE_S),
        on_hearing=lambda silent, _: said.append(set(silent)),
        patience=Patience(ask_after_s=0.5, silence_s=1.5, recent_s=1.5, stall_s=5.0),
    )
    await server.start(LOOPBACK, 0)
    address = HubAddress(LOOPBACK, server.port)
    context = bare_context(authority.issue("n4"))
    async with background(server.run()), agent_of(authority.issue("n2", WORKER), address):
        await until(lambda: bool(server.peers()))
        _, writer = await asyncio.open_connection(LOOPBACK, server.port, ssl=context)
        writer.write(encode(Hello(protocol=1, node_id="n4"), MAX_FROM_AGENT))
        await until(lambda: {"n4"} in said)
        writer.transport.abort()
        await until(lambda: said[-1] == set())
    assert all(one <= {"n4"} for one in said)


@pytest.mark.asyncio
async def test_a_connected_agent_survives_the_renewal_of_the_hubs_certificate(
    authority: Authority,
) -> None:
    home = authority.issue("n1")
    async with (
        hub_of(home, mesh(1), ServerSettings(reload_interval_s=0.05)) as hub,
        agent_of(authority.issue("n2", WORKER), hub.address) as early,
    ):
        await until(lambda: early.states.value == mesh(1))
        with capture_logs() as logs:
            authority.issue("n1")
            await until(lambda: any(x["event"] == "hub.certificates_renewed" for x in logs))
        async with agent_of(authority.issue("n3", WORKER), hub.address) as late:
            hub.states.set(mesh(2))
            await until(lambda: late.states.value == mesh(2) == early.states.value)


@pytest.mark.asyncio
async def test_hubs_can_be_taken_away_and_given_back(authority: Authority) -> None:
    async with (
        hub_of(authority.issue("n1"), mesh(1)) as hub,
        agent_of(authority.issue("n2", WORKER), hub.address) as agent,
    ):
        await until(lambda: agent.status.connected)
        agent.set_hubs([])
        await until(lambda: not agent.status.connected and not hub.server.peers())
        agent.set_hubs([hub.address])
        await until(lambda: agent.status.connected)


# --- who is kept out --------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["worker as hub", "hub of another swarm", "other organisation"])
async def test_an_agent_believes_no_false_hub(
    authority: Authority, stranger: Authority, kind: str
) -> None:
    issue: dict[str, Callable[[], Path]] = {
        "worker as hub": lambda: authority.issue("n1", WORKER),
        "hub of another swarm": lambda: stranger.issue("n1"),
        "other organisation": lambda: authority.issue("n1", swarm_id="swarm-two"),
    }
    home = issue[kind]()
    async with (
        hub_of(home, mesh(1)) as hub,
        agent_of(authority.issue("n2", WORKER), hub.address) as agent,
    ):
        await until(lambda: agent.status.last_error != "")
        assert not agent.status.connected
        assert agent.states.value == MeshState()


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["other swarm", "other organisation", "no certificate", "expired"])
async def test_a_hub_serves_no_stranger(
    authority: Authority, stranger: Authority, kind: str
) -> None:
    issue: dict[str, Callable[[], Path | None]] = {
        "other swarm": lambda: stranger.issue("n2"),
        "other organisation": lambda: authority.issue("n2", swarm_id="swarm-two"),
        "no certificate": lambda: None,
        "expired": lambda: authority.issue("n2", days=-1),
    }
    home = issue[kind]()
    async with hub_of(authority.issue("n1"), mesh(1)) as hub:
        assert await talk(hub, bare_context(home), Hello(protocol=1, node_id="n2")) == []
        assert hub.server.peers() == []


def bare_context(home: Path | None) -> ssl.SSLContext:
    """A client that trusts everybody, with a certificate of its own or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if home is not None:
        context.load_cert_chain(home / "swarm-node.crt", home / "plain")
    return context


async def talk(hub: Hub, context: ssl.SSLContext, *messages: FromAgent | bytes) -> list[FromHub]:
    """Say something and hang on until the hub hangs up; give what it said, pings left out."""
    said = b"".join(m if isinstance(m, bytes) else encode(m, MAX_FROM_AGENT) for m in messages)
    heard = b""
    async with asyncio.timeout(PATIENCE_S):
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(LOOPBACK, hub.server.port, ssl=context)
            try:
                writer.write(said)
                while data := await reader.read(1 << 16):
                    heard += data
            finally:
                writer.transport.abort()
    frames = map(decode_from_hub, FrameBuffer(1 << 20).feed(heard))
    return [message for message in frames if not isinstance(message, Ping)]


QUICK = ServerSettings(handshake_timeout_s=0.3, silence_s=0.3)
"""Too quick for a handshake on a busy machine: for those who shall not get that far."""

QUICKLY_SILENT = ServerSettings(silence_s=1.0)


@pytest.mark.asyncio
async def test_nobody_reports_for_another_node(authority: Authority) -> None:
    context = bare_context(authority.issue("n2"))
    async with hub_of(authority.issue("n1"), mesh(1), QUICKLY_SILENT) as hub:
        with capture_logs() as logs:
            hello = Hello(protocol=1, node_id="n2")
            await talk(hub, context, hello, Report("n9", "x"), Report("n2", "y"))
        assert hub.reports == {"n2": ("y", {})}
        refused = [line for line in logs if line["event"] == "hub.report_refused"]
        assert [(line["node_id"], line["claimed"]) for line in refused] == [("n2", "n9")]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (Hello(protocol=99, node_id="n2"), "version 99, this side 1"),
        (Hello(protocol=1, node_id="n9"), "says to be n9, its certificate n2"),
        (Report("n2"), "not a hello"),
    ],
)
async def test_a_refused_agent_is_told_why(
    authority: Authority, first: FromAgent, reason: str
) -> None:
    async with hub_of(authority.issue("n1"), mesh(1)) as hub:
        (answer,) = await talk(hub, bare_context(authority.issue("n2")), first)
        assert isinstance(answer, Refusal)
        assert reason in answer.reason


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="a message that is too long"),
        pytest.param(b"\x00\x00\x00\x03abc", id="no message at all"),
        pytest.param(b"\x00\x00\x00\x09", id="half a message, for ever"),
        pytest.param(b"", id="silence"),
    ],
)
async def test_a_broken_agent_is_dropped(authority: Authority, said: bytes) -> None:
    async with hub_of(authority.issue("n1"), mesh(1), QUICKLY_SILENT) as hub:
        context = bare_context(authority.issue("n2"))
        assert await talk(hub, context, said) == []
        hello = Hello(protocol=1, node_id="n2")
        assert await talk(hub, context, hello, said) == [Welcome(protocol=1, node_id="n1")]
        await until(lambda: hub.server.peers() == [])


@pytest.mark.asyncio
async def test_plain_text_harms_nobody(authority: Authority) -> None:
    async with hub_of(authority.issue("n1"), mesh(1), QUICK) as hub:
        reader, writer = await asyncio.open_connection(LOOPBACK, hub.server.port)
        writer.write(b"who is there?\r\n" * 100)
        async with asyncio.timeout(PATIENCE_S):
            with suppress(OSError):
                while await reader.read(1 << 16):
                    pass
        writer.transport.abort()
        async with agent_of(authority.issue("n2", WORKER), hub.address) as agent:
            await until(lambda: agent.states.value == mesh(1))


@pytest.mark.asyncio
async def test_a_full_hub_turns_the_next_agent_away(authority: Authority) -> None:
    one_place = msgspec.structs.replace(ServerSettings(), max_connections=1)
    async with (
        hub_of(authority.issue("n1"), mesh(1), one_place) as hub,
        agent_of(authority.issue("n2", WORKER), hub.address) as first,
    ):
        await until(lambda: first.status.connected)
        async with agent_of(authority.issue("n3", WORKER), hub.address) as second:
            await until(lambda: second.status.last_error != "")
            assert not second.status.connected


@pytest.mark.asyncio
async def test_when_things_happened_is_told_both_ways(authority: Authority) -> None:
    async with (
        hub_of(authority.issue("n1"), mesh(1, "a")) as hub,
        agent_of(authority.issue("n2", WORKER), hub.address) as agent,
    ):
        await until(lambda: agent.states.value.version == 1)
        assert agent.states.value.origin_ns == 0
        hub.states.set(msgspec.structs.replace(mesh(2, "a", "b"), origin_ns=7))
        await until(lambda: agent.states.value.version == 2)
        assert agent.states.value.origin_ns == 7
        for origin_ns in (8, 9):
            agent.report("192.0.2.13", {"a": BackendState.DRAINING}, origin_ns)
        await until(lambda: bool(hub.reports))
        agent.report("192.0.2.13", {}, 10)
        await until(lambda: hub.reports["n2"][1] == {})
        assert hub.origins[-1] == 10
        assert 9 not in hub.origins


def test_of_changes_that_are_sent_as_one_the_first_counts() -> None:
    encoder = UpdateEncoder(MAX_FROM_AGENT)
    old, new = mesh(1, "a"), msgspec.structs.replace(mesh(3, "a", "b"), origin_ns=30)
    for origin_ns in (20, 30):
        (payload,) = FrameBuffer(MAX_FROM_AGENT).feed(encoder.frame(old, new, origin_ns))
        message = decode_from_hub(payload)
        assert isinstance(message, Delta)
        assert message.origin_ns == origin_ns
    peer = Peer(
        cast(Any, None),
        cast(Any, None),
        cast(
            Any,
            HubParts("n1", Latest(new), encoder, cast(Any, None), lambda: 0.0, ServerSettings()),
        ),
    )
    for origin_ns in (0, 20, 30):
        peer.wake(origin_ns)
    assert peer._origin_ns == 20


# --- several hubs -----------------------------------------------------------------------


def test_a_dead_hub_is_missed_within_a_second() -> None:
    """Three pings have to be lost before that."""
    assert 3 * ServerSettings().ping_interval_s < LinkSettings().silence_s <= 1.0


@pytest.mark.asyncio
async def test_a_hub_that_freezes_is_left_for_one_that_lives(authority: Authority) -> None:
    frozen = ServerSettings(ping_interval_s=1000.0, standby_ping_interval_s=1000.0)
    lively = ServerSettings(ping_interval_s=0.02, standby_ping_interval_s=0.02)
    impatient = LinkSettings(silence_s=0.5, standby_silence_s=10.0)
    async with (
        hub_of(authority.issue("n1"), mesh(4, "a"), frozen) as first,
        hub_of(authority.issue("n2"), mesh(5, "b"), lively) as second,
        agent_of(
            authority.issue("n3", WORKER), first.address, second.address, settings=impatient
        ) as agent,
    ):
        await until(lambda: agent.status.hub_id == "n2" and agent.states.value == mesh(5, "b"))


@pytest.mark.asyncio
async def test_a_hub_whose_swarm_does_not_answer_is_left_at_once(authority: Authority) -> None:
    """Not only when its state has become old."""
    never_stale = msgspec.structs.replace(PATIENT, stale_after_s=1000.0)
    async with (
        hub_of(authority.issue("n1"), mesh(4)) as first,
        hub_of(authority.issue("n2"), mesh(4)) as second,
        agent_of(authority.issue("n3", WORKER), first.address, settings=never_stale) as agent,
    ):
        await until(lambda: agent.status.hub_id == "n1" and agent.states.value == mesh(4))
        agent.set_hubs([first.address, second.address])
        first.age_s = float("inf")
        await until(lambda: agent.status.hub_id == "n2")
        assert agent.status.state_age_s is not None


@pytest.mark.asyncio
async def test_without_any_swarm_the_agent_stays_where_it_is(authority: Authority) -> None:
    async with (
        hub_of(authority.issue("n1"), mesh(4)) as first,
        hub_of(authority.issue("n2"), mesh(4)) as second,
        agent_of(authority.issue("n3", WORKER), first.address, second.address) as agent,
    ):
        await until(lambda: agent.states.value == mesh(4))
        await until(lambda: all(link.fresh for link in agent._links.values()))
        first.age_s = second.age_s = float("inf")
        await until(lambda: not any(link.fresh for link in agent._links.values()))
        assert agent.status.hub_id in {"n1", "n2"}
        assert agent.states.value == mesh(4)


@pytest.mark.asyncio
async def test_a_hub_that_returns_with_an_old_state_rolls_nobody_back(authority: Authority) -> None:
    home = authority.issue("n1")
    async with (
        hub_of(authority.issue("n2"), mesh(9, "new")) as second,
        agent_of(authority.issue("n3", WORKER), second.address) as agent,
    ):
        await until(lambda: agent.states.value == mesh(9, "new"))
        async with hub_of(home, mesh(3, "old")) as returned:
            returned.age_s = float("inf")
            agent.set_hubs([returned.address, second.address])
            await until(lambda: all(link.connected for link in agent._links.values()))
            await second.server.close()
            await until(lambda: agent._held_back)
            assert agent.states.value == mesh(9, "new")
            # It has caught up.
            returned.states.set(mesh(10, "newer"))
            await until(lambda: agent.states.value == mesh(10, "newer"))


@pytest.mark.asyncio
async def test_without_any_hub_the_last_state_stays_and_it_is_said_since_when(
    authority: Authority,
) -> None:
    async with agent_of(authority.issue("n3", WORKER), known=mesh(7, "a")) as agent:
        async with hub_of(authority.issue("n1"), mesh(8, "b")) as running:
            agent.set_hubs([running.address])
            await until(lambda: agent.states.value == mesh(8, "b"))
        await until(lambda: not agent.status.connected)
        assert agent.states.value == mesh(8, "b")
        assert agent.status.last_error
        assert agent.status.since_s < PATIENCE_S
        agent.report("192.0.2.13", {"b": BackendState.GONE})
        async with hub_of(authority.issue("n1"), mesh(8, "b")) as again:
            agent.set_hubs([again.address])
            await until(lambda: "n3" in again.reports)
            assert again.reports["n3"] == ("192.0.2.13", {"b": BackendState.GONE})
