# SPDX-License-Identifier: Apache-2.0
"""Brings a lab up, step by step. What takes time on every node runs on all of them at once."""

from __future__ import annotations

from collections.abc import Callable

from ebpfmesh.lab import agents, cgroup, daemon, images, plan, preflight, swarm, topology
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.host import start_holders
from ebpfmesh.lab.paths import LabPaths
from ebpfmesh.lab.plan import NodePlan, Place
from ebpfmesh.lab.processes import boot_id, identify_self, is_alive, run_all
from ebpfmesh.lab.state import LabState, NodeState, Phase, ProcessId, Record
from ebpfmesh.lab.teardown import take_down

Progress = Callable[[str], None]


def bring_up(
    paths: LabPaths,
    nodes: tuple[NodePlan, ...],
    with_agents: bool,
    progress: Progress,
    engine: str = "",
) -> Record:
    """Build a lab; whatever stops it halfway also takes away what it made."""
    _refuse_second(paths)
    preflight.check(plan.namespaces(nodes), paths, engine)
    record = Record.claim(paths.record, _first_state(nodes, engine))
    if record is None:
        raise LabError(f"another process has just begun a lab in {paths.root}")
    try:
        _Builder(paths, nodes, record, progress).build(with_agents)
    except BaseException:
        progress("taking everything down again")
        take_down(paths, record.state)
        raise
    return record


def _refuse_second(paths: LabPaths) -> None:
    record = Record.load(paths.record)
    if record is None:
        return
    if record.state.boot_id != boot_id():
        what = "a lab of an earlier boot has left files"
    elif record.state.phase is Phase.UP:
        what = f"a lab is up already ({', '.join(record.state.nodes)})"
    elif is_alive(record.state.maker):
        what = f"process {record.state.maker.pid} is just bringing a lab up"
    else:
        what = "an `up` that did not finish has left half a lab"
    raise LabError(f"{what} in {paths.root}; `ebpfmesh lab down` takes it away")


def _first_state(nodes: tuple[NodePlan, ...], engine: str) -> LabState:
    return LabState(
        boot_id=boot_id(),
        maker=identify_self(),
        ip_forward_before=topology.forwarding(),
        nodes={node.name: NodeState(node) for node in nodes},
        engine=engine,
    )


class _Builder:
    """The steps of one `up`, in their order."""

    def __init__(
        self, paths: LabPaths, nodes: tuple[NodePlan, ...], record: Record, progress: Progress
    ) -> None:
        self._paths = paths
        self._nodes = nodes
        self._record = record
        self._progress = progress

    def build(self, with_agents: bool) -> None:
        self._lay_network()
        holders = self._start_hosts()
        self._start_daemons(holders)
        self._load_images()
        self._progress("forming the Swarm")
        swarm.form(self._nodes, self._paths)
        if with_agents:
            self._start_agents(holders)
        self._record.update(phase=Phase.UP)

    def _lay_network(self) -> None:
        self._progress("laying the network")
        topology.set_forwarding("1")
        names = plan.namespaces(self._nodes)
        self._record.update(inodes=topology.create_namespaces(names))
        topology.connect(self._nodes)

    def _start_hosts(self) -> dict[str, ProcessId]:
        for place in Place:
            cgroup.create(place)
        for node in self._nodes:
            for directory in self._paths.node(node.name).directories:
                directory.mkdir(mode=0o700)
        holders = start_holders([node.name for node in self._nodes], self._paths.root)
        for name, holder in holders.items():
            self._record.update_node(name, holder=holder)
        return holders

    def _start_daemons(self, holders: dict[str, ProcessId]) -> None:
        """The image is compiled meanwhile, as daemons have long to wait for."""
        self._progress("starting dockerd on every node")
        daemons = {}
        for node in self._nodes:
            name, paths = node.name, self._paths.node(node.name)
            engine = self._record.state.engine
            daemons[name] = daemon.start(node, paths, holders[name], engine)
            self._record.update_node(name, dockerd=daemons[name])
        images.build(self._paths.images)
        for name, dockerd in daemons.items():
            daemon.wait_ready(name, self._paths.node(name), dockerd)

    def _load_images(self) -> None:
        self._progress("loading the images")
        sockets = [self._paths.node(node.name).docker_socket for node in self._nodes]
        archive = str(self._paths.images)
        run_all([daemon.client(socket, "load", "--input", archive) for socket in sockets])

    def _start_agents(self, holders: dict[str, ProcessId]) -> None:
        self._progress("starting an agent on every node")
        started = {}
        for node in self._nodes:
            name, paths = node.name, self._paths.node(node.name)
            started[name] = agents.start(node, paths, holders[name], {})
            self._record.update_node(name, agent=started[name])
        for name, agent in started.items():
            agents.wait_ready(name, self._paths.node(name), agent)
