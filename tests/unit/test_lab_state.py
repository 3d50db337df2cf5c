from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.plan import plan_nodes
from ebpfmesh.lab.state import (
    VERSION,
    LabState,
    NodeState,
    Phase,
    ProcessId,
    Record,
    decode,
    drafts,
    encode,
)


@pytest.fixture
def state() -> LabState:
    return LabState(
        boot_id="boot",
        maker=ProcessId(pid=1, started=2),
        ip_forward_before="0",
        nodes={node.name: NodeState(node) for node in plan_nodes(2, 1)},
    )


def test_it_survives_the_file(state: LabState) -> None:
    assert decode(encode(state)) == state


@pytest.mark.parametrize("data", [b"", b"{", b'{"version": 1}', b"[]"])
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(LabError, match="not readable"):
        decode(data)


def test_another_version_is_refused(state: LabState) -> None:
    newer = encode(msgspec.structs.replace(state, version=VERSION + 1))
    with pytest.raises(LabError, match="version"):
        decode(newer)


def test_no_file_is_no_lab(tmp_path: Path) -> None:
    assert Record.load(tmp_path / "lab.json") is None


def test_only_the_first_claims(tmp_path: Path, state: LabState) -> None:
    path = tmp_path / "lab" / "lab.json"
    assert Record.claim(path, state) is not None
    assert Record.claim(path, msgspec.structs.replace(state, phase=Phase.UP)) is None
    loaded = Record.load(path)
    assert loaded is not None
    assert loaded.state == state
    assert drafts(path) == []


def test_a_change_reaches_the_file(tmp_path: Path, state: LabState) -> None:
    path = tmp_path / "lab.json"
    record = Record.claim(path, state)
    assert record is not None
    record.update(phase=Phase.UP)
    record.update_node("node2", agent=ProcessId(5, 6))
    loaded = Record.load(path)
    assert loaded is not None
    assert loaded.state == record.state
    assert loaded.state.phase is Phase.UP
    assert loaded.state.nodes["node1"].agent is None
    assert loaded.state.nodes["node2"].agent == ProcessId(5, 6)


def test_threads_lose_no_change_of_each_other(tmp_path: Path, state: LabState) -> None:
    path = tmp_path / "lab.json"
    record = Record.claim(path, state)
    assert record is not None

    def change(turn: int) -> None:
        node, program = f"node{turn % 2 + 1}", ("agent", "dockerd")[turn // 2 % 2]
        for pid in range(50):
            record.update_node(node, **{program: ProcessId(pid, turn)})
            decode(path.read_bytes())

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(change, range(4)))
    last = {node: (state.agent, state.dockerd) for node, state in record.state.nodes.items()}
    assert last == {
        "node1": (ProcessId(49, 0), ProcessId(49, 2)),
        "node2": (ProcessId(49, 1), ProcessId(49, 3)),
    }


def test_an_interrupted_draft_is_found(tmp_path: Path, state: LabState) -> None:
    path = tmp_path / "lab.json"
    Record.claim(path, state)
    (tmp_path / "lab.json.77").touch()
    assert drafts(path) == [tmp_path / "lab.json.77"]
