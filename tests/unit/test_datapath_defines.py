# SPDX-License-Identifier: Apache-2.0
"""What settings become in the programs."""

from __future__ import annotations

import time

import pytest

from ebpfmesh.config import Config
from ebpfmesh.datapath.datapath import defines
from ebpfmesh.datapath.discover import Device
from ebpfmesh.datapath.source import node_constants, sizes, source_dir

# What the loader writes into each program by itself.
OF_THE_LOADER = {"ATTACHED_VNI", "THIS_PROGRAM"}
ETH0 = Device("eth0", 2, 1500)


def test_timeouts_are_nanoseconds() -> None:
    made = defines(
        Config(syn_timeout_s=1.5, tcp_timeout_s=3600, udp_timeout_s=30), ETH0, "192.0.2.11", 4789
    )
    assert made["SYN_TIMEOUT_NS"] == 1_500_000_000
    assert made["TCP_TIMEOUT_NS"] == 3600 * 10**9
    assert made["UDP_TIMEOUT_NS"] == 30 * 10**9


@pytest.mark.parametrize("tick_ns", [10_000_000, 4_000_000, 3_333_333, 1_000_000])
def test_tick_is_that_of_the_kernels_coarse_clock(
    monkeypatch: pytest.MonkeyPatch, tick_ns: int
) -> None:
    """With 100, 250, 300 and 1000 of them in a second."""
    coarse = 6
    monkeypatch.setattr(time, "clock_getres", {coarse: tick_ns / 10**9}.__getitem__)
    assert defines(Config(), ETH0, "192.0.2.11", 4789)["TICK_NS"] == tick_ns


def test_every_constant_is_given() -> None:
    """But for what is each program's own."""
    known = {*node_constants(source_dir()), *sizes(source_dir())}
    assert set(defines(Config(), ETH0, "192.0.2.11", 4789)) == known - OF_THE_LOADER


def test_defaults_are_those_of_the_settings() -> None:
    made = defines(Config(), ETH0, "0.0.0.0", 4789)
    constants = {name: value for name, (_, value) in node_constants(source_dir()).items()}
    of_a_node = {"NIC_IFINDEX", "NODE_COOKIE", "TICK_NS"}
    for name, value in {**constants, **sizes(source_dir())}.items():
        assert name in of_a_node or made.get(name, value) == value, name
