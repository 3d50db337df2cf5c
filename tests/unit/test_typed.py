# SPDX-License-Identifier: Apache-2.0
"""Several threads may be the first to read something of a type: msgspec has to know it by then."""

from __future__ import annotations

import subprocess
import sys

import pytest

# msgspec's own Python is called to learn a type, and not to read something of one that it knows.
LEARNT_LATE = """
import importlib, sys
import msgspec, msgspec._utils

def reads(kind):
    calls = []
    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename == msgspec._utils.__file__:
            calls.append(frame.f_code.co_name)
    sys.setprofile(note)
    try:
        msgspec.convert({}, kind)
    except msgspec.ValidationError:
        pass
    finally:
        sys.setprofile(None)
    return bool(calls)

class New(msgspec.Struct):
    what: "int"

module, name = sys.argv[1].split(":")
print(reads(New), reads(getattr(importlib.import_module(module), name)))
"""


@pytest.mark.parametrize(
    "kind",
    [
        "ebpfmesh.swarm.api:InfoDoc",
        "ebpfmesh.swarm.api:ContainerDoc",
        "ebpfmesh.swarm.api:ServiceDoc",
        "ebpfmesh.swarm.api:TaskDoc",
        "ebpfmesh.swarm.api:NodeDoc",
        "ebpfmesh.swarm.api:NetworkDoc",
        "ebpfmesh.swarm.events:EventDoc",
        "ebpfmesh.hub.store:Saved",
        "ebpfmesh.hub.protocol:Full",
        "ebpfmesh.hub.protocol:Report",
        "ebpfmesh.datapath.object:Object",
        "ebpfmesh.datapath.known:Shapes",
    ],
)
def test_what_threads_read_is_known_as_soon_as_its_module_is_there(kind: str) -> None:
    """A new type of the test's own shows that it would be seen."""
    command = [sys.executable, "-c", LEARNT_LATE, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
