# SPDX-License-Identifier: Apache-2.0
"""One lab of four nodes, three of them managers, with the same services for all changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..conftest import lab_up
from .acts import revive
from .scene import MANAGERS, NODES, Scene


@pytest.fixture(scope="package")
def built() -> Iterator[Scene]:
    with lab_up(NODES, MANAGERS) as lab:
        scene = Scene(lab)
        scene.build()
        yield scene


@pytest.fixture
def scene(built: Scene) -> Iterator[Scene]:
    """Whatever a test has left dead is brought back."""
    yield built
    revive(built)
