# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from ebpfmesh.lab import teardown
from ebpfmesh.lab.paths import LabPaths
from ebpfmesh.lab.plan import plan_nodes
from ebpfmesh.lab.state import LabState, NodeState, ProcessId


@pytest.fixture
def state() -> LabState:
    """Of an earlier boot: only files are left."""
    return LabState(
        boot_id="earlier",
        maker=ProcessId(pid=1, started=2),
        ip_forward_before="0",
        nodes={node.name: NodeState(node) for node in plan_nodes(2, 1)},
    )


@pytest.fixture
def paths(tmp_path: Path, state: LabState) -> LabPaths:
    paths = LabPaths(tmp_path / "lab")
    for name in state.nodes:
        (paths.node(name).root / "docker").mkdir(parents=True)
    paths.record.write_bytes(msgspec.json.encode(state))
    return paths


def test_the_files_go(paths: LabPaths, state: LabState) -> None:
    teardown.take_down(paths, state)
    assert not paths.root.exists()


def test_another_down_may_be_quicker(paths: LabPaths, state: LabState) -> None:
    teardown.take_down(paths, state)
    teardown.take_down(paths, state)
