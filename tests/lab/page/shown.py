# SPDX-License-Identifier: Apache-2.0
"""The page of an agent under load, as a browser on the LAN shows it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from tests.page.look import Sight

from ..traffic import CLIENT
from ..world import World, on

CHECKOUT = Path(__file__).parents[3]
PICTURES = os.environ.get("PICTURES", "")
PORT = 8080


def look(world: World, url: str, pictures: Path) -> Sight:
    command = [sys.executable, "-m", "tests.page.look", url, str(pictures)]
    env = {"PYTHONPATH": str(CHECKOUT)}
    answer = world.lab.run("client", command, env=env, timeout_s=110)
    return msgspec.json.decode(answer.stdout, type=Sight)


def test_a_browser_shows_what_the_node_balances(world: World, tmp_path: Path) -> None:
    world.service("vote", replicas=2, publish=[f"{PORT}:80"], options=on("node1", "node2"))
    world.wait_ready("vote", 2)
    url = f"http://{world.address('node1')}:9477/"
    with world.load.background(CLIENT, *world.every_node(PORT)) as requests:
        seen = look(world, url, Path(PICTURES) if PICTURES else tmp_path)
        requests.stop().assert_none_failed()
    assert seen.title == "node1: ebpfmesh"
    for wanted in ("healthy", "vote", f"tcp:{PORT}", "2/2 ready", "node1 (here)", "node2"):
        assert wanted in seen.text
    assert set(seen.overflow.values()) == {0}
    assert seen.complaints == ()
    assert all(each.startswith((url, "data:")) for each in seen.asked), seen.asked
