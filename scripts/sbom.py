# SPDX-License-Identifier: Apache-2.0
"""What the image is made of, in CycloneDX's form: ``python -m scripts.sbom [IMAGE]``.

The Python packages are those of deploy/requirements.txt, which pip installs by hash and no others.
With IMAGE, the name of one that Docker has here, or an archive that ``docker save`` wrote, they are
those that it holds, its Debian packages come along, and each with the licences that its own files
name.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import ebpfmesh

from . import image_files

REQUIREMENTS = Path(__file__).parents[1] / "deploy" / "requirements.txt"
_PINNED = re.compile(r"^([\w.-]+)==([\w.+!-]+)((?:\s*\\\n\s*--hash=sha256:[0-9a-f]{64})+)", re.M)

# A package's directory of documents may be a link to another's.
_DOCUMENTS = "usr/share/doc"
_STATUS = re.compile(r"var/lib/dpkg/(status|status\.d/[^/]+)")
_METADATA = re.compile(r"opt/ebpfmesh/lib/[^/]+/site-packages/[^/]+\.dist-info/METADATA")
_RELEASE = "usr/lib/os-release"
_WANTED = re.compile(
    rf"{_STATUS.pattern}|{_METADATA.pattern}|{_RELEASE}|{_DOCUMENTS}/[^/]+(/copyright)?"
)

# In Debian's machine-readable copyright files: names, not the licence itself.
_FORMAT = re.compile(r"\s*Format(-Specification)?:", re.I)
_NAMED = re.compile(r"^License:[ \t]*([\w.+-]+(?: [\w.+-]+){0,7})[ \t]*$", re.M)
_CLASSIFIED = re.compile(r"License :: (?:OSI Approved :: )?(.+)")

Files = Mapping[str, str]
Component = dict[str, Any]


def bill(requirements: str, files: Files | None = None) -> dict[str, Any]:
    """Return the bill of a requirements file, or of an image: the text of its files by path."""
    pinned = {
        (_canonical(name), version): re.findall(r"[0-9a-f]{64}", hashes)
        for name, version, hashes in _PINNED.findall(requirements)
    }
    if files is None:
        parts = [_from_pip(name, version, pinned) for name, version in pinned]
    else:
        parts = [*_from_metadata(files, pinned), *_from_dpkg(files)]
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
        "components": parts,
    }


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- Python's ---------------------------------------------------------------------------

Hashes = Mapping[tuple[str, str], list[str]]


def _from_metadata(files: Files, pinned: Hashes) -> Iterator[Component]:
    for path in sorted(filter(_METADATA.fullmatch, files)):
        metadata = HeaderParser().parsestr(files[path])
        name, version = _canonical(metadata["Name"]), metadata["Version"]
        yield _from_pip(name, version, pinned) | _licences_of(metadata)


def _from_pip(name: str, version: str, pinned: Hashes) -> Component:
    hashes = [{"alg": "SHA-256", "content": one} for one in pinned.get((name, version), ())]
    part = _component(name, version, f"pkg:pypi/{name}@{version}")
    return part | ({"hashes": hashes} if hashes else {})


def _licences_of(metadata: Message) -> Component:
    """As the core metadata of Python packages have it, newest way first."""
    if expression := metadata["License-Expression"]:
        return {"licenses": [{"expression": expression}]}
    found = [_CLASSIFIED.fullmatch(one) for one in metadata.get_all("Classifier", [])]
    return _licensed([one[1] for one in found if one] or [metadata["License"] or ""])


# --- Debian's ---------------------------------------------------------------------------


def _from_dpkg(files: Files) -> Iterator[Component]:
    system = re.search(r'^VERSION_ID="?([\w.]+)', files.get(_RELEASE, ""), re.M)
    release = system[1] if system else ""
    yield {"type": "operating-system", "bom-ref": "debian", "name": "debian", "version": release}
    listed = (text for path, text in sorted(files.items()) if _STATUS.fullmatch(path))
    for stanza in "\n\n".join(listed).split("\n\n"):
        package = HeaderParser().parsestr(stanza.lstrip("\n"))
        if package["Package"] and package.get("Status", "install ok installed").endswith(
            " installed"
        ):
            yield _debian(package, release) | _licensed(_copyright(package["Package"], files))


def _debian(package: Message, release: str) -> Component:
    name, version = package["Package"], package["Version"]
    where = f"?arch={package['Architecture']}&distro=debian-{release}"
    return _component(name, version, f"pkg:deb/debian/{name}@{version}{where}")


def _copyright(package: str, files: Files) -> list[str]:
    shared = files.get(f"{_DOCUMENTS}/{package}", package)
    text = files.get(f"{_DOCUMENTS}/{shared}/copyright", "")
    return _NAMED.findall(text) if _FORMAT.match(text) else []


def _licensed(names: list[str]) -> Component:
    wanted = sorted({name for name in names if name})
    return {"licenses": [{"license": {"name": name}} for name in wanted]} if wanted else {}


def _component(name: str, version: str, purl: str) -> Component:
    escaped = purl.replace("+", "%2B")
    return {
        "type": "library",
        "bom-ref": escaped,
        "name": name,
        "version": version,
        "purl": escaped,
    }


# --- the command ------------------------------------------------------------------------


def _files_of(image: str) -> Files:
    if Path(image).is_file():
        return image_files.read(Path(image), _WANTED)
    with tempfile.TemporaryDirectory(prefix="ebpfmesh-sbom-") as directory:
        archive = Path(directory) / "image.tar"
        subprocess.run(["docker", "save", f"--output={archive}", image], check=True)
        return image_files.read(archive, _WANTED)


def main() -> None:
    """Prints the bill."""
    images = sys.argv[1:2]
    made = bill(REQUIREMENTS.read_text(), _files_of(images[0]) if images else None)
    json.dump(made, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
