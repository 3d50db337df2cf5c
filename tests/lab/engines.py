# SPDX-License-Identifier: Apache-2.0
"""Lab tests on each Docker Engine that Debian has: ``make test-engines``.

The machine's own, and those of other releases from a directory each (see ebpfmesh/lab/daemon.py).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from ebpfmesh.lab.paths import ENGINE_VARIABLE

from .roots import MIRROR, RootError, make_root

CHECKOUT = Path(__file__).parents[2]

# What dockerd and all that it starts calls, and what starts it.
PACKAGES = (
    "ca-certificates",
    "containerd",
    "docker-cli",
    "docker.io",
    "iproute2",
    "iptables",
    "kmod",
    "procps",
    "runc",
)

_CHANGE = "tests/lab/changes/test_changes.py::test_change_under_load"

# One way of everything: VIPs, published ports from everywhere, updates, labels, other networks.
TESTS = (
    f"{_CHANGE}[update, two tasks at once]",
    f"{_CHANGE}[another port published, then not]",
    f"{_CHANGE}[task killed]",
    "tests/lab/test_vip.py",
    "tests/lab/test_mesh.py",
    "tests/lab/test_host.py",
    "tests/lab/test_labels.py",
    "tests/lab/test_networks.py",
    "tests/lab/test_publish.py",
)

_SUMMARY = re.compile(r"^=* ?((?:\d+ \w+(?:, )?)+) in [\d.]+s.*$", re.MULTILINE)


class Engine(NamedTuple):
    """Debian's `suite` has Docker Engine `version`."""

    suite: str
    version: str


ENGINES = (Engine("bookworm", "20.10"), Engine("trixie", "26.1"), Engine("sid", "28.5"))


class Outcome(NamedTuple):
    """What became of the tests with one engine."""

    engine: Engine
    found: str
    summary: str
    seconds: float
    passed: bool


def root_of(engine: Engine, mirror: str = MIRROR) -> str:
    """The directory of an engine; nothing for the machine's own. Raises `RootError`."""
    if version("") == engine.version:
        return ""
    return str(make_root(engine.suite, PACKAGES, mirror=mirror))


def version(root: str) -> str:
    """Major and minor version of the dockerd in that root, or of the machine's own."""
    command = ["chroot", root] if root else []
    done = subprocess.run(
        [*command, "dockerd", "--version"], check=False, capture_output=True, text=True
    )
    found = re.search(r"version (\d+\.\d+)", done.stdout)
    return found[1] if found else ""


def run_tests(engine: Engine, tests: list[str], mirror: str) -> Outcome:
    """Runs them; what they print goes to the terminal, too."""
    root = root_of(engine, mirror)
    found = version(root)
    print(f"\nDocker Engine {found} (Debian {engine.suite})", flush=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", *tests]
    began_s = time.monotonic()
    lines = []
    with subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=os.environ | {ENGINE_VARIABLE: root},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout or ():
            sys.stdout.write(line)
            lines.append(line)
    summary = _SUMMARY.findall("".join(lines))
    return Outcome(
        engine,
        found,
        summary[-1] if summary else f"pytest ended with {process.returncode}",
        time.monotonic() - began_s,
        process.returncode == 0,
    )


def table(outcomes: list[Outcome]) -> str:
    """A line for each."""
    lines = ["", "| Docker Engine | Debian | tests | seconds |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {each.found} | {each.engine.suite} | {each.summary} | {each.seconds:.0f} |"
        for each in outcomes
    ]
    return "\n".join(lines)


def main() -> int:
    """Returns the exit code: 0 if all passed, each on the version that it was meant for."""
    parser = argparse.ArgumentParser(prog="lab.engines", description=__doc__)
    parser.add_argument("--engine", action="append", choices=[e.suite for e in ENGINES])
    parser.add_argument("--mirror", default=MIRROR, help="of Debian's archive")
    parser.add_argument("tests", nargs="*", default=list(TESTS))
    arguments = parser.parse_args()
    wanted = [e for e in ENGINES if not arguments.engine or e.suite in arguments.engine]
    outcomes, problems = [], []
    for engine in wanted:
        try:
            outcomes.append(run_tests(engine, arguments.tests, arguments.mirror))
        except RootError as error:
            problems.append(f"{engine.suite}: {error}")
    problems += [
        f"Debian {each.engine.suite} has Engine {each.found}, not {each.engine.version}"
        for each in outcomes
        if each.found != each.engine.version
    ]
    print("\n".join([table(outcomes), *problems]))
    return 1 if problems or not all(each.passed for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
