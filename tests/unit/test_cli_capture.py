from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ebpfmesh import pcapng
from ebpfmesh.cli.capture import _copy
from ebpfmesh.pcapng import Block
from tests.unit.fake_agent import FakeAgent, a_place, an_agent, invoke

HEAD = pcapng.section("test") + pcapng.interface("eth0", "", 96)
PACKETS = b"".join(pcapng.packet(0, n, bytes([n]), 1, outbound=False) for n in range(3))
FIRST, LAST = pcapng.statistics(0, 1, 1, 0), pcapng.statistics(0, 2, 5, 2)
SECOND_NS = 10**9
ASKED = "/capture?count=1000&seconds=60.0&snaplen=262"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from a_place(monkeypatch)


@pytest.fixture
def agent(place: Path) -> Iterator[FakeAgent]:
    for agent in an_agent(place):
        agent.answers[f"{ASKED}&service=echo"] = HEAD + FIRST + PACKETS + LAST
        yield agent


def test_to_a_file(agent: FakeAgent, tmp_path: Path) -> None:
    """Statistics that say no more than that the agent is there are left out."""
    file = tmp_path / "out.pcapng"
    code, out, err = invoke("capture", "ec", "--write", str(file))
    assert (code, out, err) == (0, "", "3 packets, 2 lost\n")
    assert file.read_bytes() == HEAD + PACKETS + LAST


def test_to_a_pipe(agent: FakeAgent) -> None:
    command = [sys.executable, "-m", "ebpfmesh", "capture", "echo"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == HEAD + PACKETS + LAST


def test_not_to_a_terminal(agent: FakeAgent) -> None:
    own, other = pty.openpty()
    command = [sys.executable, "-m", "ebpfmesh", "capture", "echo"]
    done = subprocess.run(command, stdout=other, stderr=subprocess.PIPE, check=False)
    os.close(own)
    os.close(other)
    assert done.returncode == 2
    assert b"--write" in done.stderr


def test_what_is_asked(agent: FakeAgent, tmp_path: Path) -> None:
    query = "/capture?count=5&seconds=2.5&snaplen=1500&xdp=1&service=echo"
    agent.answers[query] = HEAD
    limits = ("--count", "5", "--seconds", "2.5", "--snaplen", "1500", "--keep-xdp")
    code, _, err = invoke("capture", "echo", *limits, "-w", str(tmp_path / "file"))
    assert (code, err) == (0, "0 packets\n")


def test_a_file_that_cannot_be_written(agent: FakeAgent, tmp_path: Path) -> None:
    code, _, err = invoke("capture", "echo", "-w", str(tmp_path / "none" / "file"))
    assert code == 1
    assert "No such file or directory" in err


def test_a_service_that_is_not_there(agent: FakeAgent, tmp_path: Path) -> None:
    code, _, err = invoke("capture", "nobody", "-w", str(tmp_path / "file"))
    assert code == 1
    assert "no service nobody" in err


def test_no_agent_is_exit_3(place: Path, tmp_path: Path) -> None:
    assert invoke("capture", "echo", "-w", str(tmp_path / "file"))[0] == 3


PLACES = [Block(pcapng.INTERFACE, pcapng.interface(name, "", 96)) for name in ("eth0", "eth1")]


def seen_at(time_ns: int) -> list[Block]:
    return [Block(pcapng.PACKET, pcapng.packet(0, time_ns, b"x", 1, outbound=False))]


def counted_at(time_ns: int) -> list[Block]:
    places = range(len(PLACES))
    return [Block(pcapng.STATISTICS, pcapng.statistics(n, time_ns, 1, 1)) for n in places]


@pytest.mark.parametrize(("end", "counted"), [(counted_at, (3, 2)), (seen_at, (4, 2))])
def test_ctrl_c_waits_for_what_has_passed_already(
    end: Callable[[int], list[Block]], counted: tuple[int, int]
) -> None:
    """The agent sends what it has copied a little later."""
    begin = time.time_ns()

    def blocks() -> Iterator[Block]:
        yield from [*PLACES, *seen_at(begin)]
        os.kill(os.getpid(), signal.SIGINT)
        yield from [*seen_at(begin), *counted_at(begin), *seen_at(time.time_ns())]
        yield from end(begin + 60 * SECOND_NS)
        pytest.fail("it goes on")

    assert _copy(blocks(), io.BytesIO()) == counted


def test_ctrl_c_twice_ends_it_at_once() -> None:
    def blocks() -> Iterator[Block]:
        for time_ns in range(3):
            yield from seen_at(time_ns)
            os.kill(os.getpid(), signal.SIGINT)

    assert _copy(blocks(), io.BytesIO())[0] == 2
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
