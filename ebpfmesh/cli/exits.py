# SPDX-License-Identifier: Apache-2.0
"""Exit codes, and the one line that goes with a failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from ebpfmesh.cli.client import AgentError, NoAgent
from ebpfmesh.config import ConfigError
from ebpfmesh.explanation import BadQuestion
from ebpfmesh.wording import clean

FAILED = 1
DEGRADED = 1
USAGE = 2
NO_AGENT = 3
INTERRUPTED = 130


def fail(text: object, code: int = FAILED) -> NoReturn:
    """Say why on stderr, and end."""
    typer.echo(f"ebpfmesh: {clean(str(text))}", err=True)
    raise typer.Exit(code)


@contextmanager
def errors_for_people() -> Iterator[None]:
    """Turn what is expected to go wrong into a line and an exit code."""
    try:
        yield
    except (ConfigError, BadQuestion) as error:
        fail(error, USAGE)
    except NoAgent as error:
        fail(error, NO_AGENT)
    except AgentError as error:
        fail(error)
