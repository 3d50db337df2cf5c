# SPDX-License-Identifier: Apache-2.0
"""Hostile packets through every program: a share of what `make fuzz` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpfmesh.datapath.object import Object

from .fuzz.benches import benches
from .fuzz.campaign import Campaign
from .fuzz.judge import RULES

PACKETS = 60_000

# What so many packets are known to bring about: else they have not gone where they should.
REACHED = {
    *("drop_backend_gone", "drop_no_backend", "drop_bad_outer_source", "drop_bad_inner"),
    *("drop_forged_tunnel", "drop_spoofed_source", "drop_not_local", "drop_not_published"),
    *("drop_too_big", "handback_not_ipv4", "handback_truncated", "handback_ip_options"),
    *("handback_other_protocol", "handback_no_frontend", "handback_foreign_address"),
    "retry_second_chance",
}

# Only where the kernel refuses to change a packet, or every source port is taken.
UNREACHED = {("overlay_egress", "drop"), ("gateway_egress", "drop")}


@pytest.mark.timeout(600)
def test_hostile_packets(programs: Object, bpffs: Path) -> None:
    """Each run is judged by tests/bpf/fuzz/judge.py; a failure says how to see it again."""
    with benches(bpffs, programs) as nodes:
        report = Campaign(nodes, seed=1).run(PACKETS)
    assert report.reasons.keys() >= REACHED
    for program, verdicts in RULES.items():
        seen = {name for where, name in report.verdicts if where == program}
        assert seen >= {name for name in verdicts if (program, name) not in UNREACHED}, program
