# SPDX-License-Identifier: Apache-2.0
"""What settings become in the programs."""

from __future__ import annotations

import re

from ebpfmesh.config import Config
from ebpfmesh.datapath.datapath import defines
from ebpfmesh.datapath.discover import Device
from ebpfmesh.datapath.source import source_dir

ETH0 = Device("eth0", 2, 1500)


def test_timeouts_are_nanoseconds() -> None:
    made = defines(
        Config(syn_timeout_s=1.5, tcp_timeout_s=3600, udp_timeout_s=30), ETH0, "192.0.2.11", 4789
    )
    assert made["SYN_TIMEOUT_NS"] == 1_500_000_000
    assert made["TCP_TIMEOUT_NS"] == 3600 * 10**9
    assert made["UDP_TIMEOUT_NS"] == 30 * 10**9


def test_every_constant_may_be_given() -> None:
    """A name that config.h does not guard would be defined twice, and one that it lacks is lost."""
    text = (source_dir() / "config.h").read_text()
    guarded = set(re.findall(r"^#ifndef (\w+)$", text, re.MULTILINE))
    assert set(defines(Config(), ETH0, "192.0.2.11", 4789)) <= guarded
