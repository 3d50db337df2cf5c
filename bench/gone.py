# SPDX-License-Identifier: Apache-2.0
"""From a task that the Swarm lists no more to a table without it, in the kernel's map."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from bench import swarm
from bench.machine import no_collections
from bench.node import BenchNode, bench_node
from bench.result import Figure
from bench.swarm import Size
from ebpfmesh.agent.reconcile import Reconciler
from ebpfmesh.datapath.lookup import Lookup
from ebpfmesh.datapath.maps import Maps
from ebpfmesh.desired_cache import DesiredCache
from ebpfmesh.model import BackendKey, MeshState, PoolKey
from ebpfmesh.swarm.mesh import Snapshot, next_state

_NETWORK = 1
_STATE, _DESIRED, _PLAN, _SWAP = "state", "desired state", "plan and table", "table swapped"


class Watch:
    """CPU time and time of each step, in milliseconds; all that comes after `stop` is left out."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.elapsed_ms = 0.0
        self._running = True
        self._began = time.perf_counter()
        self._last = time.process_time()

    def lap(self, step: str) -> None:
        """Ends a step: what was done since the one before."""
        if self._running:
            now = time.process_time()
            self.cpu[step] = (now - self._last) * 1e3
            self._last = now

    def stop(self, step: str) -> None:
        """Ends the last step."""
        self.lap(step)
        self.elapsed_ms = (time.perf_counter() - self._began) * 1e3
        self._running = False


class WatchedMaps(Maps):
    """Maps that say when tables are handed to them, and when they are in place."""

    watch: Watch | None = None

    def put_tables(self, tables: Mapping[int, bytes]) -> None:
        """Brings in new tables, by pool id."""
        if self.watch:
            self.watch.lap(_PLAN)
        super().put_tables(tables)
        if self.watch:
            self.watch.stop(_SWAP)


class Path:
    """A hub's and an agent's part of the way, for one service on one network."""

    def __init__(self, node: BenchNode, count: int) -> None:
        self.size = Size(services=1, tasks=count, nodes=10, networks=1, publishing=0)
        self.snapshot = swarm.snapshot(swarm.documents(self.size))
        self._node, self._maps = node, WatchedMaps(node.module)
        self._reconciler: Reconciler = node.reconciler
        self._reconciler.maps = self._maps
        self._desired, self._state = DesiredCache(), MeshState()
        self.follow(self.snapshot, Watch())

    def follow(self, snapshot: Snapshot, watch: Watch) -> None:
        """Brings the maps to what a snapshot says, step by step."""
        self._maps.watch = watch
        self._state = next_state(self._state, snapshot, {})
        watch.lap(_STATE)
        local = swarm.local_view(self._state, self.size)
        desired = self._desired.of(self._state, local)
        watch.lap(_DESIRED)
        self._reconciler.sync(desired, whole=True, touched=self._desired.touched)

    def gone(self, number: int) -> Watch:
        """How long it takes until the table has a task no more; it must be so."""
        task = swarm.task_id(number)
        ids = self._reconciler.ids
        backend = ids.backends.ids[BackendKey(task, swarm.vni(_NETWORK))]
        pool = ids.pools.ids[PoolKey(swarm.service_id(0), swarm.vni(_NETWORK))]
        assert backend in self._table(pool)
        self.snapshot = without(self.snapshot, task)
        with no_collections():
            watch = Watch()
            self.follow(self.snapshot, watch)
        assert backend not in self._table(pool)
        return watch

    def _table(self, pool: int) -> set[int]:
        """The backends that the kernel's table has."""
        table = Lookup(self._node.module).table(pool)
        assert table is not None
        return set(table.tolist())


def without(snapshot: Snapshot, task: str) -> Snapshot:
    """What the managers list when a task is gone."""
    left = [doc for doc in snapshot.tasks if doc.id != task]
    return msgspec.structs.replace(snapshot, tasks=left)


def figures(count: int, slots: int, rounds: Sequence[Watch]) -> Iterator[Figure]:
    """CPU time of each step and of all, and the time that passed."""
    params = {"backends": count, "slots": slots}
    for step in rounds[0].cpu:
        times = tuple(one.cpu[step] for one in rounds)
        yield Figure("task gone, step by step", "ms of CPU", times, {**params, "step": step})
    cpu = tuple(sum(one.cpu.values()) for one in rounds)
    yield Figure("task gone to table swapped, CPU time", "ms of CPU", cpu, {**params})
    passed = tuple(one.elapsed_ms for one in rounds)
    yield Figure("task gone to table swapped", "ms", passed, {**params})


def path(rounds: int, counts: Sequence[int]) -> Iterator[Figure]:
    """For services of so many tasks, with the maps of a node that has none of them."""
    for count in counts:
        with bench_node(swarm.vtep(0)) as node:
            one = Path(node, count)
            watches = [one.gone(number) for number in range(rounds)]
            yield from figures(count, node.reconciler.maps.maglev_size, watches)
