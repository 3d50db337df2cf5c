# SPDX-License-Identifier: Apache-2.0
"""The BPF tests on Debian's kernels, in virtual machines: ``make test-kernels``."""
