# SPDX-License-Identifier: Apache-2.0
"""The bill of materials names all that the image installs."""

from __future__ import annotations

import re
import tomllib

from scripts.sbom import REQUIREMENTS, bill

ROOT = REQUIREMENTS.parents[1]


def test_every_pinned_package_is_in_it_with_its_hashes() -> None:
    text = REQUIREMENTS.read_text()
    parts = bill(text)["components"]
    assert [f"{part['name']}=={part['version']}" for part in parts] == re.findall(
        r"^[^#\s]+==\S+", text, re.MULTILINE
    )
    assert sum(len(part["hashes"]) for part in parts) == text.count("--hash=sha256:")
    assert all(part["hashes"] for part in parts)


def test_what_the_agent_depends_on_is_among_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.match(r"[\w-]+", one)[0] for one in project["dependencies"]}  # type: ignore[index]
    assert wanted <= {part["name"] for part in bill(REQUIREMENTS.read_text())["components"]}


def test_debian_packages_come_along() -> None:
    (part,) = bill("", "libstdc++6 14.2.0-19+b1 amd64\n")["components"]
    assert (part["name"], part["version"]) == ("libstdc++6", "14.2.0-19+b1")
    assert part["purl"] == "pkg:deb/debian/libstdc%2B%2B6@14.2.0-19%2Bb1?arch=amd64"
