# SPDX-License-Identifier: Apache-2.0
"""Builds the image of deploy/Dockerfile with a dockerd of its own, in the machine's own network.

No registry is needed: the image it stands on is made by debootstrap. Layers are kept, so that what
has not changed is not built again.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebpfmesh.lab import daemon
from ebpfmesh.lab.processes import identify, is_alive, last_lines, run, wait_until
from ebpfmesh.lab.unix_http import answers

from ..roots import CACHE, make_root

CHECKOUT = Path(__file__).parents[3]
IMAGE = "ebpfmesh:latest"

_SUITE = "trixie"
_BASE, _BUILDER = "ebpfmesh-base:trixie-slim", "ebpfmesh-builder:trixie-slim"
_READY_S, _BUILD_S = 60, 900
_GROUP = "ebpfmesh-builder"

# As in Debian's own image called slim.
_DOCUMENTS, _KEPT = "usr/share/doc", "copyright"
_LEFT_OUT = ("usr/share/man/*", "usr/share/info/*", "usr/share/locale/*")
_CACHES = ("var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*", "dev/*", "proc/*", "sys/*")

# The authority that this machine's own way to PyPI is signed by, where it has one.
_AUTHORITY = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE") or ""

_START = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs /run
exec "$@"
"""


class Builder:
    """A dockerd that builds. Use through `builder`."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def docker(self, *args: str, timeout_s: float = 60) -> str:
        """What the Docker client prints."""
        return run(daemon.client(self._socket, *args), timeout_s=timeout_s).rstrip("\n")

    def build(self) -> str:
        """The image's id. The wheel has to be there: scripts/wheel.sh."""
        self._make_base()
        arguments = [f"--build-arg=BASE={_BASE}", f"--build-arg=BUILDER={self._builder()}"]
        where = ["--file", str(CHECKOUT / "deploy" / "Dockerfile"), str(CHECKOUT)]
        self._build(IMAGE, *arguments, *where)
        return self.docker("image", "inspect", "--format={{.Id}}", IMAGE)

    def size(self) -> int:
        """Bytes of the image, unpacked."""
        return int(self.docker("image", "inspect", "--format={{.Size}}", IMAGE))

    def save(self, archive: Path) -> None:
        """Writes what `docker load` reads."""
        self.docker("save", "--output", str(archive), IMAGE, timeout_s=_BUILD_S)

    def _build(self, tag: str, *args: str) -> None:
        command = ("build", "--quiet", "--network=host", "--tag", tag, *args)
        self.docker(*command, timeout_s=_BUILD_S)

    def _make_base(self) -> None:
        if self.docker("image", "ls", "--quiet", _BASE):
            return
        root = make_root(_SUITE, ())
        documents = (
            path.relative_to(root) for path in (root / _DOCUMENTS).glob("*/*") if path.name != _KEPT
        )
        without = [f"--exclude=./{path}" for path in (*_LEFT_OUT, *documents, *_CACHES)]
        with tempfile.NamedTemporaryFile(suffix=".tar", dir=CACHE) as tar:
            run(["tar", "--directory", str(root), *without, "-cf", tar.name, "."], timeout_s=300)
            self.docker("import", tar.name, _BASE, timeout_s=300)

    def _builder(self) -> str:
        """The base, which in addition trusts whom this machine trusts."""
        if not _AUTHORITY:
            return _BASE
        with tempfile.TemporaryDirectory() as context:
            (Path(context) / "ca.crt").write_bytes(Path(_AUTHORITY).read_bytes())
            lines = [f"FROM {_BASE}", "COPY ca.crt /etc/pip-ca.crt", "ENV PIP_CERT=/etc/pip-ca.crt"]
            (Path(context) / "Dockerfile").write_text("\n".join(lines))
            self._build(_BUILDER, context)
        return _BUILDER


@contextmanager
def builder() -> Iterator[Builder]:
    """Up to the end of the context."""
    data = CACHE / "builder"
    data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ebpfmesh-builder-") as directory:
        socket, log = Path(directory) / "docker.sock", Path(directory) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *("unshare", "--mount", "sh", "-c", _START, "sh", "dockerd"),
                    *("--data-root", str(data), "--exec-root", "/run/docker"),
                    *("--pidfile", "/run/docker.pid", "--host", f"unix://{socket}"),
                    *("--bridge=none", "--iptables=false", "--ip-forward=false"),
                    *("--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent=/{_GROUP}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        dockerd = identify(process.pid)
        try:
            ready = wait_until(
                lambda: answers(socket, "/_ping") or not is_alive(dockerd), _READY_S, 0.1
            )
            assert ready, last_lines(log)
            assert is_alive(dockerd), last_lines(log)
            yield Builder(socket)
        finally:
            process.terminate()
            process.wait(_READY_S)
            for group in sorted(Path("/sys/fs/cgroup").rglob(_GROUP)):
                group.rmdir()
