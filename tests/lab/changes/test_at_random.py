# SPDX-License-Identifier: Apache-2.0
"""Changes at random, for a short while; `make test-chaos` goes on for longer.

The first in this lab: a socket of datagrams with the port of one before this run is no new flow.
"""

from __future__ import annotations

import pytest

from .chaos.plan import Cluster
from .chaos.run import CLUSTER, Chaos
from .scene import Scene

SEED = 1
FOR_S = 180
GENTLE = Cluster(CLUSTER.nodes, (), mortal=False)


@pytest.mark.timeout(500)
def test_random_changes_break_nothing(scene: Scene) -> None:
    verdict = Chaos(scene, SEED, GENTLE).run(FOR_S)
    print(verdict.describe())
    assert not verdict.wrong, "\n".join(verdict.wrong)
