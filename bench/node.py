# SPDX-License-Identifier: Apache-2.0
"""One node's real maps and programs, in a network and a bpffs of the bench's own."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import structlog

from ebpfmesh.agent.reconcile import Reconciler
from ebpfmesh.datapath.attach import Attached, Attacher, XdpPolicy
from ebpfmesh.datapath.filler import Builder
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.maps import Maps, address_to_int
from ebpfmesh.datapath.objects import load_object
from ebpfmesh.ids import Ids
from ebpfmesh.model import Attachment
from tests.bpf.sandbox import ifindex, sandbox

_NONE: Mapping[str, str] = MappingProxyType({})


class Nowhere(Attacher):
    """Attaches nothing: the benches have no containers."""

    def attach(self, attachment: Attachment, vips: Mapping[str, str] = _NONE) -> Attached:
        """Says that it was done."""
        del vips
        return Attached(attachment)


@dataclass(frozen=True)
class BenchNode:
    """A node whose maps are empty as it begins."""

    module: Module
    reconciler: Reconciler


def need_root() -> None:
    """Ends the process unless it may load programs."""
    if os.geteuid() != 0:
        sys.exit("this bench loads programs into the kernel: run it as root")


def quiet() -> None:
    """Only warnings are logged, and not to standard output: a line per task would be measured."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@contextmanager
def bench_node(vtep: str, **defines: int) -> Iterator[BenchNode]:
    """Loads the programs and opens their maps; `defines` go beyond the defaults of config.h."""
    with bench_nodes(1, vtep, **defines) as (node,):
        yield node


@contextmanager
def bench_nodes(count: int, vtep: str, **defines: int) -> Iterator[tuple[BenchNode, ...]]:
    """Several times the same, in one network, each with maps of its own."""
    need_root()
    quiet()
    with tempfile.TemporaryDirectory(prefix="ebpfmesh-bench-") as cache:
        programs = load_object(Path(os.environ.get("EBPFMESH_OBJECT_DIR") or cache))
    with (
        tempfile.TemporaryDirectory(prefix="ebpfmesh-bench-") as root,
        sandbox(Path(root)),
        ExitStack() as opened,
    ):
        constants = {
            "NODE_VTEP": address_to_int(vtep),
            "NIC_IFINDEX": ifindex("nic0"),
            **defines,
        }
        nodes = []
        for number in range(count):
            module = Module(programs, constants, Path(root) / f"node{number}")
            opened.callback(module.close)
            module.fill_programs()
            nodes.append(BenchNode(module, reconciler_of(module)))
        yield tuple(nodes)


@cache
def _builder() -> Builder:
    return Builder()


def reconciler_of(module: Module) -> Reconciler:
    """A reconciler that fills the maps as an agent's does."""
    ids = Ids(
        max_frontends=module.table("frontend_counters").max_entries,
        max_services=module.table("pools").max_entries,
        max_backends=module.table("backends").max_entries,
    )
    return Reconciler(Maps(module), Nowhere(module, XdpPolicy.OFF), ids, build=_builder())
