# SPDX-License-Identifier: Apache-2.0
"""Nodes with compiled programs. Without root the tests fail: skipped, they would prove nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ebpfmesh.datapath.cgroup import netns_cookie
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.object import Object
from ebpfmesh.datapath.objects import load_object

from .net import NODE_A, NODE_B, NODE_C
from .node import Node
from .sandbox import ifindex, sandbox
from .sockets import Processes, node_processes
from .world import TABLE_SIZE, be32

MakeNode = Callable[..., Node]


@pytest.fixture(scope="package", autouse=True)
def bpffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Whichever test is a worker's first: none sees this machine's own network."""
    if os.geteuid() != 0:
        pytest.fail("these tests load programs into the kernel: run them as root", pytrace=False)
    root = tmp_path_factory.mktemp("bpffs")
    with sandbox(root):
        yield root


@pytest.fixture(scope="session")
def programs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the compiled programs are kept: for all tests, or for longer if the caller says so."""
    given = os.environ.get("EBPFMESH_OBJECT_DIR")
    if given:
        return Path(given)
    root = tmp_path_factory.getbasetemp()
    # Workers share what the first of them compiles.
    return (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "objects"


@pytest.fixture(scope="session")
def programs(programs_dir: Path) -> Object:
    """Compiled once, for every node."""
    return load_object(programs_dir)


@pytest.fixture(scope="package")
def make_node(programs: Object, bpffs: Path) -> Iterator[MakeNode]:
    """Loads the programs for a node, once for each set of constants."""
    modules: dict[tuple[tuple[str, int], ...], Module] = {}

    def make(vtep: str = NODE_A, **defines: int) -> Node:
        constants = {
            "NODE_VTEP": be32(vtep),
            "NIC_IFINDEX": ifindex("nic0"),
            "MAGLEV_SIZE": TABLE_SIZE,
            "MAX_FLOWS": 8192,
            **defines,
        }
        name = tuple(sorted(constants.items()))
        if name not in modules:
            modules[name] = Module(programs, constants, bpffs / f"node{len(modules)}")
        return Node(modules[name])

    yield make
    for module in modules.values():
        module.close()


def _furnished(node: Node, own: str, others: tuple[str, ...]) -> Iterator[Node]:
    node.node(own, *others)
    node.addresses(own)
    yield node
    node.clear()


@pytest.fixture
def node(make_node: MakeNode) -> Iterator[Node]:
    """Node A, which knows of nodes B and C."""
    yield from _furnished(make_node(NODE_A), NODE_A, (NODE_B, NODE_C))


@pytest.fixture
def node_b(make_node: MakeNode) -> Iterator[Node]:
    yield from _furnished(make_node(NODE_B), NODE_B, (NODE_A, NODE_C))


@pytest.fixture(scope="module")
def sock_pins(request: pytest.FixtureRequest, bpffs: Path) -> Path:
    return bpffs / Path(request.path).stem


@pytest.fixture(scope="module")
def sock_constants(bpffs: Path) -> dict[str, int]:
    """As for other tests, but for the network namespace, which the programs compare."""
    return {
        "NODE_VTEP": be32(NODE_A),
        "NIC_IFINDEX": ifindex("nic0"),
        "MAGLEV_SIZE": TABLE_SIZE,
        "MAX_FLOWS": 1024,
        "NODE_COOKIE": netns_cookie(),
    }


@pytest.fixture(scope="module")
def sock_module(
    programs: Object, sock_pins: Path, sock_constants: dict[str, int]
) -> Iterator[Module]:
    opened = Module(programs, sock_constants, sock_pins)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def processes(sock_module: Module, sock_pins: Path) -> Iterator[Processes]:
    """Where programs of the node itself run, with the programs at their sockets."""
    with node_processes(sock_module, sock_pins) as running:
        yield running


@pytest.fixture
def node_dsr(make_node: MakeNode) -> Iterator[Node]:
    """Node B, where answers go straight to the client."""
    yield from _furnished(make_node(NODE_B, RETURN_DSR=1), NODE_B, (NODE_A, NODE_C))
