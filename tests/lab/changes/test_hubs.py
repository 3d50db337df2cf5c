# SPDX-License-Identifier: Apache-2.0
"""The hub that a worker follows dies, is silent, and comes back with an old state."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest

from ebpfmesh.hub.link import LinkSettings
from ebpfmesh.status import HubStatus

from ..traffic import CLIENT
from .scene import NETWORK, PORTS, SERVICE, Scene

WORKER = "node4"


def hub_of(scene: Scene) -> HubStatus:
    """What the worker says of the hub that it follows."""
    return scene.agents.status(WORKER).hub


def followed(scene: Scene) -> str:
    """The node of that hub."""
    address = hub_of(scene).address.rpartition(":")[0]
    return next(node.name for node in scene.lab.nodes if node.address == address)


def wait_other_hub(scene: Scene, address: str) -> None:
    """Wait until the worker follows another; it had none for no longer than a silence may last."""

    def followed_anew() -> bool:
        hub = hub_of(scene)
        return hub.connected and hub.address != address

    scene.wait(followed_anew, f"{WORKER} follows no other hub")
    changes = [one for one in scene.agents.changes(WORKER) if one.event.startswith("hub.")]
    following, left = changes[:2]
    assert (following.event, left.event) == ("hub.following", "hub.left")
    assert left.fields == {"hub": address}
    assert following.at - left.at <= LinkSettings().silence_s
    assert scene.agents.status(WORKER).problems == ()


def scale(scene: Scene, count: int) -> None:
    scene.world.scale(SERVICE, count)
    scene.settle(count)


@contextmanager
def asked(scene: Scene) -> Iterator[None]:
    """By all ways, all the while: no request fails."""
    world = scene.world
    inside = world.container(WORKER, "asks", f"--network={NETWORK}")
    scene.agents.wait_ready(SERVICE, NETWORK, scene.replicas, [WORKER])
    vip = f"{world.vip(SERVICE, NETWORK)}:80"
    try:
        with (
            world.load.background(CLIENT, *world.every_node(PORTS[SERVICE])) as outside,
            world.load.background(inside.place, vip) as within,
        ):
            yield
            for client in (outside, within):
                client.stop().assert_none_failed()
    finally:
        world.remove_container(inside)


@pytest.mark.timeout(300)
def test_a_worker_follows_another_hub_and_nobody_is_rolled_back(
    scene: Scene, tmp_path: Path
) -> None:
    """The hub that dies comes back with the state of before the scaling."""
    hub, address = followed(scene), hub_of(scene).address
    file, saved = scene.agents.state_dir(hub) / "mesh.state", tmp_path / "saved"
    shutil.copy(file, saved)
    with asked(scene):
        scene.lab.kill_agent(hub)
        wait_other_hub(scene, address)
        scale(scene, scene.replicas + 2)
        shutil.copy(saved, file)
        with rolls_nobody_back(scene, hub):
            scene.agents.start(hub)
            scene.settle(scene.replicas + 2)
            scene.wait(lambda: scene.agents.status(hub).hub.role == "hub", f"{hub} is no hub")
            scale(scene, scene.replicas)


@pytest.mark.timeout(300)
def test_a_hub_that_is_silent_is_left(scene: Scene) -> None:
    """It does not run, but nobody tells: its connections stay."""
    hub, address = followed(scene), hub_of(scene).address
    pid = scene.lab.node(hub).agent_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_other_hub(scene, address)
    finally:
        os.kill(pid, signal.SIGCONT)
    silence = f"the peer was silent for {LinkSettings().silence_s:g} s"
    assert silence in scene.lab.node(WORKER).agent_log.read_text()
    scene.wait(lambda: not scene.agents.status(hub).problems, f"{hub} is not well")


@contextmanager
def rolls_nobody_back(scene: Scene, but: str) -> Iterator[None]:
    """No other node goes back to a version of before."""
    others = [node.name for node in scene.living() if node.name != but]
    over, seen = Event(), {name: [0] for name in others}

    def watch(name: str) -> None:
        while not over.is_set():
            seen[name].append(scene.agents.status(name).hub.state_version)
            over.wait(0.2)

    with ThreadPoolExecutor() as executor:
        watching = [executor.submit(watch, name) for name in others]
        try:
            yield
        finally:
            over.set()
        for one in watching:
            one.result()
    assert all(versions == sorted(versions) for versions in seen.values()), seen
