# SPDX-License-Identifier: Apache-2.0
"""How the agent logs: to stderr, for people on a terminal and as JSON lines elsewhere."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.types import EventDict, Processor

from ebpfmesh.cli.text import clean


def configure(level: str, form: str) -> None:
    """Send structlog, and what libraries log through `logging`, to stderr."""
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(form),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _rendering(form: str) -> list[Processor]:
    terminal = sys.stderr.isatty()
    if form == "console" or (form == "auto" and terminal):
        # Plain: the other one shows the values of variables.
        plain = structlog.dev.plain_traceback
        return [
            structlog.processors.format_exc_info,
            _obeyed_by_no_terminal,
            structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=plain),
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _obeyed_by_no_terminal(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Names come from Docker; in JSON they are escaped anyway."""
    return {key: _cleaned(key, value) for key, value in event.items()}


def _cleaned(key: str, value: object) -> object:
    """Anything but a string is shown by its `repr`, which escapes.

    A traceback has its lines; they are set in, so that none of them looks like another event.
    """
    if not isinstance(value, str):
        return value
    if key == "exception":
        return "\n".join(f"  {clean(line)}" for line in value.splitlines())
    return clean(value)
