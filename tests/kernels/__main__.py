# SPDX-License-Identifier: Apache-2.0
"""The BPF tests on Debian's kernels. See docs/kernels.md."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from .image import make_image, requirements
from .machine import Job, run_guest
from .report import Outcome, outcome, summary, table
from .systems import CACHE, MIRROR, SYSTEMS, System
from .tool import Failed

_CHECKOUT = Path(__file__).resolve().parents[2]
_TOOLS = ("chroot", "debootstrap", "mke2fs", "qemu-system-x86_64", "setpriv", "unshare")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.kernels", description=__doc__)
    kernels = [system.kernel for system in SYSTEMS]
    parser.add_argument("--kernel", choices=kernels, action="append", help="default: all")
    parser.add_argument("--load-only", action="store_true", help="load the programs, no tests")
    parser.add_argument("--tests", default="tests/bpf", help="arguments for pytest in the guest")
    parser.add_argument("--mirror", default=MIRROR, help="of Debian's archive")
    parser.add_argument("--timeout-s", type=float, default=5400, help="for each kernel")
    parser.add_argument("--results", type=Path, help="directory to keep what the guests wrote in")
    return parser.parse_args()


def _run(system: System, arguments: argparse.Namespace) -> Outcome:
    wanted = requirements(_CHECKOUT / "pyproject.toml")
    image = make_image(system, wanted, arguments.mirror, CACHE)
    tests = "" if arguments.load_only else arguments.tests
    job = Job(_CHECKOUT, {"TESTS": tests})
    with tempfile.TemporaryDirectory(prefix="ebpfmesh-kernel-") as work:
        try:
            results = run_guest(image, job, Path(work), arguments.timeout_s)
        finally:
            if arguments.results is not None:
                shutil.copytree(work, arguments.results / system.kernel, dirs_exist_ok=True)
    return outcome(results.files, results.seconds, tested=bool(tests))


def main() -> int:
    """Returns the exit code: 0 if every program was loaded and every test passed."""
    arguments = _arguments()
    if os.geteuid() != 0:
        sys.exit("this needs root: debootstrap makes a system for the guest")
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        sys.exit(f"these are missing: {', '.join(missing)}; run: sudo make test-kernels")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    found, problems = [], []
    for system in SYSTEMS:
        if arguments.kernel and system.kernel not in arguments.kernel:
            continue
        try:
            found.append(_run(system, arguments))
            problems += [f"{system.kernel}: {problem}" for problem in found[-1].problems()]
        except Failed as error:
            problems.append(f"{system.kernel}: {error}")
    print("\n".join(["", *table(found), "", *map(summary, found), *problems]))
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
