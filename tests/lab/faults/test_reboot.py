# SPDX-License-Identifier: Apache-2.0
"""A worker boots while no manager can be asked; and no manager at all."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from ebpfmesh.lab.processes import wait_until

from ..traffic import CLIENT
from .conftest import MANAGER, TIMEOUT_S, Ground

NODE = "node3"

_NOTHING_LEFT = """
umount /run/docker/netns/*
rm -f /run/docker/netns/*
ip link delete docker_gwbridge
test ! -e /sys/fs/bpf/ebpfmesh
"""


def test_no_manager_answers(ground: Ground) -> None:
    """What a node sees of its own tasks is followed all the same, everywhere; then all is well."""
    dead, alive = sorted(ground.tasks(), key=lambda task: task.node == "node2")
    assert alive.node == "node2"
    since = ground.log("node2")
    ground.lab.stop_docker(MANAGER)
    assert dead.place.pid is not None
    os.kill(dead.place.pid, signal.SIGKILL)
    for node in ground.agents.nodes:

        def heard(node: str = node) -> bool:
            return ground.ready(node) == {"node2": 1}

        assert wait_until(heard, TIMEOUT_S, 0.1), f"{node} has {ground.ready(node)}"
    ground.assert_served(alive.host)
    ground.wait_problem("node2", "no manager has confirmed the Swarm's state for ")
    ground.wait_logged("node2", '"hub.unconfirmed"', since)

    ground.lab.kill_agent(MANAGER)
    ground.wait_problem("node2", "no hub for ")
    ground.assert_served(alive.host)

    with ThreadPoolExecutor(1) as executor:
        starting = executor.submit(ground.agents.start, MANAGER)
        ground.lab.start_docker(MANAGER)
        starting.result()
    ground.settle()
    ground.wait_healthy()
    ground.wait_logged("node2", '"hub.confirmed"', since)
    ground.assert_served()


@pytest.mark.timeout(180)
def test_a_worker_boots_without_a_hub(ground: Ground) -> None:
    """All maps and links are gone. What it has saved serves, but for its own tasks of before."""
    staying = next(task for task in ground.tasks() if task.node != NODE)
    ground.lab.kill_agent(MANAGER)
    power_off(ground)
    since = ground.log(NODE)
    with ThreadPoolExecutor(1) as executor:
        starting = executor.submit(ground.agents.start, NODE)
        ground.wait_logged(NODE, '"agent.waiting"', since)
        ground.lab.start_docker(NODE)
        starting.result()
    assert "no hub for" in ground.problems(NODE)[0]
    assert ground.ready(NODE) == {"node2": 1}
    target = f"{ground.world.address(NODE)}:8080"
    seen = ground.world.load.http(CLIENT, target, count=60).assert_none_failed()
    assert seen.host == {staying.host: 60}
    ground.agents.start(MANAGER)
    ground.settle()
    ground.wait_healthy()
    ground.world.load.http(CLIENT, *ground.mesh, count=60).assert_none_failed()


def power_off(ground: Ground) -> None:
    ground.lab.kill_agent(NODE)
    ground.lab.stop_docker(NODE)
    env = {"EBPFMESH_CGROUP": str(ground.lab.node(NODE).cgroup)}
    ground.lab.run(NODE, [sys.executable, "-m", "ebpfmesh", "detach"], env=env)
    ground.lab.run(NODE, ["sh", "-c", _NOTHING_LEFT])
