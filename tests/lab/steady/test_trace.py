# SPDX-License-Identifier: Apache-2.0
"""`ebpfmesh trace` beside traffic, on the agent of a node that serves."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ..traffic import CLIENT
from .conftest import Steady

HEADING = "TIME"
TIMEOUT_S = 30


@contextmanager
def traced(steady: Steady, node: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A trace of a node that listens already."""
    socket = steady.world.lab.node(node).agent_socket
    command = [sys.executable, "-m", "ebpfmesh", "trace", "--socket", str(socket), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(HEADING)
        try:
            yield process
        finally:
            process.terminate()


def test_flows_as_they_begin(steady: Steady) -> None:
    """Each connection is told once on the node where it came in, with the way that it took."""
    asked, count = steady.mesh[0], 20
    options = ("--service", "vote", "--kind", "flow", "--count", str(count))
    with traced(steady, "node1", *options) as process:
        served = steady.world.load.http(CLIENT, asked, count=count).assert_none_failed()
        out, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    told = [line.split() for line in out.splitlines()]
    assert {line[6] for line in told} == {asked}
    hosts = {task.node: task.host for task in steady.tasks}
    ways = Counter(line[2] for line in told)
    assert ways == {
        "local": served.host[hosts["node1"]],
        "wrapped": served.host[hosts["node2"]],
    }
