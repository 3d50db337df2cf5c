# SPDX-License-Identifier: Apache-2.0
"""deploy/ebpfmesh.service under a real systemd, with a real dockerd: ``make test-systemd``."""
