# SPDX-License-Identifier: Apache-2.0
"""ebpfmesh against IPVS, iptables and nftables: instructions of a guest for each packet."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.ipvs import swarm
from bench.ipvs.figures import PLOTS, figures
from bench.ipvs.guest import TRAFFIC
from bench.ipvs.plan import Round
from bench.lab import programs
from bench.machine import ROOT
from bench.node import need_root, quiet
from bench.plot import Plot
from bench.result import Figure, Machine
from bench.store import began, parser, save, say
from ebpfmesh.datapath.object import seal
from ebpfmesh.datapath.objects import load_object
from ebpfmesh.datapath.shipped import shipped
from tests.kernels.image import Extra, make_image, requirements
from tests.kernels.machine import Job, Results, run_guest
from tests.kernels.systems import CACHE, MIRROR, SYSTEMS
from tests.kernels.tool import Failed

SYSTEM = SYSTEMS[0]
COUNT, QUICK_COUNT = 1000, 100
SECONDS, QUICK_SECONDS = 0.1, 0.02
_FOUND = "found.json"
_COMPILE = ("gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True)
class Part:
    """What one guest does: `name` is of the results, `module` is what runs there."""

    name: str
    module: str
    extra: Extra
    effort: Callable[[Namespace], str]
    programs: Callable[[Path], dict[str, Path]]
    read: Callable[[bytes], Sequence[Figure]]
    plots: Sequence[Plot]


def compile_traffic(room: Path) -> Path:
    """The program that asks and answers; it needs no library of the guest's."""
    made = room / "traffic"
    source = Path(__file__).with_name("traffic.c")
    subprocess.run([*_COMPILE, "-o", made, source], check=True)
    return made


PARTS = {
    "packets": Part(
        "ipvs",
        "bench.ipvs.guest",
        Extra("ipvs", ("ipvsadm", "iptables", "nftables")),
        lambda given: f"--count={QUICK_COUNT if given.quick else COUNT}",
        lambda room: {TRAFFIC.name: compile_traffic(room)},
        lambda text: figures(msgspec.json.decode(text, type=list[Round])),
        PLOTS,
    ),
    "swarm": Part(
        "ipvs-swarm",
        "bench.ipvs.swarm",
        Extra(
            "swarm",
            (
                *("busybox-static", "containerd", "docker.io", "gcc", "iptables", "nftables"),
                *("procps", "runc"),
            ),
        ),
        lambda given: f"--seconds={QUICK_SECONDS if given.quick else SECONDS}",
        lambda room: {name: programs.build(name, room) for name in swarm.PROGRAMS},
        lambda text: msgspec.json.decode(text, type=list[Figure]),
        swarm.PLOTS,
    ),
}


def _job(part: Part, room: Path, given: Namespace) -> Job:
    """The bench for a guest: compiled here, where it takes seconds."""
    made, kept = room / shipped().name, os.environ.get("EBPFMESH_OBJECT_DIR")
    made.write_bytes(seal(load_object(Path(kept or room / "objects"))))
    command = ["python3", "-m", part.module, f"--rounds={given.rounds}", part.effort(given)]
    return Job(
        ROOT,
        {"COMMAND": shlex.join([*command, f"results/{_FOUND}"])},
        {
            "bench": ROOT / "bench",
            **part.programs(room),
            f"ebpfmesh/objects/{made.name}": made,
        },
        counting=True,
    )


def _run(part: Part, given: Namespace) -> Results:
    wanted = requirements(ROOT / "pyproject.toml")
    image = make_image(SYSTEM, wanted, given.mirror, CACHE, part.extra)
    with tempfile.TemporaryDirectory(prefix="ebpfmesh-ipvs-") as work:
        room = Path(work)
        results = run_guest(image, _job(part, room, given), room, given.timeout_s)
    if _FOUND not in results.files:
        raise Failed("the guest measured nothing: see its console above")
    return results


def _of_guest(machine: Machine, results: Results) -> Machine:
    return msgspec.structs.replace(
        machine,
        kernel=results.files["kernel"].strip(),
        cpu=f"QEMU's emulation, which counts instructions, on {machine.cpu}",
        cpus=1,
    )


def main() -> None:
    """Run the bench."""
    options = parser(__doc__)
    options.add_argument("--part", choices=list(PARTS), action="append", help="default: all")
    options.add_argument("--mirror", default=MIRROR, help="of Debian's archive")
    options.add_argument("--timeout-s", type=float, default=7200, help="for each guest")
    given = options.parse_args()
    need_root()
    quiet()
    for part in (PARTS[name] for name in given.part or PARTS):
        machine = began(given.note)
        try:
            results = _run(part, given)
        except Failed as error:
            sys.exit(str(error))
        found = part.read(results.files[_FOUND].encode())
        for figure in found:
            say(figure)
        save(part.name, _of_guest(machine, results), found, part.plots, given.out)


if __name__ == "__main__":
    main()
