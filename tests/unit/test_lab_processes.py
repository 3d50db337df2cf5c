from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.processes import (
    end,
    identify,
    identify_self,
    is_alive,
    last_lines,
    run,
    run_all,
    spawn,
)


def test_we_are_alive() -> None:
    assert is_alive(identify_self())


def test_a_number_given_again_is_another_process() -> None:
    earlier = msgspec.structs.replace(identify_self(), started=1)
    assert not is_alive(earlier)


def test_a_zombie_has_ended() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        process = identify(child.pid)
        assert is_alive(process)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(process)


def test_a_daemon_is_ended_and_collected(tmp_path: Path) -> None:
    process = spawn(["sleep", "60"], tmp_path / "log")
    end(process, signal.SIGTERM, timeout_s=5)
    assert not Path(f"/proc/{process.pid}").exists()
    end(process, signal.SIGTERM, timeout_s=5)
    end(None, signal.SIGTERM, timeout_s=5)


def test_one_that_does_not_end_is_told(tmp_path: Path) -> None:
    process = spawn(["sleep", "60"], tmp_path / "log")
    with pytest.raises(LabError, match="SIGCONT"):
        end(process, signal.SIGCONT, timeout_s=0.05)
    end(process, signal.SIGKILL, timeout_s=5)


def test_commands_run_side_by_side() -> None:
    assert run_all([["echo", "a"], ["echo", "b"]]) == ["a\n", "b\n"]


def test_a_failure_names_command_and_cause() -> None:
    with pytest.raises(LabError, match=r"`ls /nowhere` failed: .*No such file"):
        run(["ls", "/nowhere"])


def test_a_command_may_not_take_forever() -> None:
    with pytest.raises(LabError, match="longer than"):
        run_all([["sleep", "60"], ["sleep", "61"]], timeout_s=0.05)


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert str(log) in last_lines(log)
    log.write_text("1\n2\n3\n")
    assert last_lines(log, 2) == "2\n3"
