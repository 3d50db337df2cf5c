# SPDX-License-Identifier: Apache-2.0
"""Who does not belong to the Swarm, or does not behave: a hub goes on serving the others.

Over real TLS. Who is kept out, and what breaks the protocol, is in test_hub_wire.py, too.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from structlog.testing import capture_logs

from ebpfmesh.hub import HubAddress, HubServer, ServerSettings
from ebpfmesh.hub.protocol import (
    MAX_FROM_HUB,
    FromAgent,
    Full,
    Hello,
    Report,
    Welcome,
    encode,
)
from ebpfmesh.hub.server import MOST_OF_ONE_NODE
from ebpfmesh.hub.tls import Certificates
from ebpfmesh.model import BackendState, MeshState
from ebpfmesh.swarm.api import NetworkDoc, NodeDoc, ServiceDoc, TaskDoc, decode
from ebpfmesh.swarm.mesh import Snapshot
from ebpfmesh.swarm.watcher import MeshWatcher
from tests.unit import test_swarm_mesh as docs
from tests.unit.swarm_pki import WORKER, Authority
from tests.unit.test_hub_wire import (
    LOOPBACK,
    PATIENCE_S,
    QUICK,
    QUICKLY_SILENT,
    agent_of,
    background,
    bare_context,
    hub_of,
    mesh,
    talk,
    until,
)

SOMEWHERE_ELSE = "127.0.0.2"
LONGEST_LINE = 500


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki") / "ours", "swarm-one")


@asynccontextmanager
async def a_connection(
    port: int, context: ssl.SSLContext | None = None, source: str = LOOPBACK
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(
        LOOPBACK, port, ssl=context, local_addr=(source, 0)
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def hung_up(reader: asyncio.StreamReader) -> None:
    """Wait until the other side has had enough."""
    async with asyncio.timeout(PATIENCE_S):
        with suppress(OSError):
            while await reader.read(1 << 16):
                pass


async def dripped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> int:
    """Send a byte now and then, never silent for long; how many it took until it was cut off."""
    ended = asyncio.create_task(hung_up(reader))
    sent = 0
    with suppress(OSError):
        while not ended.done():
            writer.write(data[sent : sent + 1] or b"\0")
            await writer.drain()
            sent += 1
            await asyncio.wait([ended], timeout=0.02)
    await ended
    return sent


# --- without a certificate


@pytest.mark.asyncio
async def test_who_has_not_shown_a_certificate_takes_no_place_of_an_agent(
    authority: Authority,
) -> None:
    """Though its connections say nothing, and are not given up for long."""
    few = ServerSettings(max_strangers=8, max_of_one_address=4, handshake_timeout_s=PATIENCE_S)
    async with hub_of(authority.issue("n1"), mesh(1), few) as hub:
        flood = [
            await asyncio.open_connection(LOOPBACK, hub.server.port, local_addr=(SOMEWHERE_ELSE, 0))
            for _ in range(20)
        ]
        try:
            refused = [asyncio.create_task(hung_up(reader)) for reader, _ in flood[4:]]
            await asyncio.wait_for(asyncio.gather(*refused), PATIENCE_S)
            async with agent_of(authority.issue("n2", WORKER), hub.address) as agent:
                await until(lambda: agent.states.value == mesh(1))
            assert not any(reader.at_eof() for reader, _ in flood[:4])
        finally:
            for _, writer in flood:
                writer.transport.abort()


@pytest.mark.asyncio
async def test_a_place_is_free_again_when_a_stranger_has_gone(authority: Authority) -> None:
    one = ServerSettings(max_strangers=1, max_of_one_address=1)
    async with hub_of(authority.issue("n1"), mesh(1), one) as hub:
        for _ in range(3):
            async with a_connection(hub.server.port) as (reader, writer):
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await hung_up(reader)
        async with agent_of(authority.issue("n2", WORKER), hub.address) as agent:
            await until(lambda: agent.states.value == mesh(1))


@pytest.mark.asyncio
async def test_a_handshake_that_drips_is_cut_off(authority: Authority) -> None:
    async with (
        hub_of(authority.issue("n1"), mesh(1), QUICK) as hub,
        a_connection(hub.server.port) as (reader, writer),
    ):
        # The head of a record of 512 bytes, a handshake's: then one zero after the other.
        assert await dripped(reader, writer, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc") < 512


@pytest.mark.asyncio
async def test_strangers_do_not_fill_the_log(authority: Authority) -> None:
    async with hub_of(authority.issue("n1"), mesh(1), QUICK) as hub:
        with capture_logs() as logs:
            for _ in range(20):
                async with a_connection(hub.server.port) as (reader, writer):
                    writer.write(b"who is there?\r\n")
                    await hung_up(reader)
        told = [line for line in logs if line["event"] == "hub.stranger_refused"]
        assert 1 <= len(told) < 20
        assert told[0]["address"] == LOOPBACK


@pytest.mark.asyncio
async def test_a_stranger_who_hangs_up_is_told_as_one(authority: Authority) -> None:
    async with hub_of(authority.issue("n1"), mesh(1)) as hub:
        with capture_logs() as logs:
            async with a_connection(hub.server.port):
                pass
            await until(lambda: any(line["event"] == "hub.stranger_refused" for line in logs))
    [told] = [line for line in logs if line["event"] == "hub.stranger_refused"]
    assert told["error"] == "it hung up before it had shown a certificate"


# --- with one, and ill-behaved


@pytest.mark.asyncio
async def test_a_message_that_drips_is_no_first_message(authority: Authority) -> None:
    context = bare_context(authority.issue("n2"))
    async with (
        hub_of(authority.issue("n1"), mesh(1), QUICK) as hub,
        a_connection(hub.server.port, context) as (reader, writer),
    ):
        assert await dripped(reader, writer, (1000).to_bytes(4, "big")) < 1000


@pytest.mark.asyncio
async def test_of_a_message_of_a_gigabyte_nothing_is_read(authority: Authority) -> None:
    context, piece = bare_context(authority.issue("n2")), bytes(1 << 20)
    async with (
        hub_of(authority.issue("n1"), mesh(1)) as hub,
        a_connection(hub.server.port, context) as (reader, writer),
    ):
        writer.write(encode(Hello(1, "n2"), 1000) + (1 << 30).to_bytes(4, "big"))
        sent = 0
        with suppress(OSError):
            while not writer.is_closing() and sent < 1 << 30:
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
        assert sent < 64 << 20
        await hung_up(reader)
        async with agent_of(authority.issue("n3", WORKER), hub.address) as agent:
            await until(lambda: agent.states.value == mesh(1))


@pytest.mark.asyncio
async def test_one_node_does_not_take_the_others_places(authority: Authority) -> None:
    context = bare_context(authority.issue("n2"))
    async with hub_of(authority.issue("n1"), mesh(1), ServerSettings(silence_s=1000)) as hub:
        held = []
        try:
            for _ in range(MOST_OF_ONE_NODE + 2):
                reader, writer = await asyncio.open_connection(
                    LOOPBACK, hub.server.port, ssl=context
                )
                held.append((reader, writer))
                writer.write(encode(Hello(1, "n2"), 1000))
                assert await reader.read(4)
            for reader, _ in held[:2]:
                await hung_up(reader)
            await until(lambda: len(hub.server.peers()) == MOST_OF_ONE_NODE)
            assert not any(reader.at_eof() for reader, _ in held[2:])
        finally:
            for _, writer in held:
                writer.transport.abort()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "said",
    [
        pytest.param([Hello(1, "n2" * 10_000)], id="a node's id"),
        pytest.param([Hello(1, "n2", "v" * 10_000)], id="a version"),
        pytest.param([Hello(1, "n2"), Report("n9" * 10_000)], id="another node's id"),
        pytest.param([Hello(1, "n2"), Report("n2", "1" * 10_000)], id="an address"),
        pytest.param(
            [Hello(1, "n2"), Report("n2", "", {"t" * 10_000: BackendState.GONE})], id="a task's id"
        ),
    ],
)
async def test_long_names_get_nowhere(authority: Authority, said: list[FromAgent]) -> None:
    async with hub_of(authority.issue("n1"), mesh(1), QUICKLY_SILENT) as hub:
        with capture_logs() as logs:
            answers = await talk(hub, bare_context(authority.issue("n2")), *said)
        assert hub.reports == {}
        assert all(isinstance(answer, Welcome) for answer in answers)
        assert any(line["event"] == "hub.agent_dropped" for line in logs)
        assert max(len(str(line)) for line in logs) < LONGEST_LINE


# --- a worker that says more than it may


@pytest.mark.asyncio
async def test_no_agent_tells_a_hub_the_swarms_state(authority: Authority) -> None:
    """Be it a manager's: a hub asks the Swarm itself, and nobody else."""
    forged = encode(Full(MeshState(version=1 << 60)), MAX_FROM_HUB)
    async with hub_of(authority.issue("n1"), mesh(1), QUICKLY_SILENT) as hub:
        with capture_logs() as logs:
            for home in (authority.issue("n2", WORKER), authority.issue("n2")):
                hello = Hello(1, "n2")
                assert await talk(hub, bare_context(home), hello, forged) == [Welcome(1, "n1")]
        assert hub.states.value == mesh(1)
        assert sum(line["event"] == "hub.agent_dropped" for line in logs) == 2


class OneSwarm:
    """A task on each of two nodes, as the Swarm API lists them."""

    async def tasks(self) -> list[TaskDoc]:
        listed = [docs.task(ID=f"of-{node}", NodeID=node) for node in ("n1", "n2")]
        return decode(listed, list[TaskDoc])

    async def complete(self, tasks: list[TaskDoc]) -> Snapshot:
        return Snapshot(
            services=decode([docs.WEB], list[ServiceDoc]),
            tasks=tasks,
            nodes=decode([docs.ONE, docs.TWO], list[NodeDoc]),
            networks=decode([docs.INGRESS, docs.FRONT], list[NetworkDoc]),
        )


@pytest.mark.asyncio
async def test_a_worker_reports_about_its_own_tasks_alone(authority: Authority) -> None:
    watcher = MeshWatcher(OneSwarm())
    server = HubServer(
        Certificates(authority.issue("n1")), watcher.states, watcher.report, watcher.age_s
    )
    await server.start(LOOPBACK, 0)
    address = HubAddress(LOOPBACK, server.port)
    async with (
        background(watcher.run()),
        background(server.run()),
        agent_of(authority.issue("n2", WORKER), address) as worker,
    ):
        await until(lambda: len(watcher.state.tasks) == 2)
        gone = {f"of-{node}": BackendState.GONE for node in ("n1", "n2")}
        worker.report("192.0.2.11", {**gone, "of-nobody": BackendState.READY})
        await until(lambda: watcher.state.tasks["of-n2"].state is BackendState.GONE)
        await until(lambda: worker.states.value.version == watcher.state.version)
        state = worker.states.value
        assert state.tasks.keys() == {"of-n1", "of-n2"}
        assert state.tasks["of-n1"].state is not BackendState.GONE
        assert state.nodes["n1"].vtep == "192.0.2.11"


# --- hubs that are none


@pytest.mark.asyncio
async def test_an_agent_believes_no_hub_with_an_expired_certificate(authority: Authority) -> None:
    home = authority.issue("n1", days=-1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "swarm-node.crt", home / "plain")
    async with (
        a_server(context) as address,
        agent_of(authority.issue("n2", WORKER), address) as agent,
    ):
        await until(lambda: "expired" in agent.status.last_error)
        assert not agent.status.connected


@pytest.mark.asyncio
@pytest.mark.parametrize("speaks", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_an_agent_gives_up_who_speaks_no_tls(authority: Authority, speaks: bytes) -> None:
    async with (
        a_server(None, speaks) as address,
        agent_of(authority.issue("n2", WORKER), address) as agent,
    ):
        await until(lambda: agent.status.last_error != "")
        assert not agent.status.connected


@asynccontextmanager
async def a_server(context: ssl.SSLContext | None, says: bytes = b"") -> AsyncIterator[HubAddress]:
    """It says something, and hangs on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await hung_up(reader)
        writer.transport.abort()

    listening = socket.create_server((LOOPBACK, 0))
    server = await asyncio.start_server(serve, sock=listening, ssl=context)
    try:
        yield HubAddress(LOOPBACK, int(listening.getsockname()[1]))
    finally:
        server.close()
        await asyncio.sleep(0)
