# SPDX-License-Identifier: Apache-2.0
"""The datapath of one node, opened: module, maps, counters, and what it was made for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ebpfmesh.config import Config
from ebpfmesh.datapath.cgroup import attach_socket_programs, cgroup_root, netns_cookie
from ebpfmesh.datapath.counters import Counters
from ebpfmesh.datapath.discover import Device
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.maps import Maps, address_to_int
from ebpfmesh.datapath.objects import load_object
from ebpfmesh.datapath.source import layout_version, source_dir
from ebpfmesh.takeover import RunSettings, served


@dataclass(frozen=True)
class Datapath:
    """The loaded programs and what belongs to them; `pin_dir` is that of this layout."""

    module: Module
    maps: Maps
    counters: Counters
    device: Device
    layout: int
    pin_dir: Path
    cgroup: str


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
    }


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 10**9)


def open_datapath(config: Config, device: Device, vtep: str, vxlan_port: int) -> Datapath:
    """Loads the programs for this node and takes over the maps that are pinned already.

    Blocks for about a second; the first time, until the programs are compiled. Raises `LoadError`.
    """
    made = load_object(object_cache(config))
    pin_dir = Path(config.pin_dir) / str(made.layout)
    module = Module(made, defines(config, device, vtep, vxlan_port), pin_dir)
    module.fill_programs()
    return Datapath(
        module=module,
        maps=Maps(module),
        counters=Counters(module),
        device=device,
        layout=made.layout,
        pin_dir=pin_dir,
        cgroup=config.cgroup or cgroup_root(Path("/proc/self/mounts").read_text()),
    )


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


def attach_sockets(datapath: Datapath) -> bool:
    """Attaches the programs for the node's own processes; False where there is no cgroup2."""
    if not datapath.cgroup:
        return False
    attach_socket_programs(datapath.module, datapath.cgroup, datapath.pin_dir)
    return True
