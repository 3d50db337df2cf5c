# SPDX-License-Identifier: Apache-2.0
"""Can this node run ebpfmesh? `probe` looks and returns facts, `judge` says what they mean."""
