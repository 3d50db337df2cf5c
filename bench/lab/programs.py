# SPDX-License-Identifier: Apache-2.0
"""Client and server of the bench: compiled, and the server as an image."""

from __future__ import annotations

import tarfile
from pathlib import Path

from ebpfmesh.lab.lab import Lab
from ebpfmesh.lab.processes import run

SOURCES = Path(__file__).parent
COMPILE = ("gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror")
IMAGE = "ebpfmesh-bench/serve:latest"


def build(name: str, directory: Path) -> Path:
    """Compile ``<name>.c``; the program lies in `directory`."""
    program = directory / name
    run([*COMPILE, "-o", str(program), str(SOURCES / f"{name}.c")])
    return program


def load_image(lab: Lab, server: Path) -> None:
    """Give every node's dockerd an image that is the server and nothing else."""
    archive = server.with_suffix(".tar")
    with tarfile.open(archive, "w") as tar:
        tar.add(server, "serve")
    for node in lab.nodes:
        entry = 'ENTRYPOINT ["/serve"]'
        lab.docker(node.name, "import", "--change", entry, str(archive), IMAGE)
