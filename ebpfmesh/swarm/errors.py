# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between ebpfmesh and dockerd. Each message says what to do."""

from __future__ import annotations


class SwarmError(Exception):
    """Base of everything that this package raises."""


class DockerUnavailable(SwarmError):
    """dockerd cannot be reached, or refuses us. The cause is chained."""


class DockerRefused(SwarmError):
    """dockerd answered with an error: a manager without a leader, a worker asked for services."""


class UnexpectedAnswer(SwarmError):
    """dockerd answered something that does not decode."""


class NotInSwarm(SwarmError):
    """This node is not an active member of a Swarm."""
