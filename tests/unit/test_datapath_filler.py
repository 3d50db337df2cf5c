# SPDX-License-Identifier: Apache-2.0
"""Whoever cannot have tables filled by the kernel builds them alone, and says so once."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Sequence

import numpy as np
import pytest
import structlog

from ebpfmesh.datapath import filler, kernel
from ebpfmesh.datapath.filler import Builder
from ebpfmesh.maglev import Table, equal_table

NAMES = ("a", "b", "c")
SIZE = 31


class Unable:
    """A kernel that takes the program, and will not run it."""

    def table(self, _names: Sequence[str], _size: int) -> Table | None:
        raise OSError(errno.ENOMEM, "no memory")


class Mistaken:
    """A kernel that runs the program, and not as it is written."""

    def table(self, _names: Sequence[str], size: int) -> Table | None:
        return np.full(size, 7, dtype=np.uint32)


class Failing:
    """A kernel that runs the program as it begins, and not later."""

    def __init__(self) -> None:
        self.left = 1

    def table(self, names: Sequence[str], size: int) -> Table | None:
        if not self.left:
            raise OSError(errno.ENOMEM, "no memory now")
        self.left -= 1
        return equal_table(names, size)


def refuse() -> None:
    raise OSError(errno.EPERM, "not permitted")


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        (refuse, "not permitted"),
        (Unable, "no memory"),
        (Mistaken, "another table"),
        (Failing, "no memory now"),
    ],
)
def test_a_table_is_built_though_the_kernel_will_not(
    monkeypatch: pytest.MonkeyPatch, found: object, cause: str
) -> None:
    monkeypatch.setattr(filler, "Filler", found)
    with structlog.testing.capture_logs() as logs:
        build = Builder()
        tables = [build(NAMES, SIZE) for _ in range(2)]
    wanted = equal_table(NAMES, SIZE)
    assert wanted is not None
    assert all(table is not None and table.tolist() == wanted.tolist() for table in tables)
    (said,) = logs
    assert said["event"] == "tables.built_slowly"
    assert cause in said["error"]


@pytest.mark.parametrize("cause", [errno.EINTR, errno.ENOMEM])
def test_a_signal_ends_a_run_and_is_no_error(monkeypatch: pytest.MonkeyPatch, cause: int) -> None:
    def run(_fd: int, _options: object) -> int:
        ctypes.set_errno(cause)
        return -cause

    monkeypatch.setattr("ebpfmesh.datapath.library.lib.bpf_prog_test_run_opts", run)
    if cause == errno.EINTR:
        kernel.run_program(0, b"", 1)
        return
    with pytest.raises(OSError, match="did not run a program"):
        kernel.run_program(0, b"", 1)
