# SPDX-License-Identifier: Apache-2.0
"""The command ``ebpfmesh``: renders what the agent answers, and starts what runs in front."""

from ebpfmesh.cli.app import main

__all__ = ["main"]
