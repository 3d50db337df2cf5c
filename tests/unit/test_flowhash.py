"""bpf/test_explain.py compares the same with what the programs do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ebpfmesh.flowhash import client_hash, flow_hash, mix64, slot


def test_mix64_is_the_finalizer_of_splitmix64() -> None:
    """The first numbers of its generator with seed 0, whose step is this constant."""
    step = 0x9E3779B97F4A7C15
    assert mix64(step) == 0xE220A8397B1DCDAF
    assert mix64(2 * step % 2**64) == 0x6E789E6AA1B965F4


@given(st.integers(0, 2**32 - 1), st.integers(2, 131071))
def test_a_slot_is_one_of_the_table(hashed: int, size: int) -> None:
    assert 0 <= slot(hashed, size) < size


def test_every_part_of_a_flow_counts() -> None:
    flows = {
        flow_hash("192.0.2.100", 5000, 80, 6),
        flow_hash("192.0.2.101", 5000, 80, 6),
        flow_hash("192.0.2.100", 5001, 80, 6),
        flow_hash("192.0.2.100", 5000, 81, 6),
        flow_hash("192.0.2.100", 5000, 80, 17),
    }
    assert len(flows) == 5
    assert client_hash("192.0.2.100") != client_hash("192.0.2.101")
