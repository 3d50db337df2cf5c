# SPDX-License-Identifier: Apache-2.0
"""A large Swarm, made up, and what it costs hub and agents: `python -m bench.scale`."""
