# SPDX-License-Identifier: Apache-2.0
"""Loads every program, and notes what the verifier says of it. Runs in the guest."""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ebpfmesh.datapath import kernel
from ebpfmesh.datapath.cgroup import SOCKET_PROGRAMS
from ebpfmesh.datapath.errors import LoadError
from ebpfmesh.datapath.loader import CGROUP_SOCK_ADDR, TC, XDP, Module
from ebpfmesh.datapath.objects import load_object
from ebpfmesh.datapath.source import MAIN, source_dir

_ENTRY = re.compile(r"^int (\w+)\(struct (\w+) \*", re.MULTILINE)
_KINDS = {"__sk_buff": TC, "xdp_md": XDP, "bpf_sock_addr": CGROUP_SOCK_ADDR}
_OF_A_NETWORK = "overlay_"

# What a node can choose that changes code, apart from mere numbers.
VARIANTS: Mapping[str, Mapping[str, int]] = {"tunnel": {}, "dsr": {"RETURN_DSR": 1}}

_LOG_STATISTICS = 4  # BPF_LOG_STATS: the verifier's sums, without its trace
_LOG_SIZE = 1 << 16
_STATISTICS = re.compile(r"stack depth ([\d+]+).*?processed (\d+) insns", re.DOTALL)


@dataclass(frozen=True)
class Measured:
    """One program: instructions that the verifier walked, bytes of stack; or why it refused."""

    program: str
    variant: str
    instructions: int = 0
    stack: int = 0
    error: str = ""


class _LoggingModule(Module):
    """Keeps what the verifier says of the program that is loaded last."""

    log = ""

    def _load_code(self, name: str, kind: int, code: bytes, attach_type: int) -> int:
        log = ctypes.create_string_buffer(_LOG_SIZE)
        try:
            return kernel.load_program(name, kind, code, attach_type, log, _LOG_STATISTICS)
        except OSError:
            # Again without a log of ours: bcc then prints the verifier's own.
            return super()._load_code(name, kind, code, attach_type)
        finally:
            self.log = log.value.decode(errors="replace")


def _load(module: _LoggingModule, name: str, context: str) -> None:
    if name.startswith(_OF_A_NETWORK):
        module.program_for_network(name, 4097)
    else:
        module.program(name, _KINDS[context], SOCKET_PROGRAMS.get(name, 0))


def _measure(module: _LoggingModule, name: str, context: str, variant: str) -> Measured:
    try:
        _load(module, name, context)
    except LoadError as error:
        return Measured(name, variant, error=str(error))
    found = _STATISTICS.search(module.log)
    if found is None:
        return Measured(name, variant, error=f"no statistics in the log: {module.log!r}")
    stack = sum(int(part) for part in found[1].split("+"))
    return Measured(name, variant, int(found[2]), stack)


def measure() -> list[Measured]:
    """Every entry point of bpf/ebpfmesh.c, in every variant."""
    entries = _ENTRY.findall((source_dir() / MAIN).read_text())
    with tempfile.TemporaryDirectory() as cache:
        made = load_object(Path(os.environ.get("EBPFMESH_OBJECT_DIR") or cache))
    found = []
    for variant, defines in VARIANTS.items():
        with tempfile.TemporaryDirectory(dir="/sys/fs/bpf") as pins:
            module = _LoggingModule(made, defines, Path(pins) / "maps")
            found += [_measure(module, name, context, variant) for name, context in entries]
            module.close()
    return found


def main() -> None:
    """Writes them to the file that is named, as JSON; exit code 1 if a program was refused."""
    found = measure()
    Path(sys.argv[1]).write_text(json.dumps([asdict(each) for each in found]))
    sys.exit(any(each.error for each in found))


if __name__ == "__main__":
    main()
