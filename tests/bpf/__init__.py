# SPDX-License-Identifier: Apache-2.0
"""Packets through the programs, in the kernel (BPF_PROG_TEST_RUN): verdict, bytes and maps."""
