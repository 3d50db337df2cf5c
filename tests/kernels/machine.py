# SPDX-License-Identifier: Apache-2.0
"""Boots a guest with the sources of this checkout, and takes what it found."""

from __future__ import annotations

import io
import shlex
import subprocess
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .image import Image
from .tool import Failed, bound

_SOURCES = ("bpf", "ebpfmesh", "tests", "pyproject.toml")
_RESULTS_SIZE = 16 << 20
_GUEST_MEMORY_MIB = 3072
# One: two emulated ones do not always agree on code that the kernel changes while it runs (static
# keys, which packet sockets turn), and it dies of that.
_GUEST_CPUS = 1

# The package asks for its version, which an installed one has in such a file.
_METADATA = ("ebpfmesh-0.dist-info/METADATA", "Metadata-Version: 2.1\nName: ebpfmesh\nVersion: 0\n")


# The guest's clock goes by its instructions, one a nanosecond, whatever else the machine does. With
# ERMS and FSRM each byte of a copy would count.
_COUNTING = (
    *("-accel", "tcg,thread=single", "-icount", "shift=0"),
    *("-cpu", "max,la57=off,erms=off,fsrm=off"),
)
# Emulation serves everywhere, and does the same everywhere: not every KVM can do what this needs,
# least of all one inside a virtual machine.
_FAST = ("-accel", "tcg,thread=multi", "-cpu", "max,la57=off")


@dataclass(frozen=True)
class Job:
    """What a guest is for. `variables` are those of guest.sh; `files`, by the names that they have
    there, come to the sources of the checkout. `counting`: its clock counts instructions."""

    checkout: Path
    variables: Mapping[str, str]
    files: Mapping[str, Path] = field(default_factory=dict)
    counting: bool = False


@dataclass(frozen=True)
class Results:
    """What the guest wrote, by name, and how long it ran."""

    files: dict[str, str]
    seconds: float


def _no_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in member.name else member


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(text.encode())
    archive.addfile(member, io.BytesIO(text.encode()))


def pack(job: Job, target: Path) -> None:
    """Writes the disk of sources: what the guest needs of the checkout, and what it shall do."""
    told = [f"{name}={shlex.quote(value)}\n" for name, value in job.variables.items()]
    with tarfile.open(target, "w") as archive:
        for name in _SOURCES:
            archive.add(job.checkout / name, name, filter=_no_caches)
        for name, path in job.files.items():
            archive.add(path, name, filter=_no_caches)
        _add_text(archive, *_METADATA)
        _add_text(archive, "guest.env", "".join(told))


def _command(
    image: Image, sources: Path, results: Path, console: Path, *, counting: bool
) -> list[str]:
    def drive(path: Path, options: str) -> list[str]:
        return ["-drive", f"file={path},format=raw,if=virtio,{options}"]

    return [
        "qemu-system-x86_64",
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *(_COUNTING if counting else _FAST),
        *("-smp", str(_GUEST_CPUS), "-m", str(_GUEST_MEMORY_MIB)),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        "-append",
        "console=ttyS0 root=/dev/vda rw init=/sbin/guest-init quiet panic=-1 mitigations=off",
        *drive(image.disk, "snapshot=on"),
        *drive(sources, "readonly=on"),
        *drive(results, "cache=unsafe"),
        *("-chardev", f"stdio,id=console,signal=off,logfile={console}"),
        *("-serial", "chardev:console"),
    ]


def run_guest(image: Image, job: Job, work: Path, timeout_s: float) -> Results:
    """Boots, waits until the guest turns itself off, and returns what it wrote.

    The guest's disk stays as it is. Raises `Failed` if it takes too long or leaves no results.
    """
    sources, results, console = work / "sources.tar", work / "results.tar", work / "console"
    pack(job, sources)
    with results.open("wb") as file:
        file.truncate(_RESULTS_SIZE)
    started = time.monotonic()
    command = bound(_command(image, sources, results, console, counting=job.counting))
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=timeout_s, check=True)
    except subprocess.TimeoutExpired:
        raise Failed(f"the guest did not finish within {timeout_s:.0f} s") from None
    except subprocess.CalledProcessError as error:
        raise Failed(f"QEMU ended with {error.returncode}") from None
    return Results(_unpack(results), time.monotonic() - started)


def _unpack(path: Path) -> dict[str, str]:
    files = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None:
                    files[Path(member.name).name] = content.read().decode()
    except tarfile.TarError:
        raise Failed("the guest left no results: see its console above") from None
    return files
