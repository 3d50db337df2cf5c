# SPDX-License-Identifier: Apache-2.0
"""What the facts of a node mean for ebpfmesh. Pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from ebpfmesh.check.facts import JIT_HIDDEN, Facts, Level, LinkFacts, Verdict
from ebpfmesh.config import Config

# Programs at sockets may say how they refuse since 6.1, the youngest thing that is needed.
MIN_KERNEL = (6, 1)
TUNNEL_BYTES = 50
_TCP_BYTES = 40
_DATAGRAM_BYTES = 28
_FULL_MTU = 1500
_OVERLAY_MTU = 1450

# Numbers from the kernel's linux/capability.h.
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21}
_OWN_XDP = "nic_xdp"
_OWN_FILTER = "ebpfmesh"
_OWN_PRIORITY = 7
_STRICT = 1


def judge(facts: Facts, config: Config) -> list[Verdict]:
    """Return a verdict for each thing that ebpfmesh needs or minds."""
    return [
        _privileges(facts),
        _kernel(facts),
        _jit(facts),
        *_programs(facts),
        _bpffs(facts, config),
        _cgroup(facts, config),
        *_mounts(facts),
        _bcc(facts),
        _headers(facts),
        _clock(facts),
        *_docker(facts),
        *_network(facts, config),
        _ip_vs(facts),
        *_ports(facts, config),
        _agent(facts, config),
    ]


def passed(verdicts: list[Verdict]) -> bool:
    """Tell whether the node can run it."""
    return not any(verdict.level is Level.FAILURE for verdict in verdicts)


def _ok(subject: str, text: str) -> Verdict:
    return Verdict(Level.OK, subject, text)


def _info(subject: str, text: str) -> Verdict:
    return Verdict(Level.INFO, subject, text)


def _warning(subject: str, text: str, todo: str) -> Verdict:
    return Verdict(Level.WARNING, subject, text, todo)


def _failure(subject: str, text: str, todo: str) -> Verdict:
    return Verdict(Level.FAILURE, subject, text, todo)


# --- the machine ------------------------------------------------------------------------


def _privileges(facts: Facts) -> Verdict:
    missing = [name for name, bit in _CAPABILITIES.items() if not facts.capabilities >> bit & 1]
    if not facts.root:
        return _failure("privileges", "not root", "run it as root")
    if missing:
        return _failure(
            "privileges", f"root without {', '.join(missing)}", "give the container these"
        )
    return _ok("privileges", "root, with the capabilities that are needed")


def _kernel(facts: Facts) -> Verdict:
    found = re.match(r"(\d+)\.(\d+)", facts.kernel)
    version = tuple(int(part) for part in found.groups()) if found else (0, 0)
    if version < MIN_KERNEL:
        wanted = ".".join(map(str, MIN_KERNEL))
        return _failure("kernel", facts.kernel, f"boot Linux {wanted} or newer")
    return _ok("kernel", facts.kernel)


def _jit(facts: Facts) -> Verdict:
    if facts.jit == JIT_HIDDEN:
        return _info("bpf", "whether programs are compiled cannot be seen in this namespace")
    if facts.jit == "":
        return _failure("bpf", "no BPF compiler in the kernel", "use a kernel with CONFIG_BPF_JIT")
    if facts.jit == "0":
        return _warning(
            "bpf", "programs are interpreted, which is slow", "sysctl -w net.core.bpf_jit_enable=1"
        )
    return _ok("bpf", "programs are compiled to machine code")


def may_try(capabilities: int) -> bool:
    """Whether programs can be loaded to see if the kernel takes them."""
    return all(capabilities >> bit & 1 for bit in _CAPABILITIES.values())


def _programs(facts: Facts) -> Iterator[Verdict]:
    """Where they were tried; the privileges that this needs have their own line."""
    if not may_try(facts.capabilities):
        return
    for name, error in facts.refused.items():
        yield _failure(
            "programs",
            f"the kernel does not load programs for {name}: {error}",
            "use a kernel with what docs/kernels.md lists, without lockdown of BPF",
        )
    if facts.tc_error:
        yield _failure(
            "tc",
            f"programs cannot be attached: {facts.tc_error}",
            "use a kernel with CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF, or load the modules "
            "sch_ingress and cls_bpf",
        )
    if not facts.refused and not facts.tc_error:
        yield _ok("programs", "the kernel takes those for XDP, tc and sockets")


def _bpffs(facts: Facts, config: Config) -> Verdict:
    kind, target = _file_system(facts, config.pin_dir)
    if kind != "bpf":
        return _failure(
            "bpffs",
            f"{config.pin_dir} is not in a BPF file system",
            "mount -t bpf bpf /sys/fs/bpf",
        )
    return _ok("bpffs", f"mounted on {target}")


def _file_system(facts: Facts, path: str) -> tuple[str, str]:
    """Return kind and place of the mount that holds a path: the last of the deepest."""
    wanted = PurePosixPath(path)
    holding = [m for m in facts.mounts if wanted.is_relative_to(m.target)]
    deepest = max(holding, key=lambda m: len(PurePosixPath(m.target).parts), default=None)
    same = [m for m in holding if deepest and m.target == deepest.target]
    return (same[-1].kind, same[-1].target) if same else ("", "")


def _cgroup(facts: Facts, config: Config) -> Verdict:
    roots = [mount.target for mount in facts.mounts if mount.kind == "cgroup2"]
    place = config.cgroup or next(iter(roots), "")
    if not roots:
        return _warning(
            "cgroup2",
            "not mounted: localhost:PORT on this node is not balanced",
            "mount -t cgroup2 none /sys/fs/cgroup, or boot with the unified hierarchy",
        )
    return _ok("cgroup2", f"programs at sockets go to {place}")


def _mounts(facts: Facts) -> Iterator[Verdict]:
    """systemd shares them where it starts the machine; in a container its manager has to."""
    roots = [mount for mount in facts.mounts if mount.target == "/"]
    if facts.systemd and any(mount.private for mount in roots[-1:]):
        yield _warning(
            "mounts",
            "are private: a unit with mounts of its own, as deploy/ebpfmesh.service has, sees no "
            "network and no task that comes after it",
            "mount --make-rshared / before dockerd and ebpfmesh start",
        )


def _bcc(facts: Facts) -> Verdict:
    todo = (
        "install Debian's python3-bpfcc, and make the virtual environment from the system's "
        "python3 with --system-site-packages"
    )
    if not facts.bcc_library:
        return _failure("bcc", "its library libbcc_bpf is missing", "install Debian's libbpfcc")
    if facts.compiled:
        return _ok("bcc", "its library is there; the rest is not needed")
    if facts.bcc == "":
        return _failure("bcc", "the module bcc is missing", todo)
    if facts.bcc == "foreign":
        return _failure(
            "bcc", "the module bcc is another project's", f"pip uninstall bcc, then {todo}"
        )
    return _ok("bcc", f"in {facts.bcc}")


def _headers(facts: Facts) -> Verdict:
    if facts.compiled:
        return _ok("headers", "not needed: the programs came compiled")
    if facts.missing_headers:
        return _failure(
            "headers", f"{facts.missing_headers} is missing", "install Debian's linux-libc-dev"
        )
    return _ok("headers", "the C library's copies of the kernel's headers are there")


def _clock(facts: Facts) -> Verdict:
    if facts.clock_kept is None:
        return _info("clock", "whether something keeps it right cannot be seen")
    if not facts.clock_kept:
        return _warning(
            "clock",
            "nothing keeps it right: by a wrong one certificates of the Swarm are not valid",
            "run chrony or systemd-timesyncd",
        )
    return _ok("clock", "is kept right")


# --- Docker -----------------------------------------------------------------------------


def _docker(facts: Facts) -> Iterator[Verdict]:
    swarm = facts.swarm
    if swarm.error:
        yield _failure("swarm", swarm.error, "start dockerd and join a Swarm, see above")
        return
    role = "manager, serves as a hub" if swarm.manager else "worker"
    yield _ok("swarm", f"Engine {swarm.engine_version}, {role}, address {swarm.address}")
    if swarm.encrypted_ingress:
        yield _warning(
            "ingress",
            "the ingress network is encrypted: published ports are left to Docker",
            "make it anew without --opt encrypted: docker network rm ingress, docker network "
            "create --ingress",
        )
    if swarm.certificates_error:
        yield _failure(
            "certificates", swarm.certificates_error, "set swarm_dir; with autolock, turn it off"
        )
    else:
        yield _ok("certificates", "those of the Swarm can be read")


# --- the network ------------------------------------------------------------------------


def _interfaces(links: tuple[LinkFacts, ...], config: Config) -> Iterator[Verdict]:
    """A link may come later, so a pattern that matches none is no failure."""
    for pattern in config.interfaces.split(",") if config.interfaces else ():
        if not any(fnmatchcase(link.name, pattern) for link in links):
            yield _warning(
                "interfaces",
                f"no link matches {pattern!r}: no published port answers there",
                "correct interfaces, unless that link is yet to come",
            )


def _network(facts: Facts, config: Config) -> Iterator[Verdict]:
    if facts.links is None:
        yield _warning("device", "links could not be looked at", "install iproute2")
        return
    device = _device(facts.links, config.device, facts.swarm.address)
    if device is None:
        if config.device:
            yield _failure("device", f"no link is called {config.device}", "correct device")
        elif facts.swarm.address:
            text = f"no link holds {facts.swarm.address}"
            yield _failure("device", text, "set device to the link that carries VXLAN")
        return
    yield _ok("device", f"{device.name}, MTU {device.mtu}")
    yield from _interfaces(facts.links, config)
    yield from _mtu(device, config)
    yield _xdp(facts, device, config)
    yield from _filters(facts, device)
    yield _rp_filter(facts, device)
    yield _ip6(device)


def _device(links: tuple[LinkFacts, ...], name: str, address: str) -> LinkFacts | None:
    for link in links:
        if link.name == name or (not name and address and address in link.addresses):
            return link
    return None


def _mtu(device: LinkFacts, config: Config) -> Iterator[Verdict]:
    room = config.underlay_mtu or device.mtu
    if room > device.mtu:
        yield _warning(
            "mtu",
            f"underlay_mtu is {room}, but {device.name} takes {device.mtu}",
            "set underlay_mtu to 0, or to what every link between the nodes takes",
        )
    if room < _FULL_MTU:
        yield _warning(
            "overlay mtu",
            f"overlay networks send up to {_OVERLAY_MTU} bytes, and VXLAN adds {TUNNEL_BYTES}: "
            f"more than {room}",
            f"create networks with --opt com.docker.network.driver.mtu={room - TUNNEL_BYTES}",
        )
    segment, datagram = room - TUNNEL_BYTES - _TCP_BYTES, room - TUNNEL_BYTES - _DATAGRAM_BYTES
    yield _info(
        "tunnel",
        f"published ports between nodes: TCP segments of up to {segment} bytes (clamped), "
        f"datagrams of up to {datagram}",
    )


def _xdp(facts: Facts, device: LinkFacts, config: Config) -> Verdict:
    if device.xdp == _OWN_XDP:
        return _ok("xdp", "ours is attached")
    if device.xdp and config.xdp == "off":
        return _info("xdp", f"{device.xdp} is on {device.name}; ours stays off, as set")
    if device.xdp:
        return _warning(
            "xdp",
            f"another program, {device.xdp}, is on {device.name}: tc does all the work",
            f"take it off (ip link set dev {device.name} xdp off) if it is not needed",
        )
    if facts.native_xdp is False and config.xdp == "native":
        return _failure(
            "xdp", f"the driver of {device.name} does not run XDP", "set xdp = auto, or generic"
        )
    if facts.native_xdp is False and config.xdp == "auto":
        return _info("xdp", f"the driver of {device.name} does not run it: generic XDP serves")
    runs = ", and its driver runs XDP" if facts.native_xdp else ""
    return _ok("xdp", f"{device.name} is free{runs}")


def _filters(facts: Facts, device: LinkFacts) -> Iterator[Verdict]:
    for other in facts.filters:
        if other.name.startswith(_OWN_FILTER):
            continue
        first = other.priority <= _OWN_PRIORITY
        when = "before" if first else "after"
        text = f"another program, {other.name}, is on {device.name} and runs {when} ours"
        todo = "see that it lets pass what is published" if first else ""
        yield Verdict(Level.WARNING if first else Level.INFO, "tc", text, todo)
    if facts.tcx:
        yield _warning(
            "tcx",
            f"other programs, {facts.tcx}, are on {device.name} and run before ours",
            "bpftool net names them (Cilium's?): see that they let pass what is published",
        )


def _rp_filter(facts: Facts, device: LinkFacts) -> Verdict:
    value = max(facts.rp_filter.get("all", 0), facts.rp_filter.get(device.name, 0))
    word = "strict" if value == _STRICT else "not strict"
    return _info("rp_filter", f"{word} on {device.name}: balanced packets do not meet it")


def _ip6(device: LinkFacts) -> Verdict:
    own = [a for a in device.addresses if ":" in a]
    if not own:
        return _info("ipv6", f"{device.name} has no IPv6 address: clients ask by IPv4 only")
    return _ok("ipv6", f"published ports answer on {', '.join(own)}")


def _ip_vs(facts: Facts) -> Verdict:
    if facts.ip_vs:
        return _info("ip_vs", "is there: Docker's own path serves after `ebpfmesh detach`")
    return _info("ip_vs", "is not there: without ebpfmesh, VIPs and published ports are dead")


def _ports(facts: Facts, config: Config) -> Iterator[Verdict]:
    wanted = {"metrics_port": config.metrics_port}
    if facts.swarm.manager:
        wanted["hub_port"] = config.hub_port
    for name, port in wanted.items():
        if port in facts.listening and not facts.agent:
            yield _failure(
                "ports", f"TCP port {port} is taken", f"set {name}, for hubs on every node"
            )
    yield _info(
        "firewall",
        f"between the nodes open TCP {config.hub_port} and UDP {config.vxlan_port}, "
        f"for Prometheus TCP {config.metrics_port}",
    )


def _agent(facts: Facts, config: Config) -> Verdict:
    if facts.agent:
        return _ok("agent", f"answers on {config.socket}")
    return _info("agent", f"none answers on {config.socket}")
