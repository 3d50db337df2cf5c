# SPDX-License-Identifier: Apache-2.0
"""What the image is made of, in CycloneDX's form: ``python scripts/sbom.py [IMAGE]``.

The Python packages are those of deploy/requirements.txt, which pip installs by hash and no others.
With an image its Debian packages come along, as its own dpkg lists them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ebpfmesh

REQUIREMENTS = Path(__file__).parents[1] / "deploy" / "requirements.txt"
_PINNED = re.compile(r"^([\w.-]+)==([\w.+!-]+)((?:\s*\\\n\s*--hash=sha256:[0-9a-f]{64})+)", re.M)
_DPKG = ("dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\n")

Component = dict[str, Any]


def bill(python: str, debian: str = "") -> dict[str, Any]:
    """Return the bill of a requirements file, and of dpkg's list."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "ebpfmesh",
                "name": "ebpfmesh",
                "version": ebpfmesh.__version__,
            }
        },
        "components": [*_from_pip(python), *_from_dpkg(debian)],
    }


def _from_pip(requirements: str) -> Iterator[Component]:
    for name, version, hashes in _PINNED.findall(requirements):
        yield _component(name, version, f"pkg:pypi/{name.lower()}@{version}") | {
            "hashes": [
                {"alg": "SHA-256", "content": one} for one in re.findall(r"[0-9a-f]{64}", hashes)
            ]
        }


def _from_dpkg(listed: str) -> Iterator[Component]:
    for line in listed.splitlines():
        name, version, machine = line.split()
        yield _component(name, version, f"pkg:deb/debian/{name}@{version}?arch={machine}")


def _component(name: str, version: str, purl: str) -> Component:
    escaped = purl.replace("+", "%2B")
    return {
        "type": "library",
        "bom-ref": escaped,
        "name": name,
        "version": version,
        "purl": escaped,
    }


def _dpkg_of(image: str) -> str:
    command = ["docker", "run", "--rm", "--network=none", f"--entrypoint={_DPKG[0]}", image]
    return subprocess.run(
        [*command, *_DPKG[1:]], check=True, text=True, stdout=subprocess.PIPE
    ).stdout


if __name__ == "__main__":
    images = sys.argv[1:2]
    made = bill(REQUIREMENTS.read_text(), _dpkg_of(images[0]) if images else "")
    json.dump(made, sys.stdout, indent=1)
    sys.stdout.write("\n")
