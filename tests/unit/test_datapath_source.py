# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path

import pytest

from ebpfmesh.datapath.source import (
    amalgamate,
    entry_points,
    layout_version,
    map_names,
    node_constants,
    pinned_maps,
    reasons,
    source_dir,
)
from ebpfmesh.primes import MAX_SIZE


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "main.c").write_text(
        '#include <linux/bpf.h>\n#include "a.h"\n#include "b.h"\nint x;\n'
    )
    (tmp_path / "a.h").write_text('#include "b.h"\nint a;\n')
    (tmp_path / "b.h").write_text("int b;\n")
    return tmp_path


def test_each_header_stands_once_before_what_uses_it(tree: Path) -> None:
    lines = [line for line in amalgamate(tree, "main.c").splitlines() if line[0] != "#"]
    assert lines == ["int b;", "int a;", "int x;"]


def test_line_marks_name_file_and_line(tree: Path) -> None:
    lines = amalgamate(tree, "main.c").splitlines()
    assert lines[lines.index("int b;") - 1] == '#line 1 "b.h"'
    assert lines[lines.index("int a;") - 1] == '#line 2 "a.h"'


def test_system_headers_are_left_to_the_compiler(tree: Path) -> None:
    assert "#include <linux/bpf.h>" in amalgamate(tree, "main.c")


def test_programs_have_no_include_left_but_the_systems() -> None:
    text = amalgamate(source_dir())
    assert '#include "' not in text


def test_layout_version_is_a_number() -> None:
    assert layout_version(source_dir()) >= 1


def test_missing_layout_version_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "types.h").write_text("struct nothing;\n")
    with pytest.raises(ValueError, match="LAYOUT_VERSION"):
        layout_version(tmp_path)


def test_reasons_count_from_one_drops_first() -> None:
    found = reasons(source_dir())
    kinds = [kind for kind, _ in found.values()]
    assert list(found) == list(range(1, len(found) + 1))
    assert kinds == sorted(kinds)
    assert ("drop", "bad_outer_source") in found.values()
    assert ("handback", "fragment") in found.values()


def test_every_map_but_none_other_is_pinned() -> None:
    names = pinned_maps(source_dir())
    assert {"frontends", "maglev", "flows", "replies", "entries", "reasons"} <= set(names)
    assert {name for name, template in names.items() if template} == {"maglev"}
    assert names["maglev"] == "maglev_template"
    assert set(map_names(source_dir())) - set(names) == {
        *("crc32c", "given_up", "next_hops", "beyond_ticks", "recent_flows", "newcomers"),
        *("tracing", "noted_reason", "lost_events", "events", "event_template"),
    }


def test_no_two_constants_have_one_placeholder() -> None:
    found = node_constants(source_dir())
    placeholders = [placeholder for placeholder, _ in found.values()]
    assert len(set(placeholders)) == len(placeholders)
    assert len(found) == (source_dir() / "config.h").read_text().count(" NODE_CONSTANT(0x")
    assert found["UNDERLAY_MTU"][1] == 1500


def test_tables_have_room_for_the_largest_size() -> None:
    text = (source_dir() / "config.h").read_text()
    assert f"#define MAGLEV_MAX {MAX_SIZE}\n" in text


def test_entry_points_are_the_programs() -> None:
    assert {"nic_xdp", "overlay_ingress", "sock_connect6"} <= set(entry_points(source_dir()))


def test_what_goes_on_is_left_by_another_exit() -> None:
    """`leave` notes its reason for the program's end: such a packet would never be told of."""
    left = [
        (path.name, verdict.strip())
        for path in source_dir().glob("*.h")
        for verdict in re.findall(r"\bleave\(\w+,([^;]*?)\)[\s;:]", path.read_text())
    ]
    assert len(left) > 80
    final = {"TC_ACT_SHOT", "TC_ACT_UNSPEC", "XDP_DROP", "int verdict"}
    assert {each for each in left if each[1] not in final} == set()
