# SPDX-License-Identifier: Apache-2.0
"""A container's control group as the sign of its end: the kernel tells when it has become empty.

For an agent that does not see the container's processes. Of cgroup v2: whoever watches the file
``cgroup.events`` is told of its changes (kernel: Documentation/admin-guide/cgroup-v2.rst).
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_EVENTS = "cgroup.events"
_EMPTY = "populated 0"
_IN_MODIFY = 0x2
_ROOM = 4096  # bytes of events that are read at once

_libc = ctypes.CDLL(None, use_errno=True)


def events_file(root: Path, container_id: str) -> Path | None:
    """That of the group whose name has the container's id in it, as with every driver."""
    for directory, names, _ in os.walk(root):
        for name in names:
            if container_id in name:
                return Path(directory, name, _EVENTS)
    return None


def watch(events: Path) -> int:
    """A descriptor that is readable when the file has changed; the caller closes it.

    Raises `OSError`.
    """
    fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    try:
        _checked(_libc.inotify_add_watch(fd, os.fsencode(events), _IN_MODIFY))
    except OSError:
        os.close(fd)
        raise
    return fd


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def drain(fd: int) -> None:
    """Take what has been told: the descriptor is readable no longer."""
    with suppress(BlockingIOError):
        while os.read(fd, _ROOM):
            pass


def is_empty(events: Path) -> bool:
    """Whether no process is in the group, or the group has gone."""
    try:
        return _EMPTY in events.read_text()
    except OSError:
        return True
