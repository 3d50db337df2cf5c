# SPDX-License-Identifier: Apache-2.0
"""What ebpfmesh costs, measured: see bench/README.md."""
