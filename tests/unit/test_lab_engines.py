from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.lab import engines
from tests.lab.changes.rows import short_rows
from tests.lab.engines import ENGINES, Engine, run_tests, table


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine in a directory."""
    monkeypatch.setattr(engines, "root_of", lambda *_: "/there")
    monkeypatch.setattr(engines, "version", lambda _: "28.5")
    return Engine("sid", "28.5")


def file_with(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "test_it.py"
    file.write_text(text)
    return [str(file), "-c", "/dev/null"]


def test_tests_run_with_that_engine(
    tmp_path: Path, other: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    looks = "import os\ndef test_it(): assert os.environ['EBPFMESH_LAB_ENGINE'] == '/there'\n"
    outcome = run_tests(other, file_with(tmp_path, looks), "")
    assert (outcome.passed, outcome.summary) == (True, "1 passed")
    assert "Docker Engine 28.5 (Debian sid)" in capfd.readouterr().out
    assert "| 28.5 | sid | 1 passed |" in table([outcome])


def test_a_failure_is_in_the_table(tmp_path: Path, other: Engine) -> None:
    fails = "def test_it(): assert False\ndef test_other(): pass\n"
    outcome = run_tests(other, file_with(tmp_path, fails), "")
    assert (outcome.passed, outcome.summary) == (False, "1 failed, 1 passed")


def test_another_version_than_meant_is_a_failure(
    tmp_path: Path,
    other: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(engines, "version", lambda _: "29.0")
    arguments = ["lab.engines", "--engine=sid", *file_with(tmp_path, "def test_it(): pass\n")[:1]]
    monkeypatch.setattr(sys, "argv", arguments)
    assert engines.main() == 1
    assert "Debian sid has Engine 29.0, not 28.5" in capsys.readouterr().out


def test_the_engines_are_those_that_are_documented() -> None:
    install = (Path(__file__).parents[2] / "docs" / "install.md").read_text()
    assert not [engine.version for engine in ENGINES if engine.version not in install]


def test_the_tests_are_there() -> None:
    """One that is not ends pytest before any other has run."""
    for test in engines.TESTS:
        path, _, name = test.partition("::test_change_under_load[")
        assert (engines.CHECKOUT / path).is_file(), path
        assert not name or name.removesuffix("]") in {row.name for row in short_rows()}
