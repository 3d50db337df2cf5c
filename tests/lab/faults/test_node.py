# SPDX-License-Identifier: Apache-2.0
"""What befalls a node: its NIC, its firewall, its disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebpfmesh.lab.plan import CLIENT_ADDRESS, on_lan, plan_nodes
from ebpfmesh.lab.processes import wait_until

from ..traffic import CLIENT, Place
from .conftest import SERVICE, TIMEOUT_S, Ground, assert_all_open

NODE = "node2"
ADDRESS6 = next(node.address6 for node in plan_nodes(3, 1) if node.name == NODE)

_FLUSH = """
for table in filter nat mangle raw; do
    iptables -t $table -F && iptables -t $table -X
done
"""
_MOUNT = """
kept=$(mktemp) && cp "$0/mesh.state" $kept &&
mount -t tmpfs -o size=64k tmpfs "$0" && mv $kept "$0/mesh.state"
"""
_FILL = 'dd if=/dev/zero of="$0/filler" bs=4k 2>/dev/null; test -s "$0/filler"'


def run(ground: Ground, *argv: str) -> str:
    return ground.lab.run(NODE, argv).stdout


def test_its_nic_goes_down_and_up(ground: Ground) -> None:
    target = f"{ground.world.address(NODE)}:8080"
    before = attached(ground)
    with ground.world.corners.kept(CLIENT, target, count=20) as kept:
        since = ground.log(NODE)
        run(ground, "ip", "link", "set", "eth0", "down")
        try:
            ground.wait_problem(NODE, "the link eth0 to the other nodes is down")
            ground.wait_logged(NODE, '"link.down"', since)
        finally:
            plug_in(ground)
        ground.wait_healthy()
        ground.wait_logged(NODE, '"link.up"', since)
        assert kept.says() == kept.opened
    ground.settle()
    ground.assert_served()
    seen = ground.world.load.http(CLIENT, target, count=60).assert_none_failed()
    assert seen.peer == {CLIENT_ADDRESS: 60}
    ground.world.load.http(CLIENT, f"[{ADDRESS6}]:8080", count=60).assert_none_failed()
    assert attached(ground) == before


def plug_in(ground: Ground) -> None:
    """The kernel has taken IPv6 addresses away with the link; who gave them gives them again."""
    run(ground, "ip", "link", "set", "eth0", "up")
    run(ground, "ip", "address", "replace", on_lan(ADDRESS6), "dev", "eth0", "nodad")


def attached(ground: Ground) -> tuple[object, int]:
    found = ground.agents.status(NODE).datapath
    return found.nics, found.programs


def test_all_of_its_firewall_rules_are_flushed(ground: Ground) -> None:
    """As by firewalld when it is reloaded. Of ours there are none."""
    rules = run(ground, "iptables-save")
    with ground.kept() as kept:
        try:
            run(ground, "sh", "-c", _FLUSH)
            assert "DOCKER" not in run(ground, "iptables-save")
            assert_all_open(kept)
            ground.assert_served()
            for asked in ("127.0.0.1:8080", *ground.mesh):
                ground.world.load.http(Place(NODE), asked, count=30).assert_none_failed()
            ground.wait_healthy(NODE)
        finally:
            ground.lab.run(NODE, ["iptables-restore"], input=rules)


def test_its_disk_is_full(ground: Ground) -> None:
    """A line, however often it is tried; no harm to an agent that starts; then there is room."""
    words = "No space left on device"
    since = ground.log(NODE)
    with full_state_dir(ground) as directory, three_tasks(ground):
        for ready in ("started", "listening"):
            change(ground, ready)
        ground.wait_problem(NODE, words)
        with ground.kept() as kept:
            # What is saved does not know of the third task yet.
            ground.agents.kill_and_start(NODE)
            ground.wait_problem(NODE, words)
            assert_all_open(kept)
            ground.assert_served()
        assert ground.log(NODE)[len(since) :].count('"state.not_saved"') == 2  # by two agents
        assert '"shapes.not_kept"' in ground.log(NODE)[len(since) :]
        run(ground, "rm", f"{directory}/filler")
        ground.wait_healthy(NODE)
        ground.wait_logged(NODE, '"state.saved_again"', since)
        assert "mesh.state" in run(ground, "ls", str(directory)).split()


@contextmanager
def full_state_dir(ground: Ground) -> Iterator[Path]:
    """With the state that is saved; until the end of the context."""
    directory = ground.agents.state_dir(NODE)
    run(ground, "sh", "-c", _MOUNT, str(directory))
    try:
        run(ground, "sh", "-c", _FILL, str(directory))
        yield directory
    finally:
        run(ground, "umount", str(directory))


@contextmanager
def three_tasks(ground: Ground) -> Iterator[None]:
    ground.world.scale(SERVICE, 3)
    ground.world.wait_ready(SERVICE, 3, NODE)
    try:
        yield
    finally:
        ground.world.scale(SERVICE, 2)
        ground.settle()


def change(ground: Ground, ready: str) -> None:
    """Another label, which matters to nobody here; wait until the node has it."""
    before = ground.agents.status(NODE).hub.state_version
    ground.world.update(SERVICE, f"--label-add=ebpfmesh.ready={ready}")

    def newer() -> bool:
        return ground.agents.status(NODE).hub.state_version > before

    assert wait_until(newer, TIMEOUT_S, 0.1), f"{NODE} has still {before}"
