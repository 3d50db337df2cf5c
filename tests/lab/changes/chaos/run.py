# SPDX-License-Identifier: Apache-2.0
"""Does what a plan says to a service under load, and judges what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile

import msgspec

from ebpfmesh.lab.errors import LabError

from ...loops import Report, describe
from .. import acts
from ..acts import Act
from ..judge import BUSY, Absence, Bounds, Marks, inexcusable
from ..scene import PORTS, Scene
from .invariants import late, miscounted
from .plan import Cluster, Disturbance, Kind, Step, steps
from .watch import Away, Watch, connections

INSIDE = "node4"
CLUSTER = Cluster(("node1", "node2", "node3", "node4"), cuttable=("node2", "node3"))
"""The worker has the clients of the VIP: it never dies, and its cable stays in."""

HELD = 60


class Verdict(msgspec.Struct, frozen=True):
    """What was wrong, if anything, and all that was done."""

    seed: int
    report: Report
    wrong: list[str]
    timeline: list[tuple[float, str]]
    steps: int
    nodes: dict[str, str]

    def describe(self) -> str:
        total, since_s = self.report.total, self.report.began_s
        return "\n".join(
            [
                f"seed {self.seed}: {self.steps} steps, {total.ok} requests answered,"
                f" {total.failed} not, slowest {total.slowest_s:.2f} s",
                *(f"{at_s - since_s:7.2f} s  {what}" for at_s, what in self.timeline),
                *(self.wrong or ["nothing was wrong"]),
                *self._whereabouts(),
            ]
        )

    def _whereabouts(self) -> Iterator[str]:
        """Of the tasks that are named in what was wrong."""
        told = "\n".join(self.wrong)
        return (f"{host} was on {node}" for host, node in self.nodes.items() if host in told)


class Chaos:
    """One run."""

    def __init__(
        self, scene: Scene, seed: int, cluster: Cluster = CLUSTER, bounds: Bounds = BUSY
    ) -> None:
        self._scene = scene
        self._seed = seed
        self._cluster = cluster
        self._bounds = bounds
        self._marks = Marks()
        self._steps = 0

    def run(self, for_s: float) -> Verdict:
        """Steps that begin within this time are done to their end."""
        scene = self._scene
        scene.timeline.clear()
        before = connections(scene.agents, PORTS)
        watch = Watch(scene.lab, scene.agents, PORTS)
        loaded = scene.load(
            [INSIDE], services=list(PORTS), held=HELD, timeout_s=self._bounds.answer_s
        )
        with loaded as load, watch.running():
            until_s = time.monotonic() + for_s
            planned = steps(self._seed, self._cluster)
            stuck = self._do_all(takewhile(lambda _: time.monotonic() < until_s, planned))
            report = load.stop()
            # While the clients' node still has their network: with that, what it counted goes.
            counted = None if stuck else connections(scene.agents, PORTS) - before
        wrong = [
            *stuck,
            *self._broken(report, watch),
            *late(report, watch.left_s, self._bounds.left_s, [each[1:] for each in watch.away]),
            *watch.falls,
        ]
        if counted is not None:  # or an agent may be gone, and what it counted
            wrong += miscounted(report, counted)
        return Verdict(self._seed, report, wrong, list(scene.timeline), self._steps, watch.nodes)

    def _broken(self, report: Report, watch: Watch) -> list[str]:
        """Swarm itself ends tasks, too: those that were too many once a node had come back."""
        self._marks.left.update(watch.left_s)
        self._marks.absent.extend(self._absence(away, watch.left_s) for away in watch.away)
        found = inexcusable(report, self._marks, self._bounds)
        return [describe(found, report.began_s)] if found else []

    def _absence(self, away: Away, left_s: Mapping[str, float]) -> Absence:
        asked = self._scene.vips() if away.node == INSIDE else []
        bound_s = self._bounds.left_s
        left = [
            host
            for host, at_s in left_s.items()
            if away.from_s - bound_s < at_s < away.until_s + bound_s
        ]
        return Absence(frozenset(asked), frozenset(left), away.from_s, away.until_s)

    # --- steps --------------------------------------------------------------------------

    def _do_all(self, planned: Iterable[Step]) -> list[str]:
        """What one of them waited for in vain: none follows it then."""
        try:
            for step in planned:
                self._do(step)
        except (AssertionError, LabError) as error:
            self._scene.note("gave up")
            return [str(error)]
        return []

    def _do(self, step: Step) -> None:
        self._steps += 1
        with ThreadPoolExecutor(1) as executor:
            disturbed = executor.submit(self._disturb, step.disturbance)
            marks = act_of(step)(self._scene)
            disturbed.result()
        self._marks.add(marks)
        self._marks.add(acts.revive(self._scene))
        time.sleep(step.rest_s)  # part of the plan

    def _disturb(self, disturbance: Disturbance | None) -> None:
        if disturbance is not None:
            time.sleep(disturbance.after_s)  # part of the plan
            act_of(Step(disturbance.kind, disturbance.node))(self._scene)


def act_of(step: Step) -> Act:
    """What carries a step out."""
    made: dict[Kind, Callable[[], Act]] = {
        Kind.ROLL: lambda: acts.roll(*step.amounts),
        Kind.SCALE: lambda: acts.scale(*step.amounts),
        Kind.DRAIN: lambda: acts.drain(step.node),
        Kind.PUBLISH: lambda: acts.publish,
        Kind.KILL_TASK: lambda: acts.kill_task,
        Kind.UNHEALTHY: lambda: acts.make_unhealthy,
        Kind.FLAP: lambda: acts.flap(*step.amounts),
        Kind.RESTART_AGENT: lambda: acts.restart_agent(step.node),
        Kind.KILL_AGENT: lambda: acts.kill_agent(step.node),
        Kind.UPGRADE_AGENT: lambda: acts.upgrade_agent(step.node),
        Kind.KILL_LEADER: lambda: acts.kill_leader,
        Kind.CUT_OFF: lambda: acts.cut_off(step.node, for_s=float(*step.amounts)),
    }
    return made[step.kind]()
