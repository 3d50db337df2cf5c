# SPDX-License-Identifier: Apache-2.0
"""The bill of materials names all that the image installs."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

from scripts.image_files import read
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


STATUS = """\
Package: libstdc++6
Status: install ok installed
Architecture: amd64
Version: 14.2.0-19+b1
Description: GNU Standard C++ Library v3
 This package contains an additional runtime library.

Package: leftover
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

License: GPL-3+
 text

License: BSD-3-clause

License: Permission is granted, free
"""
SITE = "opt/ebpfmesh/lib/python3.13/site-packages"


def parts_of(files: dict[str, str], requirements: str = "") -> dict[str, dict[str, Any]]:
    return {part["name"]: part for part in bill(requirements, files)["components"]}


def licences(part: dict[str, Any]) -> list[str]:
    return [one.get("expression") or one["license"]["name"] for one in part.get("licenses", ())]


def test_debian_packages_come_along() -> None:
    files = {
        "usr/lib/os-release": 'NAME="Debian"\nVERSION_ID="13"\n',
        "var/lib/dpkg/status": STATUS,
        "usr/share/doc/libstdc++6": "gcc-14-base",
        "usr/share/doc/gcc-14-base/copyright": COPYRIGHT,
    }
    parts = parts_of(files)
    assert set(parts) == {"debian", "libstdc++6"}
    assert (parts["debian"]["type"], parts["debian"]["version"]) == ("operating-system", "13")
    part = parts["libstdc++6"]
    assert part["version"] == "14.2.0-19+b1"
    purl = "pkg:deb/debian/libstdc%2B%2B6@14.2.0-19%2Bb1?arch=amd64&distro=debian-13"
    assert part["purl"] == part["bom-ref"] == purl
    assert licences(part) == ["BSD-3-clause", "GPL-3+"]


def test_what_was_copied_out_of_a_package_is_named_too() -> None:
    status = "Package: libbpfcc\nArchitecture: amd64\nVersion: 0.31.0\n"
    text = "Free.\nLicense: see above\n"
    files = {
        "var/lib/dpkg/status": STATUS,
        "var/lib/dpkg/status.d/libbpfcc": status,
        "usr/share/doc/libbpfcc/copyright": text,
    }
    part = parts_of(files)["libbpfcc"]
    assert part["version"] == "0.31.0"
    assert licences(part) == []  # in no form that a machine reads


def test_of_an_image_those_python_packages_are_named_that_are_in_it() -> None:
    metadata = "Name: Some_Thing\nVersion: 1.0\n"
    requirements = "".join(
        f"{name} \\\n    --hash=sha256:{character * 64}\n"
        for name, character in (("some-thing==1.0", "a"), ("other==2", "b"))
    )
    for lines, expected in (
        ("License-Expression: MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("License: see LICENSE\nClassifier: License :: OSI Approved :: MIT License", "MIT License"),
        ("License: Apache 2.0", "Apache 2.0"),
    ):
        path = f"{SITE}/some_thing-1.0.dist-info/METADATA"
        parts = parts_of({path: f"{metadata}{lines}\n\nText"}, requirements)
        assert set(parts) == {"debian", "some-thing"}
        assert parts["some-thing"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
        assert licences(parts["some-thing"]) == [expected]


# --- files of an image ------------------------------------------------------------------


def tar_of(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return made.getvalue()


def saved(path: Path, *layers: bytes) -> Path:
    """What ``docker save`` writes of an image with these layers."""
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Layers": names}]).encode()
    path.write_bytes(tar_of(dict(zip(names, layers, strict=True)) | {"manifest.json": manifest}))
    return path


def test_a_layer_lies_over_those_below_it(tmp_path: Path) -> None:
    archive = saved(
        tmp_path / "image.tar",
        tar_of(
            {"./a/kept": b"1", "./a/new": b"1", "./a/gone": b"1", "./b/gone": b"1", "c/x": b"1"}
        ),
        tar_of({"a/new": b"2", "a/.wh.gone": b"", "b/.wh..wh..opq": b"", "b/came": b"2"}),
        tar_of({".wh.c": b"", "not": b"3"}, {"a/link": "kept"}),
    )
    found = read(archive, re.compile("[abc]/.*"))
    assert found == {"a/kept": "1", "a/new": "2", "b/came": "2", "a/link": "kept"}


def test_the_command_reads_an_archive(tmp_path: Path) -> None:
    archive = saved(tmp_path / "image.tar", tar_of({"var/lib/dpkg/status": STATUS.encode()}))
    command = [sys.executable, "-m", "scripts.sbom", str(archive)]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    assert "libstdc++6" in {part["name"] for part in json.loads(printed)["components"]}
