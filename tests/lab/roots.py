# SPDX-License-Identifier: Apache-2.0
"""Directories with a Debian system, made by debootstrap once and then kept.

python -m lab.roots SUITE PACKAGE...        prints where it is (from tests/)
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

CACHE = Path("/var/cache/ebpfmesh-roots")
# Only Debian's own archive is signed with the keys that debootstrap looks for.
MIRROR = "http://deb.debian.org/debian"

_LAST_WORDS = 15  # lines

# No mount and no process of debootstrap's stays behind, whatever ends it.
_ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


class RootError(Exception):
    """No such system could be made; says why."""


def make_root(
    suite: str, packages: Sequence[str], *, mirror: str = MIRROR, cache: Path = CACHE
) -> Path:
    """A minimal system of this suite with these packages. Raises `RootError`."""
    recipe = hashlib.sha256(repr((suite, sorted(packages))).encode()).hexdigest()[:12]
    target = cache / f"{suite}-{recipe}"
    if target.is_dir():
        return target
    if shutil.which("debootstrap") is None:
        raise RootError("debootstrap is missing: apt-get install debootstrap")
    archives = cache / "archives" / suite
    archives.mkdir(parents=True, exist_ok=True)
    print(f"debian {suite}: making {target} (some minutes, once)", flush=True)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=cache) as scratch:
        root = Path(scratch) / "root"
        command = ["debootstrap", "--variant=minbase", f"--cache-dir={archives}"]
        if packages:
            command.append(f"--include={','.join(packages)}")
        _run([*_ALONE, *command, suite, str(root), mirror])
        root.rename(target)
    return target


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stdout.splitlines()[-_LAST_WORDS:]
        raise RootError("\n".join([f"debootstrap failed ({done.returncode}):", *last]))


def main() -> None:
    """Makes one."""
    parser = argparse.ArgumentParser(prog="lab.roots", description=__doc__)
    parser.add_argument("suite")
    parser.add_argument("packages", nargs="*")
    arguments = parser.parse_args()
    print(make_root(arguments.suite, arguments.packages))


if __name__ == "__main__":
    main()
