# SPDX-License-Identifier: Apache-2.0
"""The image, and a lab in which Swarm itself runs the agents."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpfmesh.lab.lab import Lab

from ..conftest import lab_up
from ..roots import CACHE
from .builder import CHECKOUT, builder
from .stack import Stack

NEXT = "ebpfmesh:next"


@pytest.fixture(scope="session")
def image() -> Path:
    """What `docker load` reads."""
    archive = CACHE / f"image-{_inputs()}.tar"
    if not archive.exists():
        wheel = [str(CHECKOUT / "scripts" / "wheel.sh"), sys.executable]
        subprocess.run(wheel, cwd=CHECKOUT, check=True)
        with builder() as made:
            made.build()
            print(f"the image is of {made.size() / 1e6:.0f} MB")
            made.save(archive)
        for old in set(CACHE.glob("image-*.tar")) - {archive}:
            old.unlink()
    return archive


def _inputs() -> str:
    """Of all that goes into the image."""
    made_of = [CHECKOUT / "pyproject.toml"]
    made_of += [CHECKOUT / "deploy" / name for name in ("Dockerfile", "requirements.txt")]
    for directory in ("bpf", "ebpfmesh"):
        made_of += sorted((CHECKOUT / directory).rglob("*.[chpjs]*"))
    text = b"".join(path.read_bytes() for path in made_of if "__pycache__" not in path.parts)
    return hashlib.sha256(text).hexdigest()[:16]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with lab_up(nodes=3, agents=False) as up:
        yield up


@pytest.fixture(scope="session")
def stack(image: Path, lab: Lab) -> Stack:
    """Deployed."""
    stack = Stack(lab)
    stack.load(image, NEXT)
    stack.deploy()
    return stack
