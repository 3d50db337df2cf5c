# SPDX-License-Identifier: Apache-2.0
"""Takes a lab away, whole or half made, and nothing that is not the lab's.

Whose a process is, its control group and its namespaces tell. Mounts are not undone one by
one: they live in the nodes' mount namespaces and end with the last process in there.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from ebpfmesh.lab import cgroup, namespaces, plan, topology
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.paths import LabPaths, lab_paths
from ebpfmesh.lab.processes import boot_id, is_alive, reap, wait_until
from ebpfmesh.lab.state import LabState, Phase, Record, drafts

_KILL_TIMEOUT_S = 15

ExcInfo = tuple[type[BaseException], BaseException, TracebackType]


def down() -> bool:
    """Take away the lab, or what an interrupted `up` left of one; False when there is none."""
    paths = lab_paths()
    record = Record.load(paths.record)
    if record is None:
        return False
    maker = record.state.maker
    if record.state.phase is Phase.STARTING and maker.pid != os.getpid() and is_alive(maker):
        raise LabError(f"process {maker.pid} is just bringing the lab up: wait, or interrupt it")
    take_down(paths, record.state)
    return True


def take_down(paths: LabPaths, state: LabState) -> None:
    """Idempotent: what is gone already is no error."""
    with _undisturbed():
        if state.boot_id == boot_id():
            _end_processes(state)
            topology.delete_namespaces(_own_namespaces(state))
            cgroup.remove()
            topology.set_forwarding(state.ip_forward_before)
        _remove_files(paths, state)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave half a lab behind."""
    masked = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, masked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _own_namespaces(state: LabState) -> list[str]:
    """By name, unless the name meanwhile belongs to another namespace."""
    names = plan.namespaces(tuple(node.plan for node in state.nodes.values()))
    found = {name: namespaces.inode(name) for name in names}
    return [
        name
        for name, inode in found.items()
        if inode is not None and inode == state.inodes.get(name, inode)
    ]


def _end_processes(state: LabState) -> None:
    inodes = _inodes(state)
    if not wait_until(lambda: not _kill(inodes), _KILL_TIMEOUT_S):
        raise LabError(f"these processes of the lab do not end: {sorted(_living(inodes))}")


def _inodes(state: LabState) -> set[int]:
    networks = {namespaces.inode(name) for name in _own_namespaces(state)} - {None}
    holders = [node.holder for node in state.nodes.values()]
    mounts = {
        namespaces.inodes_of(holder.pid).get("mnt")
        for holder in holders
        if holder is not None and is_alive(holder)
    }
    return {inode for inode in networks | mounts if inode is not None}


def _living(inodes: set[int]) -> set[int]:
    return (cgroup.members() | namespaces.inhabitants(inodes)) - {os.getpid()}


def _kill(inodes: set[int]) -> set[int]:
    """One round; those found, which may have started others meanwhile."""
    found = _living(inodes)
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it was quicker
    reap(found)
    return found


def _remove_files(paths: LabPaths, state: LabState) -> None:
    """The record goes last: until then, another `down` can go on from here, or go along."""
    for name in state.nodes:
        shutil.rmtree(paths.node(name).root, onerror=_unless_gone)
    shutil.rmtree(paths.objects, onerror=_unless_gone)
    for file in (paths.images, *drafts(paths.record), paths.record):
        file.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        paths.root.rmdir()


def _unless_gone(_function: object, _path: str, failure: ExcInfo) -> None:
    if not isinstance(failure[1], FileNotFoundError):
        raise failure[1]
