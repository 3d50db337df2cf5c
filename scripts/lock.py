# SPDX-License-Identifier: Apache-2.0
"""What the image installs from PyPI, exact and with hashes: deploy/requirements.txt.

python scripts/lock.py > deploy/requirements.txt
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from pathlib import Path

PYTHON = "3.13"  # that of the Debian release which deploy/Dockerfile is based on
MACHINES = ("x86_64", "aarch64")
PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
HEAD = (
    "# What the image installs from PyPI, exact and with hashes. Made by scripts/lock.py: make lock"
)


def resolved(machine: str, wanted: list[str]) -> list[tuple[str, str, str]]:
    """Name, version and SHA-256 of each wheel that pip would install on such a machine."""
    platforms = [f"--platform={platform}_{machine}" for platform in PLATFORMS]
    with tempfile.TemporaryDirectory() as nowhere:
        report = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"),
                *("--quiet", "--report=-", f"--target={nowhere}", f"--python-version={PYTHON}"),
                *("--implementation=cp", "--only-binary=:all:", *platforms, *wanted),
            ],
            check=True,
            stdout=subprocess.PIPE,
            # This machine's own indexes are not those of others.
            env=os.environ | {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""},
        )
    return [
        (
            item["metadata"]["name"].lower().replace("_", "-"),
            item["metadata"]["version"],
            item["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for item in json.loads(report.stdout)["install"]
    ]


def main() -> None:
    """Prints the file."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    found: defaultdict[str, set[str]] = defaultdict(set)
    for machine in MACHINES:
        for name, version, digest in resolved(machine, project["dependencies"]):
            found[f"{name}=={version}"].add(digest)
    print(HEAD)
    for requirement, digests in sorted(found.items()):
        print(" \\\n".join([requirement, *(f"    --hash=sha256:{d}" for d in sorted(digests))]))


if __name__ == "__main__":
    main()
