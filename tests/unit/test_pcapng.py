from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import RawPcapNgReader

from ebpfmesh import pcapng

NOW_NS = 1_700_000_000_123_456_789
FILE = b"".join(
    (
        pcapng.section("ebpfmesh 1"),
        pcapng.interface("eth0", "of the node: ä", 262),
        pcapng.interface("task", "as the task sees it", 262),
        pcapng.packet(0, NOW_NS, b"abcde", 1500, outbound=False),
        pcapng.packet(1, NOW_NS + 1, b"abcd", 4, outbound=True),
        pcapng.statistics(1, NOW_NS + 2, 7, 3),
    )
)


def test_it_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(FILE)
    about: Any
    about_second: Any
    with RawPcapNgReader(str(tmp_path / "file")) as reader:
        (first, about), (second, about_second) = reader._read_packet(), reader._read_packet()
    assert (first, second) == (b"abcde", b"abcd")
    assert (about.wirelen, about.ifname, about.direction) == (1500, b"eth0", 1)
    assert (about_second.wirelen, about_second.ifname, about_second.direction) == (4, b"task", 2)
    assert (about.linktype, about.tsresol) == (1, 10**9)
    assert about.tshigh << 32 | about.tslow == NOW_NS


def test_blocks_are_whole() -> None:
    found = list(pcapng.blocks(io.BytesIO(FILE).read))
    kinds = [pcapng.SECTION, *[pcapng.INTERFACE] * 2, *[pcapng.PACKET] * 2, pcapng.STATISTICS]
    assert [block.kind for block in found] == kinds
    assert b"".join(block.data for block in found) == FILE
    for block in found:
        assert len(block.data) % 4 == 0
        assert struct.unpack_from("<I", block.data, 4) == struct.unpack("<I", block.data[-4:])
    assert [block.place for block in found[-3:]] == [0, 1, 1]
    assert found[-1].dropped == 3


@pytest.mark.parametrize("missing", [1, 4, 30])
def test_a_block_that_is_cut_short_is_left_out(missing: int) -> None:
    found = list(pcapng.blocks(io.BytesIO(FILE[:-missing]).read))
    assert [block.kind for block in found][-1] == pcapng.PACKET
