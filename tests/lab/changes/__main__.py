# SPDX-License-Identifier: Apache-2.0
"""`make test-changes`: every change, as often as its row says, and the table of what it cost."""

from __future__ import annotations

import argparse
import sys

from ebpfmesh.lab.lab import Lab
from ebpfmesh.lab.processes import last_lines

from .acts import revive
from .judge import Bounds
from .rows import Result, Row, full_rows, measure
from .scene import MANAGERS, NODES, Scene
from .table import markdown

LAST_LINES = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1, help="multiplies a row's")
    parser.add_argument("--only", default="", help="rows whose names begin with one of these, a,b")
    options = parser.parse_args()
    results: list[tuple[Row, list[Result]]] = []
    lab = Lab.up(nodes=NODES, managers=MANAGERS)
    try:
        scene = Scene(lab)
        scene.build()
        for row in full_rows():
            if row.name.startswith(tuple(options.only.split(","))):
                results.append((row, []))
                for _ in range(row.times * options.times):
                    results[-1][1].append(one(scene, row))
    except BaseException:
        say_last_words(lab)
        raise
    finally:
        lab.down()
        print(markdown([(row, found) for row, found in results if found]))
    return int(any(result.beyond for _, found in results for result in found))


def say_last_words(lab: Lab) -> None:
    """Of the agents: what they knew when it went wrong."""
    for node in lab.nodes:
        print(f"--- agent of {node.name}", last_lines(node.agent_log, LAST_LINES), sep="\n")


def one(scene: Scene, row: Row) -> Result:
    result = measure(scene, row, Bounds())
    revive(scene)
    print(result.describe(), file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
