# SPDX-License-Identifier: Apache-2.0
"""`make test-chaos`: changes at random, for so long, as a seed tells."""

from __future__ import annotations

import argparse
import sys

from ebpfmesh.lab.lab import Lab

from ..judge import Bounds
from ..scene import MANAGERS, NODES, Scene
from .run import Chaos


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=20)
    options = parser.parse_args()
    lab = Lab.up(nodes=NODES, managers=MANAGERS)
    try:
        scene = Scene(lab)
        scene.build()
        verdict = Chaos(scene, options.seed, bounds=Bounds()).run(options.minutes * 60)
    finally:
        lab.down()
    print(verdict.describe())
    return int(bool(verdict.wrong))


if __name__ == "__main__":
    sys.exit(main())
