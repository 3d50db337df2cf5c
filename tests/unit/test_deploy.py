from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from ebpfmesh import health
from ebpfmesh.config import parse, settings
from ebpfmesh.unix_http import Answer

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CAPABILITIES = {"SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SYS_NICE"}


def read(name: str) -> str:
    return (DEPLOY / name).read_text()


def test_the_image_installs_all_that_the_package_needs() -> None:
    pinned = set(re.findall(r"^([a-z0-9-]+)==\S+ \\$", read("requirements.txt"), re.MULTILINE))
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.match(r"[a-z0-9-]+", each)[0] for each in wanted} <= pinned  # type: ignore[index]


def test_every_pinned_package_has_a_hash() -> None:
    pinned = re.findall(r"^\S+==.*(?:\n    .*)*", read("requirements.txt"), re.MULTILINE)
    assert pinned
    assert not [each for each in pinned if "--hash=sha256:" not in each]


def test_the_image_sets_what_exists() -> None:
    dockerfile = read("Dockerfile")
    named = re.findall(r"(EBPFMESH_\w+)=(\S+)", dockerfile)
    assert {name for name, _ in named} <= {s.variable for s in settings().values()}
    parse("", "", dict(named), {})


def test_the_stack_binds_what_the_image_expects() -> None:
    targets = set(re.findall(r"target: (\S+)", read("stack.yml")))
    for name, path in re.findall(r"(EBPFMESH_\w+)=(/\S+)", read("Dockerfile")):
        assert any(Path(path).is_relative_to(target) for target in targets), name


def test_stack_unit_and_documents_name_the_same_capabilities() -> None:
    stack = read("stack.yml").partition("cap_add:")[2].partition("read_only:")[0]
    assert set(re.findall(r"- ([A-Z_]+)", stack)) == CAPABILITIES
    unit = re.search(r"^CapabilityBoundingSet=(.*)$", read("ebpfmesh.service"), re.MULTILINE)
    assert unit is not None
    assert {name.removeprefix("CAP_") for name in unit[1].split()} == CAPABILITIES
    documented = (ROOT / "docs" / "install.md").read_text()
    assert not [name for name in CAPABILITIES if f"`CAP_{name}`" not in documented]


@pytest.mark.parametrize(("answer", "found"), [(200, ""), (503, "not yet")])
def test_healthy_is_who_is_ready(monkeypatch: pytest.MonkeyPatch, answer: int, found: str) -> None:
    asked = []

    def get(path: Path, target: str, _timeout_s: float) -> Answer:
        asked.append((path, target))
        return Answer(answer, b"not yet\n")

    monkeypatch.setattr(health, "get", get)
    assert health.problem(Path("/there")) == found
    assert asked == [(Path("/there"), "/readyz")]


def test_who_does_not_answer_is_not_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EBPFMESH_SOCKET", str(tmp_path / "none"))
    assert health.main() == 1
    assert f"no agent answers on {tmp_path / 'none'}" in capsys.readouterr().out
