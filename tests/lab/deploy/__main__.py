# SPDX-License-Identifier: Apache-2.0
"""Builds the image, and says how large it is: ``python -m lab.deploy [ARCHIVE]``."""

from __future__ import annotations

import sys
from pathlib import Path

from .builder import IMAGE, builder


def main() -> None:
    """With an archive's name, also what `docker load` reads."""
    with builder() as made:
        print(f"{IMAGE} {made.build()}: {made.size() / 1e6:.0f} MB")
        for archive in sys.argv[1:]:
            made.save(Path(archive))


if __name__ == "__main__":
    main()
