# SPDX-License-Identifier: Apache-2.0
"""Client and server of bench-lab, compiled, and asked over the loopback address."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from bench.lab.figures import LATENCY, THROUGHPUT, Report
from bench.lab.programs import build

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")

MOST_WAIT_S = 20
MODES = [workload.mode for workload in (*THROUGHPUT, LATENCY)]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("load", tmp_path_factory.mktemp("load"))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = build("serve", tmp_path_factory.mktemp("serve"))
    port = str(free_port())
    with subprocess.Popen([program, port]) as process:
        try:
            wait_for(int(port))
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    until_s = time.monotonic() + MOST_WAIT_S
    while True:
        with closing(socket.socket()) as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        assert time.monotonic() < until_s, "the server does not listen"
        time.sleep(0.01)


def run(load: Path, mode: str, *targets: str, rate: int = 100) -> subprocess.CompletedProcess[str]:
    how = [mode, "4", "0.3", str(rate), *targets]
    return subprocess.run([load, *how], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gets_answers(load: Path, target: str, mode: str) -> None:
    found = msgspec.json.decode(run(load, mode, target).stdout, type=Report)
    assert found.failed == 0
    assert found.seconds > 0
    assert (found.bytes > 0) == (mode in {"down", "up"})
    assert (found.done > 0) == (mode not in {"down", "up"})


def test_paced_requests_come_at_their_rate_with_their_times(load: Path, target: str) -> None:
    began_s = time.monotonic()
    found = msgspec.json.decode(run(load, "paced", target, rate=200).stdout, type=Report)
    assert 0 < found.done <= 200 * (time.monotonic() - began_s) + 1
    assert 0 < found.p50_us <= found.p90_us <= found.p99_us <= found.p999_us


def test_the_targets_take_turns(load: Path, target: str) -> None:
    """The second one refuses: it is asked too."""
    done = run(load, "keep", target, f"127.0.0.1:{free_port()}")
    assert done.returncode != 0
    assert "connect" in done.stderr


def test_connections_that_are_refused_fail(load: Path) -> None:
    done = run(load, "once", f"127.0.0.1:{free_port()}")
    assert done.returncode != 0
    assert "failures" in done.stderr
