# SPDX-License-Identifier: Apache-2.0
"""The page of commands: ``python -m ebpfmesh.cli.manual_commands > docs/commands.md``. Pure."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import typer

from ebpfmesh.cli.app import app
from ebpfmesh.cli.examples import EXAMPLES
from ebpfmesh.config import option, settings

_HEAD = """\
# Commands

This page is made from the commands' own help by `python -m ebpfmesh.cli.manual_commands`. What they
show is explained in [operate.md](operate.md), exit codes too.

"""
_SETTINGS = "Each [setting](configuration.md) is an option as well, and `--config FILE`.\n"

Parameter = Mapping[str, Any]


def commands() -> str:
    """Return the page."""
    return _HEAD + "\n".join(_section(name, command) for name, command in _walk(_root(), ""))


def _root() -> Any:
    return typer.main.get_command(app)


def _walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, in the order of the help."""
    below: dict[str, Any] = vars(command).get("commands", {})
    if not below:
        yield name, command
    for word, each in below.items():
        yield from _walk(each, f"{name} {word}".strip())


def _section(name: str, command: Any) -> str:
    given = [vars(parameter) for parameter in command.params]
    own = [each for each in given if not _is_setting(each)]
    arguments = " ".join(_argument(each) for each in own if not _is_option(each))
    usage = " ".join(filter(None, ["ebpfmesh", name, "[OPTIONS]" if given else "", arguments]))
    parts = [f"## `ebpfmesh {name}`\n", f"    {usage}\n", f"{_text(command.help)}\n"]
    if own:
        rows = "".join(map(_row, own))
        parts.append(f"| | | default |\n| --- | --- | --- |\n{rows}")
    if len(own) < len(given):
        parts.append(_SETTINGS)
    if examples := EXAMPLES.get(name):
        parts.append("Examples:\n\n" + "".join(f"    {line}\n" for line in examples))
    return "\n".join(parts)


def _is_option(parameter: Parameter) -> bool:
    return bool(parameter["opts"][0].startswith("-"))


def _is_setting(parameter: Parameter) -> bool:
    """`--socket` is told of as an option where it is one beside others."""
    return set(parameter["opts"]) <= {"--config", *map(option, settings())} and not str(
        parameter["help"]
    ).startswith("The agent's socket.")


def _argument(parameter: Parameter) -> str:
    return str(parameter["metavar"] or parameter["name"].upper())


def _row(parameter: Parameter) -> str:
    name = ", ".join(f"`{each}`" for each in [*parameter["opts"], *parameter["secondary_opts"]])
    if not _is_option(parameter):
        name = f"`{_argument(parameter)}`"
    elif parameter["metavar"]:
        name += f" `{parameter['metavar']}`"
    return f"| {name} | {_text(parameter['help'])}{_choices(parameter)} | {_default(parameter)} |\n"


def _choices(parameter: Parameter) -> str:
    value = parameter["default"]
    if not isinstance(value, Enum):
        return ""
    return " One of " + ", ".join(f"`{each.value}`" for each in type(value)) + "."


def _default(parameter: Parameter) -> str:
    value = parameter["default"]
    if value is None or value == "" or parameter.get("is_flag") or not parameter["show_default"]:
        return ""
    return f"`{value.value if isinstance(value, Enum) else value}`"


def _text(text: str | None) -> str:
    return (text or "").replace("|", "\\|").strip()


if __name__ == "__main__":
    sys.stdout.write(commands())
