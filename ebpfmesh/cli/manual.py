# SPDX-License-Identifier: Apache-2.0
"""What is made from the settings: their page, and a file to begin with. Pure.

python -m ebpfmesh.cli.manual > docs/configuration.md
python -m ebpfmesh.cli.manual toml > deploy/ebpfmesh.toml
"""

from __future__ import annotations

import sys
import textwrap

from ebpfmesh.config import DEFAULT_FILE, FILE_VARIABLE, Setting, option, settings

_HEAD = f"""\
# Configuration

This page is made from `ebpfmesh/config.py` by `python -m ebpfmesh.cli.manual`.

An agent needs no configuration. Each setting comes from the first of these that has it:

1. the command line: `ebpfmesh agent --max-flows 1000000`;
2. the environment: `EBPFMESH_MAX_FLOWS=1000000`;
3. the TOML file: `max_flows = 1000000`, in `{DEFAULT_FILE}` or in the file that `--config` or
   `{FILE_VARIABLE}` names;
4. the default.

A value that is not allowed, or a setting that does not exist, ends the command with one line that
says where it was set and what is allowed (exit code 2). Of the other commands `check` and `detach`
read the same settings; those that ask the agent need `socket` alone.

`maglev_size`, `mesh_vni` and `hub_port` must be the same on every node.

"""


def configuration() -> str:
    """Return the page."""
    return _HEAD + "\n".join(_section(setting) for setting in settings().values())


_FILE_HEAD = f"""\
# {DEFAULT_FILE}: the settings of ebpfmesh on this node, each with its
# default. An agent needs none of them; docs/configuration.md says more. Made by
# `python -m ebpfmesh.cli.manual toml`.
# maglev_size, mesh_vni and hub_port must be the same on every node.
"""
_WIDTH = 98


def file() -> str:
    """Return the file, in which nothing is set."""
    return _FILE_HEAD + "".join(_lines(setting) for setting in settings().values())


def _lines(setting: Setting) -> str:
    told = textwrap.wrap(f"{setting.description} Allowed: {setting.allowed}.", _WIDTH)
    default = setting.default_text if setting.kind is not str else f'"{setting.default_text}"'
    return "".join(f"# {line}\n" for line in ["", *told]).replace("# \n", "\n", 1) + (
        f"#{setting.name} = {default}\n"
    )


def _section(setting: Setting) -> str:
    default = f"`{setting.default_text}`" if setting.default_text else "auto (empty)"
    return (
        f"## `{setting.name}`\n\n"
        f"{setting.description}\n\n"
        f"- default: {default}\n"
        f"- allowed: {setting.allowed}\n"
        f"- environment: `{setting.variable}`\n"
        f"- option: `{option(setting.name)}`\n"
    )


if __name__ == "__main__":
    sys.stdout.write(file() if sys.argv[1:] == ["toml"] else configuration())
