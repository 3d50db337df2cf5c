# SPDX-License-Identifier: Apache-2.0
"""What each program costs per packet: `python -m bench.programs`."""
