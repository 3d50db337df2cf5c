# SPDX-License-Identifier: Apache-2.0
"""Nodes with compiled programs. Without root the tests fail: skipped, they would prove nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ebpfmesh.datapath.loader import Module

from .net import NODE_A, NODE_B, NODE_C
from .node import Node
from .sandbox import ifindex, sandbox
from .world import TABLE_SIZE, be32

MakeNode = Callable[..., Node]

# bcc's interface wants bytes for names, and takes text with a warning.
_BCC_WARNING = pytest.mark.filterwarnings("ignore:not a bytes object:DeprecationWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(_BCC_WARNING)


@pytest.fixture(scope="package")
def bpffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.fail("these tests load programs into the kernel: run them as root", pytrace=False)
    root = tmp_path_factory.mktemp("bpffs")
    with sandbox(root):
        yield root


@pytest.fixture(scope="package")
def make_node(bpffs: Path) -> Iterator[MakeNode]:
    """Compiles the programs for a node, once for each set of constants."""
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
            modules[name] = Module(constants, bpffs / f"node{len(modules)}")
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


@pytest.fixture
def node_dsr(make_node: MakeNode) -> Iterator[Node]:
    """Node B, where answers go straight to the client."""
    yield from _furnished(make_node(NODE_B, RETURN_DSR=1), NODE_B, (NODE_A, NODE_C))
