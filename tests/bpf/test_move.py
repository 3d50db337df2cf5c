# SPDX-License-Identifier: Apache-2.0
"""Maps of another shape: flows go on, ids and counters stay, nothing is lost on the way."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from ebpfmesh.agent.follow import Follower
from ebpfmesh.config import Config
from ebpfmesh.datapath import datapath as opening
from ebpfmesh.datapath.attach import Attacher, Role, XdpPolicy, detach
from ebpfmesh.datapath.datapath import (
    Datapath,
    begin_serving,
    end_move,
    open_datapath,
    shapes_file,
    take_place,
)
from ebpfmesh.datapath.discover import Device
from ebpfmesh.datapath.errors import LayoutMismatch, LoadError
from ebpfmesh.datapath.object import Object
from ebpfmesh.datapath.objects import load_object
from ebpfmesh.datapath.source import source_dir
from ebpfmesh.model import Attachment
from ebpfmesh.takeover import Mode, given_back

from .net import (
    ALICE,
    CLIENT,
    NODE_A,
    NODE_B,
    PUBLISHED,
    TARGET,
    THERE,
    VIP,
    VNI,
    WEB_1,
    WEB_2,
    tcp,
)
from .node import TC_OK, TC_SHOT, XDP_TX, Node
from .sandbox import ifindex
from .world import SECOND, TABLE_SIZE, remote

pytestmark = pytest.mark.timeout(1800)  # another version is compiled, in a guest slowly

INSIDE, SERVER = f"{ALICE}:4000", f"{VIP}:80"
OUTSIDE, ENTRY = f"{CLIENT}:4000", f"{NODE_A}:{PUBLISHED}"


def _edit(file: Path, *changes: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    file.write_text(text)


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory, programs_dir: Path) -> Object:
    """A version to come: a flow has one more field in front, there is one more reason, and a number
    has become a struct.
    """
    directory = tmp_path_factory.mktemp("later") / "bpf"
    shutil.copytree(source_dir(), directory)
    _edit(
        directory / "types.h",
        ("#define LAYOUT_VERSION 2", "#define LAYOUT_VERSION 3"),
        ("struct flow {\n", "struct flow {\n\t__u64 more;\n"),
        ("sizeof(struct flow) == 48", "sizeof(struct flow) == 56"),
    )
    _edit(directory / "maps.h", ('nodes, "hash", __be32, u32', 'nodes, "hash", __be32, struct tag'))
    _edit(directory / "reasons.h", ("(X)     ", "(X)  X(first)  "))
    return load_object(programs_dir, directory)


@pytest.fixture
def config(tmp_path: Path, bpffs: Path, request: pytest.FixtureRequest) -> Config:
    return Config(
        pin_dir=str(bpffs / f"move{abs(hash(request.node.name))}"),
        state_dir=str(tmp_path),
        maglev_size=TABLE_SIZE,
        max_flows=4096,
    )


class Starts:
    """Starts of an agent, one after the other."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.opened: list[Datapath] = []

    def __call__(self, config: Config, programs: Object) -> Datapath:
        self._patch.setattr(opening, "load_object", lambda _cache: programs)
        device = Device("nic0", ifindex("nic0"), 1500)
        self.opened.append(open_datapath(config, device, NODE_A, 4789))
        return self.opened[-1]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Starts]:
    starts = Starts(monkeypatch)
    yield starts
    for datapath in starts.opened:
        datapath.module.close()


def furnished(datapath: Datapath) -> Node:
    begin_serving(datapath, 0)
    node = Node(datapath.module)
    node.node(NODE_A, NODE_B)
    node.addresses(NODE_A)
    node.vip(VIP, VNI).backends(WEB_1, WEB_2)
    node.port(PUBLISHED, TARGET).backends(remote(THERE), remote("10.0.0.99"))
    return node


def opened_flow(node: Node) -> str:
    """Alice's connection to the VIP; returns her task's address."""
    node.overlay_ingress(tcp(INSIDE, SERVER))
    (task,) = {to.partition(" > ")[2].rpartition(":")[0] for _, to in node.translations()}
    node.overlay_egress(tcp(f"{task}:80", INSIDE, "SA"))
    node.overlay_ingress(tcp(INSIDE, SERVER, "A"))
    return task


def moved(datapath: Datapath, config: Config) -> None:
    take_place(datapath, config, load=lambda: None, attach=lambda: None)
    end_move(datapath)


def open_for(node: Node) -> int:
    """What is said of the published port."""
    return int(node.table("open_ports")[PUBLISHED].value)


def reasons(node: Node, programs: Object) -> dict[str, int]:
    table = node.table("reasons")
    counts = {name: sum(table[index]) for index, (_, name) in programs.reasons.items()}
    return {name: count for name, count in counts.items() if count}


def test_a_flow_goes_on_in_the_maps_of_a_later_version(
    start: Starts, config: Config, programs: Object, later: Object
) -> None:
    old = furnished(start(config, programs))
    task = opened_flow(old)
    old.nic_xdp(tcp(OUTSIDE, ENTRY))
    entry = old.backend_of()
    old.overlay_ingress(tcp(INSIDE, f"{WEB_1}:81", "A"))
    before, counted = old.counter("frontend", 1), reasons(old, programs)
    assert counted
    datapath = start(config, later)
    with capture_logs() as logs:
        moved(datapath, config)
    new = Node(datapath.module)
    assert new.counter("frontend", 1) == before
    assert reasons(new, later) == counted
    assert new.backend_of() == entry
    assert new.maps.nodes() == {NODE_A, NODE_B}
    assert open_for(new) == open_for(old) != 0
    assert {leaf.more for leaf in new.flows().values()} == {0}
    answer = tcp(f"{task}:80", INSIDE, "A")
    assert new.overlay_egress(answer) == old.overlay_egress(answer)
    result = new.overlay_ingress(tcp(INSIDE, SERVER, "A"))
    assert result == old.overlay_ingress(tcp(INSIDE, SERVER, "A"))
    assert new.counter("frontend", 1).connections == before.connections
    assert new.counter("frontend", 1).to_backend[0] == before.to_backend[0] + 1
    assert reasons(new, later) == counted
    (line,) = [entry for entry in logs if entry["event"] == "maps.moved"]
    assert line["entries"]["flows"] == 1
    assert sorted(path.name for path in Path(config.pin_dir).iterdir()) == ["3"]
    assert start(config, later).move is None


def test_nothing_begins_while_flows_move_and_known_ones_go_on(
    start: Starts, config: Config, programs: Object
) -> None:
    """With the old programs as with the new ones: who would begin asks again a moment later."""
    old = furnished(start(config, programs))
    opened_flow(old)
    old.nic_xdp(tcp(OUTSIDE, ENTRY))
    datapath = start(config=msgspec.structs.replace(config, max_flows=8192), programs=programs)
    new, seen = Node(datapath.module), []

    def attach() -> None:
        for node in (old, new):
            known = node.overlay_ingress(tcp(INSIDE, SERVER, "A"))
            assert known.data != bytes(tcp(INSIDE, SERVER, "A"))
            assert node.nic_xdp(tcp(OUTSIDE, ENTRY, "A")).verdict == XDP_TX
            for flags in ("S", "A"):
                asked = tcp(f"{ALICE}:4001", SERVER, flags)
                assert node.overlay_ingress(asked).verdict == TC_SHOT
                entered = tcp(f"{CLIENT}:4001", ENTRY, flags)
                assert node.nic_ingress(entered).verdict == TC_SHOT
            direct = tcp(f"{ALICE}:4002", f"{WEB_1}:80")
            assert node.overlay_ingress(direct).verdict == TC_SHOT
            seen.append(node.reasons()["drop_moving"])

    take_place(datapath, config, load=lambda: None, attach=attach)
    end_move(datapath)
    assert seen == [5, 5]
    assert new.reasons()["drop_moving"] == 10
    assert len(new.flows()) == 1
    assert new.overlay_ingress(tcp(f"{ALICE}:4001", SERVER)).verdict == 0
    assert len(new.flows()) == 2


def test_a_move_that_nobody_ends_ends_by_itself(
    start: Starts, config: Config, programs: Object
) -> None:
    node = furnished(start(config, programs))
    table = node.table("settings")
    for age_s, verdict in ((1, TC_SHOT), (11, 0)):
        since = time.monotonic_ns() - age_s * SECOND
        table[0] = table.Leaf(since_ns=since, mode=int(Mode.MOVING))
        assert node.overlay_ingress(tcp(INSIDE, SERVER)).verdict == verdict
    again = start(config, programs)
    assert again.move is None
    assert begin_serving(again, 600).mode is Mode.SERVING
    assert again.maps.run_settings().takeover_until_ns == 0


def test_other_sizes_keep_flows_and_choices(
    start: Starts, config: Config, programs: Object
) -> None:
    old = furnished(start(config, programs))
    task = opened_flow(old)
    clients = [f"{ALICE}:{port}" for port in range(5000, 5050)]
    for client in clients:
        old.overlay_ingress(tcp(client, f"{VIP}:81"))
    before = dict(old.translations())
    other = msgspec.structs.replace(config, max_flows=2048, maglev_size=4093)
    datapath = start(other, programs)
    moved(datapath, other)
    new = Node(datapath.module)
    assert dict(new.translations()) == before
    assert task in before[f"{INSIDE} > {SERVER}"]
    new.forget("flows")
    for client in clients:
        new.overlay_ingress(tcp(client, f"{VIP}:81"))
    after = dict(new.translations())
    same = sum(after[key] == before[key] for key in after)
    assert same >= 0.9 * len(clients)
    assert [path.name for path in Path(config.pin_dir).iterdir()] == ["2"]


def test_giving_back_goes_on(start: Starts, config: Config, programs: Object) -> None:
    first = start(config, programs)
    furnished(first)
    first.maps.put_run_settings(given_back(first.maps.run_settings(), time.monotonic_ns()))
    datapath = start(msgspec.structs.replace(config, max_flows=2048), programs)
    moved(datapath, config)
    assert datapath.maps.run_settings().mode is Mode.GIVING_BACK


def test_a_move_that_fails_leaves_all_as_it_was(
    start: Starts, config: Config, programs: Object
) -> None:
    old = furnished(start(config, programs))
    opened_flow(old)
    datapath = start(msgspec.structs.replace(config, max_flows=2048), programs)

    def refused() -> None:
        raise OSError(12, "Cannot allocate memory")

    with pytest.raises(LoadError, match=r"were not moved: .*allocate"):
        take_place(datapath, config, load=refused, attach=lambda: None)
    assert [path.name for path in Path(config.pin_dir).iterdir()] == ["2"]
    assert old.overlay_ingress(tcp(f"{ALICE}:4001", SERVER)).verdict == 0
    assert start(config, programs).move is None


def test_what_does_not_fit_is_refused(start: Starts, config: Config, programs: Object) -> None:
    old = furnished(start(config, programs))
    for backend in range(1, 20):
        old.set_backend(backend, state=1)
    datapath = start(msgspec.structs.replace(config, max_backends=16), programs)
    with pytest.raises(LoadError, match="map backends has no room"):
        moved(datapath, config)
    assert old.overlay_ingress(tcp(INSIDE, SERVER)).verdict == 0


@pytest.mark.parametrize("damaged", [False, True], ids=["missing", "damaged"])
def test_maps_that_nobody_has_described_are_not_moved(
    start: Starts, config: Config, programs: Object, later: Object, damaged: bool
) -> None:
    furnished(start(config, programs))
    file = shapes_file(config)
    file.write_bytes(file.read_bytes()[:-1]) if damaged else file.unlink()
    with capture_logs() as logs:
        assert start(config, later).move is None
    events = [entry["event"] for entry in logs]
    assert events == (["shapes.ignored"] if damaged else []) + ["maps.not_moved"]
    file.unlink()
    with pytest.raises(LayoutMismatch):
        start(msgspec.structs.replace(config, max_flows=2048), later)


def test_maps_of_before_a_boot_are_not_taken_for_those(
    start: Starts, config: Config, programs: Object
) -> None:
    """They have the same names and other numbers."""
    start(config, programs)
    kept = shapes_file(config).read_bytes()
    shutil.rmtree(config.pin_dir)
    start(config, programs)
    shapes_file(config).write_bytes(kept)
    with pytest.raises(LayoutMismatch):
        start(msgspec.structs.replace(config, max_flows=2048), programs)


def test_what_the_old_programs_did_last_is_added(
    start: Starts, config: Config, programs: Object
) -> None:
    old = furnished(start(config, programs))
    opened_flow(old)
    before = old.counter("frontend", 1).to_backend[0]
    datapath = start(msgspec.structs.replace(config, max_flows=8192), programs)
    new, origins = Node(datapath.module), old.table("sock_origins")

    def attach() -> None:
        for node in (old, new):
            node.overlay_ingress(tcp(INSIDE, SERVER, "A"))
        origins[origins.Key(cookie=7)] = origins.Leaf(port=80)

    take_place(datapath, config, load=lambda: None, attach=attach)
    end_move(datapath)
    assert new.counter("frontend", 1).to_backend[0] == before + 2
    assert [leaf.port for leaf in new.table("sock_origins").values()] == [80]


def test_what_a_move_has_left_is_tidied_up(start: Starts, config: Config, programs: Object) -> None:
    """An agent that dies over it: before, and while the maps change names."""
    other = msgspec.structs.replace(config, max_flows=2048)
    home = Path(config.pin_dir) / str(programs.layout)
    start(config, programs)
    start(other, programs)
    assert home.with_name(f"{home.name}-new").is_dir()
    assert start(config, programs).move is None
    assert list(Path(config.pin_dir).iterdir()) == [home]
    start(other, programs)
    home.rename(home.with_name(f"{home.name}-old"))
    assert start(other, programs).module.table("flows").max_entries == 2048
    assert list(Path(config.pin_dir).iterdir()) == [home]


def programs_at(link: str) -> set[str]:
    """The filters of a link, by the names and numbers of their programs."""
    shown = [
        subprocess.run(
            ["tc", "filter", "show", "dev", link, hook], check=True, capture_output=True, text=True
        ).stdout
        for hook in ("ingress", "egress")
    ]
    return set(re.findall(r"id (\d+)", "".join(shown)))


def test_new_programs_take_the_places_of_old_ones_and_no_others(
    start: Starts, config: Config, programs: Object
) -> None:
    place, other = (
        Attachment(role=Role.OVERLAY, netns="", ifindex=ifindex(name), name=name, vni=VNI)
        for name in ("gw0", "gw1")
    )
    Attacher(start(config, programs).module, XdpPolicy.OFF).attach(place)
    try:
        before = programs_at("gw0")
        datapath = start(msgspec.structs.replace(config, max_flows=2048), programs)
        follow = Follower(Attacher(datapath.module, XdpPolicy.OFF), [place, other])
        take_place(datapath, config, follow.load, follow.attach)
        end_move(datapath)
        after = programs_at("gw0")
        assert len(before) == len(after) == 2
        assert before.isdisjoint(after)
        assert not programs_at("gw1")
    finally:
        detach(place)


def test_maps_that_an_earlier_version_had_not_begin_empty(
    start: Starts, config: Config, programs: Object
) -> None:
    earlier = msgspec.structs.replace(
        programs,
        maps=tuple(m for m in programs.maps if m.name not in {"namespaces", "sock_choices"}),
        programs=tuple(p for p in programs.programs if not p.name.startswith("vip_")),
    )
    task = opened_flow(furnished(start(config, earlier)))
    datapath = start(config, programs)
    moved(datapath, config)
    node = Node(datapath.module)
    assert node.overlay_ingress(tcp(INSIDE, SERVER, "A")).verdict == TC_OK
    assert [to for _, to in node.translations()] == [f"{INSIDE} > {task}:80"]
    assert list(node.table("sock_choices")) == []
