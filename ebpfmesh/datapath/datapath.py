# SPDX-License-Identifier: Apache-2.0
"""The datapath of one node, opened: module, maps, counters, and what it was made for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ebpfmesh.config import Config
from ebpfmesh.datapath.cgroup import (
    HOST_PROGRAMS,
    SOCKET_PROGRAMS,
    attach_socket_programs,
    cgroup_root,
    detach_socket_programs,
    netns_cookie,
)
from ebpfmesh.datapath.counters import Counters
from ebpfmesh.datapath.discover import Device
from ebpfmesh.datapath.errors import DatapathError, LoadError
from ebpfmesh.datapath.known import coming, going, save, shapes_of, to_move
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.maps import Maps, address_to_int
from ebpfmesh.datapath.move import Move, remove
from ebpfmesh.datapath.objects import load_object
from ebpfmesh.datapath.source import layout_version, source_dir
from ebpfmesh.takeover import RunSettings, served

_CLOCK_MONOTONIC_COARSE = 6  # linux/time.h; Python has no name for it


@dataclass(frozen=True)
class Datapath:
    """The loaded programs and what belongs to them; `pin_dir` is that of this layout.

    `move` is set where the maps are new ones, to which `take_place` has to move what others hold.
    """

    module: Module
    maps: Maps
    counters: Counters
    device: Device
    layout: int
    pin_dir: Path
    cgroup: str
    move: Move | None = None


def shapes_file(config: Config) -> Path:
    """Where it is written what the pinned maps look like."""
    return Path(config.state_dir) / "maps.shapes"


def object_cache(config: Config) -> Path:
    """Where the compiled programs are kept."""
    return Path(config.object_dir or f"{config.state_dir}/objects")


def defines(config: Config, device: Device, vtep: str, vxlan_port: int) -> dict[str, int]:
    """The constants and sizes of bpf/config.h for this node."""
    return {
        "MAGLEV_SIZE": config.maglev_size,
        "MAX_FRONTENDS": config.max_frontends,
        "MAX_SERVICES": config.max_services,
        "MAX_BACKENDS": config.max_backends,
        "MAX_FLOWS": config.max_flows,
        "MESH_VNI": config.mesh_vni,
        "VXLAN_PORT": vxlan_port,
        "NODE_VTEP": address_to_int(vtep),
        "NIC_IFINDEX": device.index,
        "UNDERLAY_MTU": config.underlay_mtu or device.mtu,
        "RETURN_DSR": int(config.return_mode == "dsr"),
        "SPOOF_CHECK": int(config.spoof_check),
        "SYN_TIMEOUT_NS": _nanoseconds(config.syn_timeout_s),
        "TCP_TIMEOUT_NS": _nanoseconds(config.tcp_timeout_s),
        "UDP_TIMEOUT_NS": _nanoseconds(config.udp_timeout_s),
        "NODE_COOKIE": netns_cookie(),
        "TICK_NS": _tick_ns(),
    }


def _tick_ns() -> int:
    """How far the kernel's coarse clocks go on at once (clock_getres(2))."""
    return _nanoseconds(time.clock_getres(_CLOCK_MONOTONIC_COARSE))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 10**9)


def open_datapath(config: Config, device: Device, vtep: str, vxlan_port: int) -> Datapath:
    """Loads the programs for this node and takes over the maps that are pinned already.

    Blocks for about a second; the first time, until the programs are compiled. Raises `LoadError`.
    """
    made = load_object(object_cache(config))
    values = defines(config, device, vtep, vxlan_port)
    pin_dir = Path(config.pin_dir) / str(made.layout)
    cgroup = config.cgroup or cgroup_root(Path("/proc/self/mounts").read_text())
    _tidy(pin_dir, cgroup)
    wanted = shapes_of(made, values, pin_dir)
    old = to_move(shapes_file(config), wanted)
    module = Module(made, values, coming(pin_dir) if old else pin_dir)
    module.fill_programs()
    if not old:
        save(shapes_file(config), wanted)
    return Datapath(
        module=module,
        maps=Maps(module),
        counters=Counters(module),
        device=device,
        layout=made.layout,
        pin_dir=pin_dir,
        cgroup=cgroup,
        move=Move(old, module, wanted) if old else None,
    )


def take_place(
    datapath: Datapath, config: Config, load: Callable[[], None], attach: Callable[[], None]
) -> None:
    """Moves what the old maps hold to those of `datapath`; see `Move.run`.

    If it fails the old ones serve as before. Raises `LoadError`.
    """
    move, home = datapath.move, datapath.pin_dir
    assert move is not None
    try:
        move.run(load, attach)
    except (DatapathError, OSError) as error:
        remove(coming(home))
        raise LoadError(f"the maps in {move.old_dir} were not moved: {error}") from error
    if move.old_dir == home:
        home.rename(going(home))
    coming(home).rename(home)
    save(shapes_file(config), move.new)


def end_move(datapath: Datapath) -> None:
    """Removes the old maps, when no program of theirs is attached but those at the sockets."""
    move, home = datapath.move, datapath.pin_dir
    assert move is not None
    old = going(home) if move.old_dir == home else move.old_dir
    if datapath.cgroup:
        detach_socket_programs(datapath.cgroup, old)
    move.finish()
    move.close()
    remove(old)


def _tidy(home: Path, cgroup: str) -> None:
    """What a move has left that did not come to its end."""
    if going(home).exists():
        if not home.exists() and coming(home).exists():
            coming(home).rename(home)
        if cgroup:
            detach_socket_programs(cgroup, going(home))
    remove(coming(home))
    remove(going(home))


def open_pinned(config: Config) -> Module | None:
    """The maps of this layout, if they are pinned.

    Raises `LayoutMismatch` if they were made with other sizes.
    """
    pin_dir = Path(config.pin_dir) / str(layout_version(source_dir()))
    if not (pin_dir / "settings").exists():
        return None
    nowhere = Device("", 0, 1500)  # no program is loaded
    constants = defines(config, nowhere, "0.0.0.0", config.vxlan_port)  # noqa: S104
    return Module(load_object(object_cache(config)), constants, pin_dir)


def begin_serving(datapath: Datapath, grace_s: float) -> RunSettings:
    """Tells the programs that new flows are theirs; see `ebpfmesh.takeover`."""
    others = {path for path in datapath.pin_dir.parent.glob("*") if path != datapath.pin_dir}
    before = datapath.maps.run_settings()
    settings = served(before, time.monotonic_ns(), grace_s, relieved=bool(others))
    if settings != before:
        datapath.maps.put_run_settings(settings)
    return settings


def attach_sockets(datapath: Datapath, *, vips: bool = False) -> bool:
    """Attaches the programs for the node's own processes, and for `vips` those for containers.

    False where there is no cgroup2.
    """
    if not datapath.cgroup:
        return False
    programs = SOCKET_PROGRAMS if vips else HOST_PROGRAMS
    attach_socket_programs(datapath.module, datapath.cgroup, datapath.pin_dir, programs)
    return True
