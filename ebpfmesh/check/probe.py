# SPDX-License-Identifier: Apache-2.0
"""Looks at the node; changes nothing and judges nothing."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ebpfmesh.check import features
from ebpfmesh.check.facts import JIT_HIDDEN, Facts, Filter, LinkFacts, Mount, SwarmFacts
from ebpfmesh.check.judge import may_try
from ebpfmesh.config import Config
from ebpfmesh.datapath.shipped import shipped
from ebpfmesh.hub.errors import HubError
from ebpfmesh.hub.tls import Certificates
from ebpfmesh.swarm import SwarmClient, SwarmError

_TIMEOUT_S = 10
_TCP_LISTEN = "0A"
_FOREIGN_BCC = "foreign"


def probe(config: Config, *, agent: bool) -> Facts:
    """Look at everything; `agent` tells whether one answers on the socket."""
    swarm = _swarm(config)
    links = _links()
    device = config.device or device_of(links or (), swarm.address)
    held = capabilities(_text("/proc/self/status"))
    able = may_try(held)
    return Facts(
        root=os.geteuid() == 0,
        capabilities=held,
        kernel=os.uname().release,
        jit=_jit(),
        mounts=mounts(_text("/proc/self/mountinfo")),
        bcc=_bcc(),
        bcc_library=_bcc_library(),
        missing_headers=_missing_headers(),
        compiled=_compiled(),
        swarm=swarm,
        links=links,
        filters=_filters(device),
        rp_filter={name: _rp_filter(name) for name in ("all", device) if name},
        ip_vs=Path("/proc/net/ip_vs").exists(),
        listening=listening(_text("/proc/net/tcp") + _text("/proc/net/tcp6")),
        agent=agent,
        refused=features.refused() if able else {},
        tc_error=features.tc_error() if able and links is not None else "",
        tcx=features.tcx_programs(device) if device else 0,
        native_xdp=features.native_xdp(device) if device else None,
        systemd=Path("/run/systemd/system").is_dir(),
        clock_kept=features.clock_is_kept(),
    )


def device_of(links: Iterable[LinkFacts], address: str) -> str:
    """Return the link that holds an address, empty if none does."""
    return next((link.name for link in links if address in link.addresses), "")


# --- files ------------------------------------------------------------------------------


def _text(path: str) -> str:
    """What a file of the kernel's says; nothing if it is not there."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _jit() -> str:
    """The kernel shows it in its first network namespace alone, as it does its other settings."""
    settings = Path("/proc/sys/net/core")
    if not (settings / "netdev_budget").exists():
        return JIT_HIDDEN
    return _text(f"{settings}/bpf_jit_enable").strip()


def capabilities(status: str) -> int:
    """Return the effective ones, from the text of ``/proc/self/status``."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def mounts(text: str) -> tuple[Mount, ...]:
    """Read the text of ``/proc/self/mountinfo``: see proc(5)."""
    halves = (line.partition(" - ") for line in text.splitlines())
    rows = ((place.split(), kind.split()) for place, _, kind in halves)
    return tuple(Mount(place[4], kind[0], private=not place[6:]) for place, kind in rows)


def listening(text: str) -> frozenset[int]:
    """Return the listening ports, from the text of ``/proc/net/tcp``."""
    rows = (line.split() for line in text.splitlines())
    return frozenset(
        int(row[1].rpartition(":")[2], 16) for row in rows if row[3:4] == [_TCP_LISTEN]
    )


def _rp_filter(name: str) -> int:
    return int(_text(f"/proc/sys/net/ipv4/conf/{name}/rp_filter") or 0)


def _bcc() -> str:
    """Where the module is, ``foreign`` if it is another project's, empty if there is none."""
    spec = find_spec("bcc")
    for place in (spec and spec.submodule_search_locations) or ():
        return place if (Path(place) / "libbcc.py").exists() else _FOREIGN_BCC
    return ""


def _bcc_library() -> bool:
    """Whether that part of bcc's library is there which every agent needs."""
    try:
        import_module("ebpfmesh.datapath.library")
    except OSError:
        return False
    return True


def _compiled() -> bool:
    """Whether the programs came compiled with the package."""
    try:
        return shipped().is_file()
    except OSError:
        return False


def _missing_headers() -> str:
    include = Path("/usr/include")
    asm = include / f"{platform.machine()}-linux-gnu" / "asm"
    for needed in (asm, include / "asm-generic", include / "linux"):
        if not needed.is_dir():
            return str(needed)
    return ""


# --- dockerd ----------------------------------------------------------------------------


def _swarm(config: Config) -> SwarmFacts:
    return asyncio.run(_ask_dockerd(config))


async def _ask_dockerd(config: Config) -> SwarmFacts:
    try:
        async with SwarmClient(f"unix://{config.docker_socket}", timeout_s=_TIMEOUT_S) as client:
            info = await client.info()
            encrypted = await client.ingress_is_encrypted()
    except SwarmError as error:
        return SwarmFacts(error=str(error))
    return SwarmFacts(
        address=info.node_addr,
        manager=info.is_manager,
        engine_version=info.engine_version,
        certificates_error=_certificates(config, info.docker_root),
        encrypted_ingress=encrypted,
    )


def _certificates(config: Config, docker_root: str) -> str:
    try:
        if config.swarm_dir:
            Certificates(Path(config.swarm_dir))
        else:
            Certificates.of_node(docker_root)
    except HubError as error:
        return str(error)
    return ""


# --- links ------------------------------------------------------------------------------


def _links() -> tuple[LinkFacts, ...] | None:
    described, addressed = _run("ip", "-j", "-d", "link"), _run("ip", "-j", "address")
    return None if described is None or addressed is None else links(described, addressed)


def links(
    described: list[dict[str, Any]], addressed: list[dict[str, Any]]
) -> tuple[LinkFacts, ...]:
    """Read what ``ip -j -d link`` and ``ip -j address`` print."""
    addresses = {
        link["ifname"]: tuple(each["local"] for each in link.get("addr_info", ()))
        for link in addressed
        if "ifname" in link
    }
    return tuple(
        LinkFacts(link["ifname"], link["mtu"], addresses.get(link["ifname"], ()), _xdp(link))
        for link in described
        if "ifname" in link
    )


def _xdp(link: Mapping[str, Any]) -> str:
    xdp = link.get("xdp")
    return str(xdp.get("prog", {}).get("name") or "unnamed") if xdp else ""


def _filters(device: str) -> tuple[Filter, ...]:
    return (
        filters(_run("tc", "-j", "filter", "show", "dev", device, "ingress") or [])
        if device
        else ()
    )


def filters(printed: list[dict[str, Any]]) -> tuple[Filter, ...]:
    """Read what ``tc -j filter show`` prints: each filter twice, once without options."""
    return tuple(
        Filter(str(each["options"].get("bpf_name", "unnamed")), int(each.get("pref", 0)))
        for each in printed
        if each.get("kind") == "bpf" and each.get("options")
    )


def _run(*argv: str) -> list[dict[str, Any]] | None:
    """What a tool prints as JSON; None if it is missing or fails."""
    try:
        done = subprocess.run(argv, capture_output=True, check=True, timeout=_TIMEOUT_S)
        printed: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return printed
