# SPDX-License-Identifier: Apache-2.0
"""What an agent's start tells the programs, by the maps that it finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ebpfmesh.datapath.counters import Counters
from ebpfmesh.datapath.datapath import Datapath, begin_serving
from ebpfmesh.datapath.discover import Device
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.maps import Maps
from ebpfmesh.datapath.object import Object
from ebpfmesh.takeover import Mode, given_back, seconds_left

Open = Callable[[Path], Datapath]
GRACE_S = 30.0


@pytest.fixture
def start(programs: Object) -> Iterator[Open]:
    """Opens a node's datapath, as an agent does; its maps stay pinned."""
    modules = []

    def opened(pins: Path) -> Datapath:
        module = Module(programs, {"MAGLEV_SIZE": 31, "MAX_FLOWS": 1024}, pins)
        modules.append(module)
        device = Device("nic0", 1, 1500)
        return Datapath(module, Maps(module), Counters(module), device, 1, pins, "")

    yield opened
    for module in modules:
        module.close()


def left_s(datapath: Datapath) -> float:
    return seconds_left(datapath.maps.run_settings(), time.monotonic_ns())


def test_first_start_begins_a_grace_period(start: Open, bpffs: Path) -> None:
    datapath = start(bpffs / "first" / "2")
    begin_serving(datapath, GRACE_S)
    assert 0 < left_s(datapath) <= GRACE_S
    before = datapath.maps.run_settings()
    again = start(bpffs / "first" / "2")
    assert begin_serving(again, GRACE_S) == before == again.maps.run_settings()


def test_no_grace_period_where_another_layout_has_served(start: Open, bpffs: Path) -> None:
    start(bpffs / "upgraded" / "1")
    datapath = start(bpffs / "upgraded" / "2")
    begin_serving(datapath, GRACE_S)
    assert datapath.maps.run_settings().mode is Mode.SERVING
    assert left_s(datapath) == 0


def test_start_ends_giving_back(start: Open, bpffs: Path) -> None:
    datapath = start(bpffs / "back" / "2")
    datapath.maps.put_run_settings(given_back(begin_serving(datapath, 0), time.monotonic_ns()))
    assert begin_serving(datapath, GRACE_S).mode is Mode.SERVING
    assert left_s(datapath) > 0
