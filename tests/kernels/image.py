# SPDX-License-Identifier: Apache-2.0
"""A disk with a Debian release, its kernel, and what the tests import. Made once, then kept."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .systems import PACKAGES, System
from .tool import Failed, run, run_in_namespace

_DISK_SIZE = "4G"  # sparse

# The first process of the guest: the rest comes with the sources, so that a change of it needs
# no other disk.
_INIT = """\
#!/bin/sh
mkdir -p /checkout && tar -xf /dev/vdb -C /checkout && . /checkout/tests/kernels/guest.sh
"""

# The newest C library that a wheel may ask for; that of Debian 12 is 2.36.
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


@dataclass(frozen=True)
class Image:
    """Files that QEMU boots from."""

    kernel: Path
    initrd: Path
    disk: Path


@dataclass(frozen=True)
class Extra:
    """What else shall be on a disk, and for which use: each use has a disk of its own."""

    use: str
    packages: tuple[str, ...]


def requirements(pyproject: Path) -> list[str]:
    """What the package and its tests need from PyPI."""
    project = tomllib.loads(pyproject.read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["test"]]


def make_image(
    system: System, wanted: list[str], mirror: str, cache: Path, extra: Extra | None = None
) -> Image:
    """The system's disk with the `wanted` Python packages; nothing is done if it is there.

    Raises `Failed` if the mirror does not have the suite, or a tool fails.
    """
    packages = (*PACKAGES, *(extra.packages if extra else ()))
    recipe = repr((system, packages, sorted(wanted), _INIT))
    kind = f"{extra.use}-{system.suite}" if extra else system.suite
    name = f"{kind}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    target = cache / name
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache / f"{kind}.lock"):
        if not target.is_dir():
            _check_suite(system, mirror)
            print(f"{system.suite}: making {target} (some minutes, once)", flush=True)
            with tempfile.TemporaryDirectory(prefix=f"{name}.", dir=cache) as scratch:
                made = _build(Path(scratch), system, packages, wanted, mirror, cache)
                made.rename(target)
            for old in cache.glob(f"{kind}-*"):
                if old != target and "." not in old.name:
                    shutil.rmtree(old)
    return Image(target / "vmlinuz", target / "initrd", target / "disk")


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Two runs at once make one image."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_suite(system: System, mirror: str) -> None:
    release = f"{mirror}/dists/{system.suite}/InRelease"
    try:
        with urllib.request.urlopen(release, timeout=30):  # noqa: S310
            return
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise Failed(
            f"the mirror does not have Debian {system.suite}, for kernel {system.kernel}: "
            f"{release}: {error}\nname another with MIRROR=http://.../debian"
        ) from error


def _build(
    scratch: Path,
    system: System,
    packages: Sequence[str],
    wanted: list[str],
    mirror: str,
    cache: Path,
) -> Path:
    """Makes the image's files below `scratch`, and returns the directory that holds just them."""
    root, made, log = scratch / "root", scratch / "made", scratch / "log"
    archives = cache / "packages" / system.suite
    archives.mkdir(parents=True, exist_ok=True)
    made.mkdir()
    run_in_namespace(
        [
            "debootstrap",
            "--variant=minbase",
            f"--cache-dir={archives}",
            f"--include={','.join(packages)}",
            system.suite,
            root,
            mirror,
        ],
        log,
    )
    _install_wheels(root, system, wanted, log)
    init = root / "sbin" / "guest-init"
    init.write_text(_INIT)
    init.chmod(0o755)
    for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        found = sorted((root / "boot").glob(pattern))
        if len(found) != 1 or not found[0].name.split("-")[1].startswith(f"{system.kernel}."):
            names = ", ".join(path.name for path in found)
            raise Failed(f"Debian {system.suite} has [{names}], not one kernel {system.kernel}")
        shutil.copy(found[0], made / name)
    disk = made / "disk"
    run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", root, disk, _DISK_SIZE], log)
    return made


def _install_wheels(root: Path, system: System, wanted: list[str], log: Path) -> None:
    """Puts them into /opt/site of the guest, fetched by this machine's own pip."""
    site = root / "opt" / "site"
    platforms = [f"--platform={platform}" for platform in _PLATFORMS]
    run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"),
            *("--target", site, "--python-version", system.python, "--implementation", "cp"),
            *("--only-binary=:all:", *platforms, *wanted),
        ],
        log,
    )
    # By the guest's own interpreter: compiling them there at each boot takes minutes.
    run(["chroot", root, "python3", "-m", "compileall", "-q", "/opt/site"], log)
