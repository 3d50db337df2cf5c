# SPDX-License-Identifier: Apache-2.0
"""``python -m ebpfmesh`` is the command ``ebpfmesh``."""

from ebpfmesh.cli import main

if __name__ == "__main__":
    main()
