# SPDX-License-Identifier: Apache-2.0
"""What the lab says when it cannot go on."""

from __future__ import annotations


class LabError(Exception):
    """A failure with its cause and, where there is one, the way out; shown to people as it is."""
