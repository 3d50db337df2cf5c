"""Help with examples, and completion."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ebpfmesh.cli.app import app
from ebpfmesh.cli.examples import EXAMPLES
from tests.unit.fake_agent import FakeAgent, a_place, a_service, an_agent, invoke, says


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from a_place(monkeypatch)


@pytest.fixture
def agent(place: Path) -> Iterator[FakeAgent]:
    yield from an_agent(place)


def commands() -> dict[str, Any]:
    """Every command but those of the lab, by what is typed."""
    found = {}
    for name, command in vars(typer.main.get_command(app))["commands"].items():
        for sub, each in vars(command).get("commands", {"": command}).items():
            found[f"{name} {sub}".rstrip()] = each
    return {name: each for name, each in found.items() if not name.startswith("lab ")}


def test_every_command_has_examples() -> None:
    assert set(EXAMPLES) == set(commands())


@pytest.mark.parametrize("command", EXAMPLES)
def test_the_help_shows_them_as_they_are(command: str) -> None:
    code, out, _ = invoke(*command.split(), "--help")
    assert code == 0
    for example in EXAMPLES[command]:
        assert f"\n    {example}\n" in out


@pytest.mark.parametrize("command", EXAMPLES)
def test_examples_can_be_typed(command: str) -> None:
    known = commands()[command]
    for example in EXAMPLES[command]:
        words = shlex.split(example.partition(" | ")[0])
        own = ["ebpfmesh", *command.split()]
        assert words[: len(own)] == own
        known.make_context(command, words[len(own) :])


def completed(words: str) -> list[str]:
    """What a shell would offer for the last word."""
    env = {
        **os.environ,
        "_EBPFMESH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    code = "from ebpfmesh.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_a_shell_completes_commands(place: Path) -> None:
    assert completed("ebpfmesh st") == ["status"]
    assert completed("ebpfmesh service in") == ["inspect"]


def test_a_shell_completes_services(agent: FakeAgent) -> None:
    says(agent, services=(a_service("web-a", "x"), a_service("web;rm", "x"), a_service("db", "x")))
    assert completed("ebpfmesh service inspect we") == ["web-a"]
    assert completed("ebpfmesh flow ls --service d") == ["db"]


def test_without_an_agent_no_service_is_offered(place: Path) -> None:
    assert completed("ebpfmesh service inspect we") == []


def test_documented_exit_codes_are_those_of_the_code() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "operate.md").read_text()
    table = guide.partition("| exit code |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| (\d+) \|", table, re.MULTILINE)) == {"0", "1", "2", "3", "130"}
