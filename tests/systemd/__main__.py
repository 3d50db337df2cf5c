# SPDX-License-Identifier: Apache-2.0
"""Follows docs/install.md under Debian's systemd and dockerd, on a machine made of namespaces.

tests/systemd/trial.py says what is done there, tests/systemd/machine.sh what the machine is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ebpfmesh.lab import images

from ..lab.roots import MIRROR, RootError, make_root

CHECKOUT = Path(__file__).resolve().parents[2]
_MACHINE = CHECKOUT / "tests" / "systemd" / "machine.sh"
_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--kill-child")
_GROUP = "ebpfmesh-systemd"
_POLL_S = 0.5
_LOG_LINES = 30

# What docs/install.md has installed, what a node of a Swarm has, and what asks and looks.
_PACKAGES = (
    *("python3-venv", "python3-bpfcc", "iproute2", "systemd-sysv", "dbus"),
    *("docker.io", "iptables", "kmod", "procps", "ca-certificates", "curl", "ethtool"),
)
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


class System(NamedTuple):
    """A release of Debian; `python` is the version of its python3."""

    suite: str
    python: str
    also: tuple[str, ...] = ()


SYSTEMS = (System("bookworm", "3.11"), System("trixie", "3.13", ("docker-cli",)))


class Failed(Exception):
    """What did not hold, for a person to read."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.systemd", description=__doc__)
    suites = [system.suite for system in SYSTEMS]
    parser.add_argument("--suite", choices=suites, action="append", help="default: all")
    parser.add_argument("--mirror", default=MIRROR, help="of Debian's archive")
    parser.add_argument("--root", type=Path, help="a directory with such a system, made already")
    parser.add_argument("--without-docker", action="store_true", help="only what needs no dockerd")
    parser.add_argument("--timeout-s", type=float, default=1800, help="for each system")
    return parser.parse_args()


def _fetch_wheels(system: System, to: Path) -> None:
    """What pip would fetch for the package, which has no network there."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"),
            *("--dest", to, "--python-version", system.python, "--implementation", "cp"),
            *(f"--platform={platform}" for platform in _PLATFORMS),
            *project["dependencies"],
        ],
        check=False,
    )
    if done.returncode:
        raise Failed("pip cannot fetch what the package needs")


def _prepare(system: System, room: Path, *, docker: bool) -> None:
    """All that the machine gets of the checkout."""
    wheels = list((CHECKOUT / "dist").glob("ebpfmesh-*.whl"))
    if len(wheels) != 1:
        raise Failed("there is no wheel: sudo make wheel")
    there = room / "checkout"
    shutil.copytree(CHECKOUT / "tests" / "systemd", there / "tests" / "systemd")
    (there / "docs").mkdir()
    shutil.copy(CHECKOUT / "docs" / "install.md", there / "docs")
    shutil.copy(wheels[0], there)
    _fetch_wheels(system, there / "wheels")
    if docker:
        images.build(there / "lab.tar")
    else:
        (there / "without-docker").touch()
    (room / "results").mkdir()


def _try(system: System, arguments: argparse.Namespace) -> list[str]:
    """The steps that held. Raises `Failed` at the first that did not."""
    packages = (*_PACKAGES, *system.also)
    root = arguments.root or make_root(system.suite, packages, mirror=arguments.mirror)
    with tempfile.TemporaryDirectory(prefix="ebpfmesh-systemd-") as directory:
        room = Path(directory)
        _prepare(system, room, docker=not arguments.without_docker)
        results = room / "results"
        with _machine(root, room) as machine:
            deadline = time.monotonic() + arguments.timeout_s
            while not (results / "done").exists() and machine.poll() is None:
                if time.monotonic() > deadline:
                    break
                time.sleep(_POLL_S)
        return _found(results)


def _found(results: Path) -> list[str]:
    texts = {file.name: file.read_text(errors="replace") for file in results.iterdir()}
    if "error" in texts or "done" not in texts or not texts.get("steps"):
        last = texts.get("journal", texts.get("system", "")).splitlines()[-_LOG_LINES:]
        why = texts.get("error", "it did not come to its end")
        raise Failed("\n".join([texts.get("steps", ""), why, "its log ends so:", *last]))
    return texts["steps"].splitlines()


@contextmanager
def _machine(root: Path, room: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Up to the end of the context. Its processes are in a group of their own."""
    group = _unified() / _GROUP
    group.mkdir(exist_ok=True)
    join = f'echo $$ >{group}/cgroup.procs && exec unshare "$@"'
    command = ["sh", "-c", join, "sh", *_NAMESPACES, "--", str(_MACHINE), str(root), str(room)]
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield machine
    finally:
        machine.kill()  # and with it its child, the first process of all
        machine.wait()
        _remove(group)


def _unified() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(target)
    raise Failed("cgroup v2 is not mounted")


def _remove(group: Path) -> None:
    """The kernel empties it a little after the end."""
    deadline = time.monotonic() + 60
    while group.exists():
        for each in sorted(group.rglob("*/"), reverse=True):
            _try_to_remove(each)
        _try_to_remove(group)
        if time.monotonic() > deadline:
            raise Failed(f"{group} still holds processes")
        time.sleep(0.1)


def _try_to_remove(group: Path) -> None:
    try:
        group.rmdir()
    except OSError:
        return


def main() -> int:
    """Returns the exit code: 0 if all held on every system."""
    arguments = _arguments()
    if os.geteuid() != 0:
        sys.exit("this needs root: it makes namespaces")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    problems = 0
    for system in SYSTEMS:
        if arguments.suite and system.suite not in arguments.suite:
            continue
        try:
            print("\n".join([f"\nDebian {system.suite}:", *_try(system, arguments)]))
        except (Failed, RootError) as error:
            problems += 1
            print(f"\nDebian {system.suite}: {error}")
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
