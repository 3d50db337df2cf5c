# SPDX-License-Identifier: Apache-2.0
"""The lab's images, made on the spot: there is no registry in the lab.

One root file system under two names: `ECHO` answers who it is, `BUSYBOX` waits for
orders. All nodes load the same archive, so an image has the same id everywhere.
"""

from __future__ import annotations

import hashlib
import io
import platform
import shutil
import tarfile
import tempfile
from pathlib import Path

import msgspec

from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.processes import run

ECHO = "ebpfmesh-lab/echo:latest"
BUSYBOX = "ebpfmesh-lab/busybox:latest"

_SOURCE = Path(__file__).with_name("echo_server.c")
_COMPILE = ("gcc", "-static", "-O2", "-Wall")
_PROCESS: dict[str, dict[str, object]] = {
    ECHO: {"Entrypoint": ["/bin/echo-server"]},
    # As process 1, sleep is deaf to SIGTERM: each stop would take the whole grace period.
    BUSYBOX: {"Cmd": ["sleep", "infinity"], "StopSignal": "SIGKILL"},
}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_FILES = {
    "etc/passwd": "root:x:0:0:root:/:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}

_PATTERN_PERIOD = 65521


def build(archive: Path) -> None:
    """Write an archive for `docker load` with both images."""
    layer = _layer(_compile())
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    configs = {tag: _config(tag, diff_id) for tag in _PROCESS}
    manifest = [
        {"Config": _config_name(config), "RepoTags": [tag], "Layers": ["layer.tar"]}
        for tag, config in configs.items()
    ]
    with tarfile.open(archive, "w") as tar:
        _add_file(tar, "layer.tar", layer)
        for config in configs.values():
            _add_file(tar, _config_name(config), config)
        _add_file(tar, "manifest.json", msgspec.json.encode(manifest))


def pattern(length: int) -> bytes:
    """What `GET /bytes/<length>` of the echo server answers."""
    value = 1
    period = bytearray()
    for _ in range(min(length, _PATTERN_PERIOD)):
        value = (value * 1664525 + 1013904223) & 0xFFFFFFFF
        period.append(value >> 24)
    return (bytes(period) * (length // _PATTERN_PERIOD + 1))[:length]


def _config(tag: str, diff_id: str) -> bytes:
    machine = platform.machine()
    return msgspec.json.encode(
        {
            "architecture": _ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], **_PROCESS[tag]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
    )


def _config_name(config: bytes) -> str:
    return f"{hashlib.sha256(config).hexdigest()}.json"


def _compile() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "echo-server"
        run([*_COMPILE, "-o", str(program), str(_SOURCE)])
        return program.read_bytes()


def _layer(echo_server: bytes) -> bytes:
    busybox = _busybox()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add_directory(tar, "bin", 0o755)
        _add_directory(tar, "etc", 0o755)
        _add_directory(tar, "tmp", 0o1777)
        for name, text in _FILES.items():
            _add_file(tar, name, text.encode())
        _add_file(tar, "bin/echo-server", echo_server, 0o755)
        _add_file(tar, "bin/busybox", busybox.read_bytes(), 0o755)
        for applet in _applets(busybox):
            _add_link(tar, f"bin/{applet}", "busybox")
    return buffer.getvalue()


def _busybox() -> Path:
    found = shutil.which("busybox")
    if not found:
        raise LabError("no busybox found: apt-get install busybox-static")
    return Path(found)


def _applets(busybox: Path) -> list[str]:
    """Sorted, so that every archive is the same."""
    return sorted(set(run([str(busybox), "--list"]).split()) - {"busybox"})


def _add_file(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(data))


def _add_directory(tar: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE
    entry.mode = mode
    tar.addfile(entry)


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.SYMTYPE
    entry.linkname = target
    tar.addfile(entry)
