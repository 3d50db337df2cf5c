# SPDX-License-Identifier: Apache-2.0
"""What is done to a service under load. Each returns when the change is over, with its marks."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.lab import Lab
from ebpfmesh.lab.plan import Place
from ebpfmesh.lab.unix_http import get_json

from ..world import INGRESS, Task
from .judge import Cut, Death, Isolation, Marks
from .scene import CHECKED, OTHER_PORT, PORTS, SERVICE, Scene

Act = Callable[[Scene], Marks]

END_TIMEOUT_S = 30
PAUSE_TRIES = 20
ORPHANED_S = 5.0
SMALL, LARGE = "131072", "262144"  # flows
UNHEALTHY = "/tmp/unhealthy"  # noqa: S108 - in a container


def on_node(scene: Scene, node: str) -> set[str]:
    """The tasks there, of both services."""
    return {host for name in PORTS for host, where in scene.hosts(name).items() if where == node}


def leaving(act: Callable[[Scene], None]) -> Act:
    """Whoever is not there any more afterwards has left as it should."""

    def marked(scene: Scene) -> Marks:
        before = {host for name in PORTS for host in scene.hosts(name)}
        act(scene)
        return Marks(left=before - {host for name in PORTS for host in scene.hosts(name)})

    return marked


# --- by the Swarm -----------------------------------------------------------------------


def roll(parallelism: int) -> Act:
    """Every task is replaced."""

    def act(scene: Scene) -> None:
        before = scene.hosts()
        scene.note(f"update, {parallelism} at once")
        scene.world.update(SERVICE, "--force", f"--update-parallelism={parallelism}")
        scene.world.wait_replaced(SERVICE, before.keys(), scene.replicas)
        scene.settle(scene.replicas)

    return leaving(act)


def scale(*counts: int) -> Act:
    """One after the other, and back to what there was."""

    def act(scene: Scene) -> None:
        for count in (*counts, scene.replicas):
            scene.note(f"scale to {count}")
            scene.world.scale(SERVICE, count)
            scene.settle(count)

    return leaving(act)


def drain(where: str = "") -> Act:
    """The tasks of a node go to others; then it may have some again."""

    def act(scene: Scene) -> None:
        node = where or scene.world.tasks(SERVICE)[0].node
        scene.note(f"drain {node}")
        availability(scene, node, "drain")
        scene.wait(lambda: node not in scene.hosts().values(), f"{node} is not drained")
        scene.settle(scene.replicas)
        scene.note(f"{node} is active")
        availability(scene, node, "active")

    return leaving(act)


def availability(scene: Scene, node: str, value: str) -> None:
    scene.lab.docker(scene.world.manager, "node", "update", f"--availability={value}", node)


def publish(scene: Scene) -> Marks:
    """Another port comes and goes; every node has it meanwhile."""
    scene.note("publish another port")
    scene.world.update(SERVICE, f"--publish-add={OTHER_PORT}:81")
    scene.wait(lambda: _all_say(scene, has_port=True), "not every node has the port")
    scene.note("unpublish it")
    scene.world.update(SERVICE, "--publish-rm=81")
    scene.wait(lambda: _all_say(scene, has_port=False), "a node still has the port")
    return Marks()


def _all_say(scene: Scene, *, has_port: bool) -> bool:
    """Whether every node balances the other port, or none does; an agent may be away just now."""
    wanted = f"tcp:{OTHER_PORT}"
    try:
        rows = [scene.agents.service(node.name, SERVICE, INGRESS) for node in scene.living()]
    except LabError:
        return False
    ports = [{f.name for f in row.frontends} if row else set() for row in rows]
    return all((wanted in names) == has_port for names in ports)


# --- to a task --------------------------------------------------------------------------


def kill_task(scene: Scene) -> Marks:
    """Its process ends at once, and nobody is told beforehand."""
    victim = scene.world.tasks(SERVICE)[0]
    assert victim.place.pid is not None
    killed_s = scene.note(f"kill -9 {victim.host} on {victim.node}")
    ended_s = _kill(victim.place.pid)
    scene.world.wait_replaced(SERVICE, {victim.host}, scene.replicas)
    scene.settle(scene.replicas)
    return Marks(killed={victim.host: Death(killed_s, ended_s)})


def _kill(pid: int) -> float:
    """Returns when it has ended."""
    process = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        ended, _, _ = select.select([process], [], [], END_TIMEOUT_S)
        assert ended, f"process {pid} lives on"
        return time.monotonic()
    finally:
        os.close(process)


def make_unhealthy(scene: Scene) -> Marks:
    """It still answers, but it says that it is not well."""
    sick = scene.world.tasks(CHECKED)[0]
    scene.note(f"{sick.host} on {sick.node} is unhealthy")
    scene.lab.docker(sick.node, "exec", sick.container, "touch", UNHEALTHY)
    scene.world.wait_replaced(CHECKED, {sick.host}, scene.replicas)
    scene.settle(scene.replicas, service=CHECKED)
    return Marks(left={sick.host})


def flap(times: int) -> Act:
    """Tasks out of the tables and in again, without their end: each is a change on every node.

    They are told to end by a signal that they do not heed, and revived by a pause of a moment.
    """

    def act(scene: Scene) -> Marks:
        tasks = scene.world.tasks(SERVICE)
        scene.note(f"{times} tasks out and in")
        for number in range(times):
            task = tasks[number % len(tasks)]
            scene.lab.docker(task.node, "kill", "--signal=QUIT", task.container)
            _pause(scene, task)
            scene.lab.docker(task.node, "unpause", task.container)
        scene.settle(scene.replicas)
        return Marks()

    return act


def _pause(scene: Scene, task: Task) -> None:
    """On a busy machine runc may give up: "unable to freeze"."""
    for _ in range(PAUSE_TRIES):
        with suppress(LabError):
            scene.lab.docker(task.node, "pause", task.container)
            return
    raise LabError(f"{task.host} cannot be paused")


# --- to an agent ------------------------------------------------------------------------


def restart_agent(node: str) -> Act:
    def act(scene: Scene) -> Marks:
        scene.note(f"restart the agent of {node}")
        scene.lab.restart_agent(node)
        scene.settle(scene.replicas)
        return Marks()

    return act


def kill_agent(node: str) -> Act:
    def act(scene: Scene) -> Marks:
        scene.note(f"kill -9 the agent of {node}")
        scene.agents.kill_and_start(node)
        scene.settle(scene.replicas)
        return Marks()

    return act


def upgrade(scene: Scene) -> Marks:
    """Each node gets programs whose maps have another size: what they hold is moved."""
    sizes = {_upgrade(scene, node.name) for node in scene.lab.nodes}
    scene.agents.upgraded(max_flows=sizes.pop())
    assert not sizes
    return Marks()


def upgrade_agent(node: str) -> Act:
    """One of them does. Its next agent moves all back."""

    def act(scene: Scene) -> Marks:
        _upgrade(scene, node)
        return Marks()

    return act


def _upgrade(scene: Scene, node: str) -> str:
    """To how many flows."""
    maps = {one.name: one.max_entries for one in scene.agents.status(node).maps}
    size = SMALL if maps["flows"] != int(SMALL) else LARGE
    scene.note(f"upgrade {node} to {size} flows")
    before = _moves(scene, node)
    scene.agents.upgrade(node, max_flows=size)
    assert _moves(scene, node) == before + 1, f"{node} has moved no maps"
    scene.settle(scene.replicas)
    return size


def _moves(scene: Scene, node: str) -> int:
    return scene.lab.node(node).agent_log.read_text().count('"maps.moved"')


# --- to a node --------------------------------------------------------------------------


def kill_leader(scene: Scene) -> Marks:
    """dockerd and agent of the leader die; its tasks live on, until dockerd is back."""
    leader = leader_of(scene.lab)
    scene.orphans |= on_node(scene, leader)
    scene.harmed = True
    scene.note(f"kill -9 dockerd and agent of the leader, {leader}")
    scene.lab.kill_agent(leader)
    scene.lab.stop_docker(leader, signal.SIGKILL)
    scene.wait(lambda: _is_led(scene), "no new leader")
    scene.note("a new leader")
    scene.wait(lambda: leader not in scene.hosts().values(), "its tasks are not replaced")
    scene.settle(scene.replicas, alone=False)
    scene.note("its tasks are replaced, and drain")
    time.sleep(ORPHANED_S)  # for how long they are asked, not a wait for anything
    return Marks()


def revive(scene: Scene) -> Marks:
    """Whatever runs on no node any more is started again.

    A dockerd that starts ends the tasks that have lived on without it.
    """
    began_s = time.monotonic()
    for node in scene.lab.nodes:
        if node.pid is None:
            scene.note(f"start dockerd of {node.name}")
            scene.lab.start_docker(node.name)
    scene.agents.start_missing()
    scene.wait(lambda: _all_ready(scene), "not every node is ready")
    for service in PORTS:
        scene.settle(scene.replicas, service=service)
    if scene.harmed:
        scene.wait(lambda: _overlay_is_whole(scene), "tasks do not reach each other")
        scene.harmed = False
    death = Death(began_s, time.monotonic())
    orphans, scene.orphans = scene.orphans, set()
    return Marks(killed=dict.fromkeys(orphans, death))


def _overlay_is_whole(scene: Scene) -> bool:
    """Docker's own gossip takes its time until it trusts a node again."""
    tasks = [task for name in PORTS for task in scene.world.tasks(name)]
    first = {task.node: task.place for task in tasks}
    return all(scene.reaches_all(place) for place in first.values())


def leader_of(lab: Lab) -> str:
    return next(node.name for node in _members(lab) if node.leader)


def _is_led(scene: Scene) -> bool:
    """While there is no leader, nobody answers this at all."""
    try:
        return any(node.leader for node in _members(scene.lab))
    except LabError:
        return False


def _all_ready(scene: Scene) -> bool:
    return _is_led(scene) and all(node.ready for node in _members(scene.lab))


class Member(NamedTuple):
    """What the managers say of a node."""

    name: str
    leader: bool
    ready: bool


def _members(lab: Lab) -> list[Member]:
    return [
        Member(
            node["Description"]["Hostname"],
            bool((node.get("ManagerStatus") or {}).get("Leader")),
            node["Status"]["State"] == "ready",
        )
        for node in get_json(lab.manager().docker_socket, "/nodes")
    ]


def cut_off(node: str, *, for_s: float = 0.0) -> Act:
    """Its cable is out for so long, or until its tasks have been replaced; then in again."""

    def act(scene: Scene) -> Marks:
        left = _have_tasks(scene, node)
        hosts = on_node(scene, node)
        scene.harmed = True
        cut_s = scene.note(f"cut {node} off")
        _plug(scene, node, "down")
        try:
            if for_s:
                time.sleep(for_s)  # how long it lasts, not a wait for anything
            else:
                scene.wait(lambda: node not in scene.hosts().values(), "tasks are not replaced")
                others = [n.name for n in scene.lab.nodes if n.name != node]
                scene.settle(scene.replicas, nodes=others)
        finally:
            scene.note(f"{node} is back")
            _plug(scene, node, "up")
        scene.wait(lambda: _all_ready(scene), f"{node} is not ready")
        scene.settle(scene.replicas)
        back_s = scene.note("and serves again")
        isolation = Isolation(scene.lab.node(node).address, cut_s, back_s)
        cut = dict.fromkeys(hosts, Cut(cut_s, back_s))
        return Marks(left=left, cut=cut, isolated=[isolation])

    return act


def _have_tasks(scene: Scene, node: str) -> set[str]:
    """Have the Swarm place some there, as it does not by itself once a node is back.

    Returns those that had to leave for that.
    """
    before = set(scene.hosts())
    while node not in scene.hosts().values():
        scene.note(f"no task is on {node}: replace all")
        now = scene.hosts().keys()
        scene.world.update(SERVICE, "--force", "--update-parallelism=2")
        scene.world.wait_replaced(SERVICE, now, scene.replicas)
        scene.settle(scene.replicas)
    return before - set(scene.hosts())


def _plug(scene: Scene, node: str, state: str) -> None:
    scene.lab.run(Place.LAN, ["ip", "link", "set", node, state])
