# SPDX-License-Identifier: Apache-2.0
"""Who may ask an agent: its socket is its owner's alone, its port bears with anybody."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import aiohttp
import pytest

from ebpfmesh.accepting import Room, raise_limit_of_files
from ebpfmesh.agent import http
from ebpfmesh.agent.answers import Answers
from ebpfmesh.agent.http import Face, serve_metrics, serve_socket
from tests.unit.test_page import FakeAnswers

LOOPBACK, SOMEWHERE_ELSE = "127.0.0.1", "127.0.0.2"
PATIENCE_S = 20.0


@pytest.fixture
def place() -> Iterator[Path]:
    """A socket's path has to be short."""
    directory = Path(tempfile.mkdtemp(prefix="ebpfmesh-"))
    yield directory / "run" / "agent.sock"
    shutil.rmtree(directory)


def an_agent() -> Answers:
    return cast(Answers, FakeAnswers())


async def test_the_socket_is_its_owners_alone(place: Path) -> None:
    before = os.umask(0)
    try:
        runner = await serve_socket(an_agent(), place)
        try:
            found = os.stat(place)  # noqa: PTH116 - of a socket, in a moment
            assert stat.S_ISSOCK(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o600
            assert found.st_uid == os.geteuid()
            assert not os.stat(place.parent).st_mode & 0o022  # noqa: PTH116
            assert os.umask(0) == 0
        finally:
            await runner.cleanup()
    finally:
        os.umask(before)


async def test_what_the_network_may_ask_is_no_more_than_this() -> None:
    async with a_face() as face, aiohttp.ClientSession() as client:
        base = "http://{}:{}".format(*face.address)
        for path, wanted in {"/healthz": 200, "/readyz": 200, "/": 200, "/live": 200}.items():
            async with client.get(base + path) as answer:
                assert answer.status == wanted
        admin = ("/status", "/flows", "/changes", "/explain", "/trace", "/capture")
        for path in (*admin, "/../status", "//status"):
            async with client.get(base + path) as answer:
                assert answer.status == 404


async def test_it_listens_where_it_is_told_to() -> None:
    async with a_face() as face:
        with pytest.raises(OSError, match=r"refused|Connect"):
            await asyncio.open_connection(SOMEWHERE_ELSE, face.address[1])


async def test_one_who_opens_many_connections_keeps_nobody_out() -> None:
    async with a_face() as face:
        flood = [
            await asyncio.open_connection(*face.address, local_addr=(SOMEWHERE_ELSE, 0))
            for _ in range(http.MOST_OF_ONE_ADDRESS + 5)
        ]
        try:
            for reader, writer in flood:
                writer.write(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
                if flood.index((reader, writer)) >= http.MOST_OF_ONE_ADDRESS:
                    await ended(reader)
            assert not any(reader.at_eof() for reader, _ in flood[: http.MOST_OF_ONE_ADDRESS])
            assert await healthy(face)
        finally:
            for _, writer in flood:
                writer.transport.abort()


async def test_who_never_asks_anything_whole_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LONGEST_S", 0.1)
    async with a_face() as face:
        for said in (b"", b"GET /healthz HTTP/1.1\r\nX-Slow: "):
            reader, writer = await asyncio.open_connection(*face.address)
            writer.write(said)
            await ended(reader)
            writer.transport.abort()
        assert await healthy(face)


@asynccontextmanager
async def a_face() -> AsyncIterator[Face]:
    face = await serve_metrics(an_agent(), LOOPBACK, 0, page=True)
    try:
        yield face
    finally:
        await face.cleanup()


async def ended(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(PATIENCE_S):
        with suppress(OSError):
            assert await reader.read() == b""


async def healthy(face: Face) -> bool:
    url = "http://{}:{}/healthz".format(*face.address)
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        return answer.status == 200


def test_room_is_for_so_many_and_of_one_for_fewer() -> None:
    room = Room(3, 2)
    assert [room.enter(who) for who in "aaabb"] == [True, True, False, True, False]
    room.leave("a")
    assert room.enter("b")
    assert not room.enter("c")


def test_as_many_files_as_the_system_grants() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        raise_limit_of_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
