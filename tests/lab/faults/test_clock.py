# SPDX-License-Identifier: Apache-2.0
"""A node whose clock is hours off, as far as its agent can tell."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ebpfmesh.unix_http import get

from .conftest import MANAGER, Ground, assert_all_open
from .test_node import change

NODE = "node2"
HOURS_S = 6 * 3600
NOT_YET = "certificate is not yet valid; it is "


class Clock:
    """That of one process."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "ahead_s"
        self._library = directory / "wrong_clock.so"
        source = Path(__file__).with_name("wrong_clock.c")
        compiler = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror"]
        subprocess.run([*compiler, "-o", str(self._library), str(source)], check=True)
        self.is_ahead(0)

    def is_ahead(self, seconds: int) -> None:
        """From now on."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "WRONG_CLOCK": str(self._file)}


@pytest.fixture
def clock(ground: Ground, tmp_path: Path) -> Iterator[Clock]:
    """That of node2's agent, until the end of the test."""
    made = Clock(tmp_path)
    try:
        yield made
    finally:
        ground.lab.restart_agent(NODE)


def test_a_clock_that_is_hours_behind_and_ahead(ground: Ground, clock: Clock) -> None:
    ground.lab.stop_agent(NODE)
    since = ground.log(NODE)
    clock.is_ahead(-HOURS_S)
    with ground.kept() as kept, ThreadPoolExecutor(1) as executor:
        # No certificate is valid yet: it waits, and says what for. What is attached serves.
        starting = executor.submit(ground.lab.start_agent, NODE, clock.environment)
        ground.wait_logged(NODE, f"own Swarm certificate is not valid: {NOT_YET}", since)
        ground.assert_served()
        clock.is_ahead(0)
        starting.result()
        ground.wait_healthy(NODE)

        # A connection to a hub stays; another one cannot be made.
        clock.is_ahead(-HOURS_S)
        change(ground, "started")
        assert converged_s(ground)[0] >= 0
        assert ground.problems(NODE) == ()
        ground.agents.kill_and_start(MANAGER)
        ground.wait_problem(NODE, NOT_YET)
        ground.assert_served()
        clock.is_ahead(0)
        ground.wait_healthy(NODE)

        clock.is_ahead(HOURS_S)
        change(ground, "listening")
        ground.wait_healthy(NODE)
        ground.assert_served()
        assert_all_open(kept)


def converged_s(ground: Ground) -> tuple[float, float]:
    """The sum of what all changes took on the node, and how many there were."""
    _, body = get(ground.lab.node(NODE).agent_socket, "/metrics")
    families = text_string_to_metric_families(body.decode())
    wanted = next(one for one in families if one.name == "ebpfmesh_convergence_seconds")
    found = {sample.name.rpartition("_")[2]: sample.value for sample in wanted.samples}
    return found["sum"], found["count"]
