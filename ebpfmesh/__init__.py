# SPDX-License-Identifier: Apache-2.0
"""A load balancer for Docker Swarm that runs in eBPF."""

from importlib.metadata import version

__version__ = version("ebpfmesh")
