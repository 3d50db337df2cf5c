# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from ebpfmesh.config import DEFAULT_FILE, FILE_VARIABLE, Setting, option, settings


class Output(StrEnum):
    """For people, or for programs."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print it.")]
SocketOption = Annotated[
    str | None,
    typer.Option(
        "--socket",
        metavar="PATH",
        help=f"The agent's socket.  [env: {settings()['socket'].variable}; "
        f"default: {settings()['socket'].default}]",
        show_default=False,
    ),
]

Given = Mapping[str, str | None]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every setting, beside what it has after its first two.

    These are the file and what was given. Values stay text here: `ebpfmesh.config` alone says
    what is allowed.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[2:]

    def wrapper(**given: Any) -> None:
        extra = {each.name: given.pop(each.name) for each in own}
        command(given.pop("config", None), given, **extra)

    config_help = f"The TOML file.  [env: {FILE_VARIABLE}; default: {DEFAULT_FILE}]"
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    parameters += [_parameter("config", "--config", config_help, "FILE")]
    parameters += [
        _parameter(name, option(name), _help(setting), _metavar(setting))
        for name, setting in settings().items()
    ]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
    wrapper.__doc__ = command.__doc__
    wrapper.__name__ = command.__name__
    return wrapper


def _parameter(name: str, flag: str, text: str, metavar: str) -> inspect.Parameter:
    kind: Any = Annotated[
        str | None, typer.Option(flag, help=text, metavar=metavar, show_default=False)
    ]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _help(setting: Setting) -> str:
    return (
        f"{setting.description}  "
        f"[{setting.allowed}; env: {setting.variable}; default: {setting.default_text or 'auto'}]"
    )


def _metavar(setting: Setting) -> str:
    return {str: "TEXT", int: "INTEGER", float: "SECONDS", bool: "BOOLEAN"}[setting.kind]
