# SPDX-License-Identifier: Apache-2.0
"""Taking everything off a node: Docker's own path serves again."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import structlog

from ebpfmesh.config import Config
from ebpfmesh.datapath.attach import Role, detach
from ebpfmesh.datapath.cgroup import cgroup_root, detach_socket_programs
from ebpfmesh.datapath.discover import look_at_host, overlay_attachments, overlay_paths
from ebpfmesh.datapath.errors import AttachError
from ebpfmesh.model import Attachment

log = structlog.get_logger(__name__)


def detach_all(config: Config) -> list[str]:
    """Takes every program off, then removes the maps; returns a line for each thing done.

    The programs go first: a packet never meets one without maps.
    """
    cgroup = config.cgroup or cgroup_root(Path("/proc/self/mounts").read_text())
    done = []
    for layout in sorted(Path(config.pin_dir).glob("*")):
        if cgroup:
            detach_socket_programs(cgroup, layout)
            done.append(f"socket programs of {layout.name} detached from {cgroup}")
    for place in _places(config):
        if detach(place):
            done.append(f"{place.role} programs detached from {place.name}")
    for layout in sorted(Path(config.pin_dir).glob("*")):
        shutil.rmtree(layout)
        done.append(f"maps of layout {layout.name} removed from {layout.parent}")
    with suppress(FileNotFoundError):
        Path(config.pin_dir).rmdir()
    return done


def detach_strays(wanted: Collection[Attachment]) -> list[Attachment]:
    """Takes off what an earlier agent, with other settings, has put on the node's other links."""
    kept = {place.ifindex for place in wanted if not place.netns}
    links = (link for link in look_at_host().links if link.name != "lo" and link.index not in kept)
    places = [Attachment(role=Role.NIC, netns="", ifindex=k.index, name=k.name) for k in links]
    return [place for place in places if _detached(place)]


def _detached(place: Attachment) -> bool:
    """What cannot be taken off now is no reason not to serve."""
    try:
        return detach(place)
    except AttachError as error:
        log.warning("programs.stray", error=str(error))
        return False


def _places(config: Config) -> list[Attachment]:
    """Every link that may carry a program of ours; asked of the kernel, not remembered."""
    host = look_at_host()
    places = host.gateway_attachments()
    inner = {place.ifindex for place in places}
    places += [
        Attachment(role=Role.NIC, netns="", ifindex=link.index, name=link.name)
        for link in host.links
        if link.name != "lo" and link.index not in inner
    ]
    for path in overlay_paths(Path(config.netns_dir)):
        places += overlay_attachments(path)
    return places
