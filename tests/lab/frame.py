# SPDX-License-Identifier: Apache-2.0
"""What the traffic scripts share: how they are called, and how they tell what came of it.

They run as modules, with the standard library only: that works in any namespace of the lab,
whatever is installed there. What they found is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
from collections.abc import Callable, Mapping
from typing import Any

TIMEOUT_S = 10.0
CHUNK = 1 << 16
SHOWN_ERRORS = 10

Target = tuple[str, int]
Command = Callable[[argparse.Namespace], Mapping[str, Any]]


def target(text: str) -> Target:
    """Of ``192.0.2.1:80`` or ``[fd00::1]:80``."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def family(to: Target) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in to[0] else socket.AF_INET


def name_of(error: Exception) -> str:
    return type(error).__name__


def tell(found: object) -> None:
    print(json.dumps(found), flush=True)


def parser(what: str | None, commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """A command, and the targets that it is about; a script adds its own options."""
    made = argparse.ArgumentParser(description=what)
    made.add_argument("command", choices=commands)
    made.add_argument("targets", nargs="+", type=target)
    return made


def run(made: argparse.ArgumentParser, commands: Mapping[str, Command]) -> None:
    options = made.parse_args()
    tell(commands[options.command](options))


def allow_many_sockets() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def connected_udp(to: Target, timeout_s: float = TIMEOUT_S) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(timeout_s)
    made.connect(to)
    return made
