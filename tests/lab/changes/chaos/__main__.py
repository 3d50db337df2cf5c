# SPDX-License-Identifier: Apache-2.0
"""`make test-chaos`: changes at random, for so long, as a seed tells."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from ebpfmesh.lab.lab import Lab

from ..judge import Bounds
from ..scene import MANAGERS, NODES, Scene
from .run import Chaos


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--logs", type=Path, help="where the nodes' logs go when it is over")
    options = parser.parse_args()
    lab = Lab.up(nodes=NODES, managers=MANAGERS)
    try:
        scene = Scene(lab)
        scene.build()
        verdict = Chaos(scene, options.seed, bounds=Bounds()).run(options.minutes * 60)
    finally:
        if options.logs:
            keep_logs(lab, options.logs)
        lab.down()
    print(verdict.describe())
    return int(bool(verdict.wrong))


def keep_logs(lab: Lab, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for node in lab.nodes:
        for log in (node.agent_log, node.docker_log):
            shutil.copy(log, directory / f"{node.name}-{log.name}")


if __name__ == "__main__":
    sys.exit(main())
