# SPDX-License-Identifier: Apache-2.0
"""ebpfmesh from its image, in a stack on the lab's Swarm: ``make test-deploy``."""
