# SPDX-License-Identifier: Apache-2.0
"""The kernel's side: programs, maps, attachments, counters."""
