# SPDX-License-Identifier: Apache-2.0
"""What the documents tell to type can be typed: commands with their options, targets, files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

from ebpfmesh.cli.app import app

ROOT = Path(__file__).parents[2]
# docs/commands.md is made from the commands themselves.
PAGES = sorted(
    {ROOT / "README.md", ROOT / "bench" / "README.md", *(ROOT / "docs").glob("*.md")}
    - {ROOT / "docs" / "commands.md"}
)
PLACES = ("bench", "deploy", "docs", "ebpfmesh", "scripts", "tests")
WHOLE = re.compile(r"^    .*(?:\\\n.*)*(?:\n    .*(?:\\\n.*)*)*", re.MULTILINE)
PROMPT = re.compile(r"^(?:\$ |# (?=\S)|sudo (?:-\S+ )*|[A-Z_]+=\S* )*")


def pasted(text: str) -> Iterator[str]:
    """Lines of indented blocks, without prompt and remark; a continued one is one."""
    for block in WHOLE.findall(text):
        for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
            yield from said(line)


def quoted(text: str) -> Iterator[str]:
    """What stands between backticks."""
    for line in re.findall(r"`([^`]+)`", text):
        yield from said(line.replace("\n", " "))


def said(line: str) -> Iterator[str]:
    bare = PROMPT.sub("", re.split(r"\s#\s", f"{line.strip()} # ")[0].strip())
    for part in re.split(r" (?:\||&&|;) ", bare):
        yield PROMPT.sub("", re.sub(r"^(?:\S*/bin/|alias \S+=')", "", part.strip()))


def words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # an apostrophe: no command
        return command.split()


@cache
def targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def parse(known: Any, name: str, arguments: list[str]) -> None:
    """As the command line does it, down to options of commands of commands."""
    known.make_context(name, arguments)
    inner = vars(known).get("commands")
    if inner and arguments:
        assert arguments[0] in inner, f"no such command: {name} {arguments[0]}"
        parse(inner[arguments[0]], f"{name} {arguments[0]}", arguments[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_are_there_with_their_options(page: Path) -> None:
    for command in pasted(page.read_text()):
        first, *rest = words(command) or [""]
        if first == "ebpfmesh" and rest:
            parse(typer.main.get_command(app), "ebpfmesh", rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_between_the_lines_are_there(page: Path) -> None:
    known = vars(typer.main.get_command(app))["commands"]
    for command in quoted(page.read_text()):
        first, *rest = words(command) or [""]
        if first == "ebpfmesh" and rest and rest[0].isalpha():
            assert rest[0] in known, command


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_targets_of_make_are_there(page: Path) -> None:
    text = page.read_text()
    for command in (*pasted(text), *quoted(text)):
        first, *rest = words(command) or [""]
        if first == "make":
            asked = [word for word in rest if re.fullmatch(r"[a-z-]+", word)]
            assert set(asked) <= targets(), command


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_and_modules_are_there(page: Path) -> None:
    text = page.read_text()
    for command in (*pasted(text), *quoted(text)):
        found = words(command)
        for word in found:
            if re.fullmatch(rf"(?:{'|'.join(PLACES)})/[\w./-]*\w", word):
                assert (ROOT / word).exists(), command
        if found[:2] == ["python", "-m"]:
            assert find_spec(found[2]), command
