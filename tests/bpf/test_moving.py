# SPDX-License-Identifier: Apache-2.0
"""A flow that becomes established just while it is looked for.

Another CPU puts it into the map of established ones, and takes it out of the other: between the
look into the one and the look into the other it seems to be in neither. No run can be stopped
there; so the first look of each search goes into a map that is always empty, and how often
something has moved is asked of another one at the end.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.object import Object, ProgramSpec

from .net import (
    ALICE,
    CLIENT,
    FROM_CLIENT,
    NODE_A,
    NODE_B,
    NODE_C,
    PUBLISHED,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    tcp,
)
from .node import Node
from .prog_run import Result
from .sandbox import ifindex
from .world import TABLE_SIZE, be32, remote

KINDS = ("flows", "replies", "entries")
MOVES = "flow_moves"
# In overlays the first look into each, and the second at MOVES, are those of bpf/vip_plain.h, which
# leaves the last look to others.
PLAIN = {"overlay_ingress": ("flows", "replies"), "overlay_egress": ("replies",)}
INSIDE, SERVER, TASK = f"{ALICE}:4000", f"{VIP}:80", f"{WEB_1}:80"
OUTSIDE, PORT = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}"

_SIZE, _LOAD_64, _CALL = 8, 0x18, 0x85
_LOOK_UP, _UPDATE = 1, 2  # bpf_map_lookup_elem, bpf_map_update_elem


def helper(program: ProgramSpec, offset: int) -> int:
    """The number of the one that gets the map that is loaded there."""
    code = program.code
    while code[offset] != _CALL:
        offset += 2 * _SIZE if code[offset] == _LOAD_64 else _SIZE
    return int.from_bytes(code[offset + 4 : offset + 8], "little")


def looks_up(program: ProgramSpec, offset: int) -> bool:
    """Whether the map that is loaded there is then looked into."""
    return helper(program, offset) == _LOOK_UP


class Search(NamedTuple):
    """The places in `maps` of looks for one flow."""

    first: tuple[int, ...]
    moved: int  # whether anything has
    last: int | None


def searches(program: ProgramSpec) -> Iterator[Search]:
    """Both kinds of map, and once more if something has moved."""
    names = [name if looks_up(program, offset) else "" for offset, name in program.maps]
    for kind in KINDS:
        wanted = [MOVES, kind, f"transient_{kind}", MOVES, kind]
        for n in range(len(names)):
            if names[n : n + 5] == wanted:
                yield Search((n + 1,), n + 3, n + 4)
    if program.name in PLAIN:
        first = tuple(names.index(kind) for kind in PLAIN[program.name])
        yield Search(first, names.index(MOVES, names.index(MOVES) + 1), None)


def last_looks(program: ProgramSpec) -> set[int]:
    """The places of looks whether an entry is still there, before it is put into the other map."""
    ways = (("transient_entries", "entries"), ("entries", "transient_entries"))
    return {
        n
        for n, ((at, source), (then, to)) in enumerate(pairwise(program.maps))
        if (source, to) in ways
        and (helper(program, at), helper(program, then)) == (_LOOK_UP, _UPDATE)
    }


def overtaken(made: Object) -> Object:
    """The programs; to them it looks as if another CPU had moved each entry meanwhile."""
    return blinded(made, last_looks)


def blind(made: Object, *, twice: bool) -> Object:
    """The programs, with nothing to be found at the first look; or not at the last either."""

    def places(program: ProgramSpec) -> set[int]:
        found = list(searches(program))
        at = {n for each in found for n in (*each.first, each.moved)}
        return at | {each.last for each in found if twice and each.last}

    return blinded(made, places)


def blinded(made: Object, places: Callable[[ProgramSpec], set[int]]) -> Object:
    """The programs, with maps that are always empty in these places."""

    def changed(program: ProgramSpec) -> ProgramSpec:
        at = places(program)
        maps = ((o, f"no_{name}" if n in at else name) for n, (o, name) in enumerate(program.maps))
        return replace(program, maps=tuple(maps))

    empty = [
        replace(spec, name=f"no_{spec.name}", pinned=False)
        for spec in made.maps
        if spec.name in {*KINDS, MOVES, "transient_entries"}
    ]
    programs = tuple(map(changed, made.programs))
    return replace(made, maps=(*made.maps, *empty), programs=programs)


class Nodes(NamedTuple):
    """One node, with the same maps; a packet that comes `late` meets a flow that just moves, one
    that is `overtaken` a flow that has moved since it was found.
    """

    usual: Node
    late: Node
    lost: Node
    overtaken: Node


@pytest.fixture(scope="module")
def modules(programs: Object, bpffs: Path) -> Iterator[list[Module]]:
    constants = {
        "NODE_VTEP": be32(NODE_A),
        "NIC_IFINDEX": ifindex("nic0"),
        "MAGLEV_SIZE": TABLE_SIZE,
        "MAX_FLOWS": 1024,
    }
    objects = (
        programs,
        blind(programs, twice=False),
        blind(programs, twice=True),
        overtaken(programs),
    )
    opened = [Module(each, constants, bpffs / "moving") for each in objects]
    yield opened
    for module in opened:
        module.close()


@pytest.fixture
def nodes(modules: list[Module]) -> Iterator[Nodes]:
    usual = Node(modules[0])
    usual.node(NODE_A, NODE_B, NODE_C)
    usual.addresses(NODE_A)
    others = [copy.copy(usual) for _ in modules[1:]]
    for other, module in zip(others, modules[1:], strict=True):
        other._programs = module
    yield Nodes(usual, *others)
    usual.clear()


def on_a_vip(node: Node) -> None:
    """An established connection, whose backend a new one would not get."""
    web = node.vip(VIP, VNI).backends(WEB_1)
    node.overlay_ingress(tcp(INSIDE, SERVER, "S"))
    node.overlay_egress(tcp(TASK, INSIDE, "SA"))
    node.overlay_ingress(tcp(INSIDE, SERVER, "A"))
    web.backends(WEB_2).choose(WEB_2)


def at_the_entry_node(node: Node) -> None:
    """The same."""
    web = node.port(PUBLISHED, TARGET).backends(remote(THERE))
    for flags in ("S", "A"):
        node.nic_xdp(tcp(OUTSIDE, PORT, flags, macs=FROM_CLIENT))
    web.backends(remote("10.0.0.7")).choose("10.0.0.7")


def asked(node: Node) -> Result:
    return node.overlay_ingress(tcp(INSIDE, SERVER, "PA"))


def answered(node: Node) -> Result:
    return node.overlay_egress(tcp(TASK, INSIDE, "PA"))


def entered(node: Node) -> Result:
    return node.nic_xdp(tcp(OUTSIDE, PORT, "PA", macs=FROM_CLIENT))


@pytest.mark.parametrize(
    ("begin", "run"), [(on_a_vip, asked), (on_a_vip, answered), (at_the_entry_node, entered)]
)
def test_who_looks_for_a_flow_that_moves_finds_it(
    nodes: Nodes, begin: Callable[[Node], None], run: Callable[[Node], Result]
) -> None:
    begin(nodes.usual)
    expected = run(nodes.usual)
    assert run(nodes.late) == expected
    assert run(nodes.lost) != expected, "it was found at a look that should see nothing"


@pytest.mark.parametrize(("began", "flags"), [("S", "A"), ("SA", "FA")])
def test_an_entry_that_was_moved_meanwhile_is_not_moved_again(
    nodes: Nodes, began: str, flags: str
) -> None:
    """In its place another flow may be noted by then: that one's backend would be taken over."""
    nodes.usual.port(PUBLISHED, TARGET).backends(remote(THERE))
    for each in began:
        nodes.usual.nic_xdp(tcp(OUTSIDE, PORT, each, macs=FROM_CLIENT))
    before = nodes.usual.established("entries").keys()
    packet = tcp(OUTSIDE, PORT, flags, macs=FROM_CLIENT)
    late = nodes.overtaken.nic_xdp(packet)
    assert nodes.usual.established("entries").keys() == before
    assert late == nodes.usual.nic_xdp(packet), "it has gone where it should all the same"
    assert nodes.usual.established("entries").keys() != before
