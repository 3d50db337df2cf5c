# SPDX-License-Identifier: Apache-2.0
"""What a kernel is told of the maps."""

from __future__ import annotations

import ctypes

from ebpfmesh.datapath.library import lib

from .net import VIP, VNI, WEB_1
from .node import Node

# Of struct bpf_map_info (linux/bpf.h), up to btf_id.
_INFO_SIZE, _BTF_ID = 88, 64


def btf_of(node: Node, name: str) -> int:
    info, size = ctypes.create_string_buffer(_INFO_SIZE), ctypes.c_uint32(_INFO_SIZE)
    assert lib.bpf_obj_get_info(node.table(name).map_fd, info, ctypes.byref(size)) == 0
    return int.from_bytes(info.raw[_BTF_ID : _BTF_ID + 4], "little")


def test_template_is_like_the_tables_of_the_agent(node: Node) -> None:
    """Without type information: Linux 6.1 takes no table into the outer map otherwise."""
    node.vip(VIP, VNI).backends(WEB_1)
    assert [btf_of(node, name) for name in ("maglev_template", "maglev", "flows")] == [0, 0, 0]
