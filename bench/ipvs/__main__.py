# SPDX-License-Identifier: Apache-2.0
"""ebpfmesh against IPVS, iptables and nftables: instructions of a guest for each packet."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import msgspec

from bench.ipvs.figures import PLOTS, figures
from bench.ipvs.guest import TRAFFIC
from bench.ipvs.plan import Round
from bench.machine import ROOT
from bench.node import need_root, quiet
from bench.store import began, parser, save, say
from ebpfmesh.datapath.object import seal
from ebpfmesh.datapath.objects import load_object
from ebpfmesh.datapath.shipped import shipped
from tests.kernels.image import Extra, make_image, requirements
from tests.kernels.machine import Job, Results, run_guest
from tests.kernels.systems import CACHE, MIRROR, SYSTEMS
from tests.kernels.tool import Failed

SYSTEM = SYSTEMS[0]
TOOLS = Extra("ipvs", ("ipvsadm", "iptables", "nftables"))
COUNT, QUICK_COUNT = 1000, 100
_FOUND = "ipvs.json"
_COMPILE = ("gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror")


def compile_traffic(room: Path) -> Path:
    """The program that asks and answers; it needs no library of the guest's."""
    made = room / "traffic"
    source = Path(__file__).with_name("traffic.c")
    subprocess.run([*_COMPILE, "-o", made, source], check=True)
    return made


def _job(room: Path, given: Namespace) -> Job:
    """The bench for a guest: compiled here, where it takes seconds."""
    made, kept = room / shipped().name, os.environ.get("EBPFMESH_OBJECT_DIR")
    made.write_bytes(seal(load_object(Path(kept or room / "objects"))))
    count = QUICK_COUNT if given.quick else COUNT
    command = ["python3", "-m", "bench.ipvs.guest", f"--rounds={given.rounds}", f"--count={count}"]
    return Job(
        ROOT,
        {"COMMAND": shlex.join([*command, f"results/{_FOUND}"])},
        {
            "bench": ROOT / "bench",
            TRAFFIC.name: compile_traffic(room),
            f"ebpfmesh/objects/{made.name}": made,
        },
        counting=True,
    )


def _measure(given: Namespace) -> Results:
    image = make_image(SYSTEM, requirements(ROOT / "pyproject.toml"), given.mirror, CACHE, TOOLS)
    with tempfile.TemporaryDirectory(prefix="ebpfmesh-ipvs-") as work:
        room = Path(work)
        return run_guest(image, _job(room, given), room, given.timeout_s)


def main() -> None:
    """Run the bench."""
    options = parser(__doc__)
    options.add_argument("--mirror", default=MIRROR, help="of Debian's archive")
    options.add_argument("--timeout-s", type=float, default=7200, help="for the guest")
    given = options.parse_args()
    need_root()
    quiet()
    machine = began(given.note)
    try:
        results = _measure(given)
    except Failed as error:
        sys.exit(str(error))
    if _FOUND not in results.files:
        sys.exit("the guest measured nothing: see its console above")
    found = figures(msgspec.json.decode(results.files[_FOUND], type=list[Round]))
    for figure in found:
        say(figure)
    guest = msgspec.structs.replace(
        machine,
        kernel=results.files["kernel"].strip(),
        cpu=f"QEMU's emulation, which counts instructions, on {machine.cpu}",
        cpus=1,
    )
    save("ipvs", guest, found, PLOTS, given.out)


if __name__ == "__main__":
    main()
