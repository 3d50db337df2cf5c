# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bpf.fuzz --count 1000000``: as root; ends with figures, or with a packet."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from ebpfmesh.datapath.objects import load_object

from ..sandbox import sandbox
from .benches import benches
from .campaign import GROUP, Campaign, Failure


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bpf.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="packets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--group", type=int, help="only this group, to see a failure again")
    options = parser.parse_args()
    count = GROUP if options.group is not None else options.count
    with tempfile.TemporaryDirectory() as cache:
        programs = load_object(Path(cache))
    with (
        tempfile.TemporaryDirectory() as root,
        sandbox(Path(root)),
        benches(Path(root), programs) as nodes,
    ):
        campaign = Campaign(nodes, options.seed)
        try:
            print(campaign.run(count, options.group or 0).text())
        except Failure as failure:
            print(failure, file=sys.stderr)
            return 1
    return 0


sys.exit(main())
