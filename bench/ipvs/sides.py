# SPDX-License-Identifier: Apache-2.0
"""What is put between client and tasks. Each side has a network of its own, for good."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

from bench import kernel
from bench.ipvs.network import Network, path, run, run_in, write_sysctl
from bench.ipvs.plan import (
    CLIENT,
    DIRECT,
    EBPFMESH,
    EBPFMESH_HALF,
    EMPTY,
    IPTABLES,
    IPVS,
    LB,
    NFTABLES,
    PLAIN_IPVS,
    PORTS,
    SUBNET,
    TASKS,
    TCP_PORT,
    UDP_PORT,
    VIP,
    gateway_of,
)
from bench.programs.assemble import TC, empty
from ebpfmesh.datapath.attach import Attacher, XdpPolicy
from ebpfmesh.datapath.links import Hook, links_of
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.objects import load_object
from ebpfmesh.model import Attachment
from tests.bpf.net import NODE_A
from tests.bpf.world import TABLE_SIZE, Task, World, be32

_MARK = 256  # Swarm's first
_FIRST_VNI = 4097

# What libnetwork sets in the namespace of a load balancer.
_IPVS_SYSCTLS = {"conn_reuse_mode": 0, "expire_nodest_conn": 1, "expire_quiescent_template": 1}


class Sides:
    """Puts each side into its network."""

    def __init__(self, pins: Path) -> None:
        """`pins` is a directory in a bpffs."""
        self._pins = pins
        self._next_vni = _FIRST_VNI

    def put(self, side: str, network: Network) -> None:
        """Makes the network, with that side in it."""
        network.make()
        how: dict[str, Callable[[Network], None]] = {
            DIRECT: lambda _: None,
            EMPTY: _put_empty,
            EBPFMESH: partial(self._put_ebpfmesh, tasks_too=True),
            EBPFMESH_HALF: partial(self._put_ebpfmesh, tasks_too=False),
            IPTABLES: _put_iptables,
            NFTABLES: _put_nftables,
            PLAIN_IPVS: _put_plain_ipvs,
            IPVS: _put_ipvs,
        }
        how[side](network)

    def _put_ebpfmesh(self, network: Network, *, tasks_too: bool) -> None:
        """The programs that the agent attaches to every container of an overlay network.

        Those of tasks of other nodes are there, and take no time of the client's node.
        """
        vni, self._next_vni = self._next_vni, self._next_vni + 1
        world, attacher = self.world, Attacher(self.world.module, XdpPolicy.OFF)
        service = world.vip(VIP, vni)
        for task in TASKS:
            service.backends(Task(task))
            world.set_backend(service.ids[task], mac=network.mac_towards(task))
        node = path(network.node)
        indexes = _indexes(network)
        for port, address in network.containers.items():
            if address != CLIENT and not tasks_too:
                continue
            world.endpoint(address, vni, indexes[port])
            attacher.attach(Attachment("overlay", node, indexes[port], port, vni))

    @cached_property
    def world(self) -> World:
        """The maps of ebpfmesh, of all its networks."""
        with tempfile.TemporaryDirectory() as cache:
            made = load_object(Path(os.environ.get("EBPFMESH_OBJECT_DIR") or cache))
        return World(
            Module(made, {"MAGLEV_SIZE": TABLE_SIZE, "NODE_VTEP": be32(NODE_A)}, self._pins)
        )


def _indexes(network: Network) -> dict[str, int]:
    with links_of(path(network.node)) as links:
        return {link.name: link.index for link in links.links()}


def _put_empty(network: Network) -> None:
    """At the hooks of ebpfmesh, what does nothing: the price of being there."""
    program = kernel.load(TC, empty(TC), "empty")
    indexes = _indexes(network)
    with links_of(path(network.node)) as links:
        for port in network.containers:
            for hook in Hook:
                links.set_filter(indexes[port], hook, program)


def _put_iptables(network: Network) -> None:
    """Statistic random, each rule for its part of what is left."""
    for number, task in enumerate(TASKS):
        part = f"{1 / (len(TASKS) - number):.5f}"
        chance = ["-m", "statistic", "--mode", "random", "--probability", part]
        dnat = ["-j", "DNAT", "--to-destination", task]
        _iptables(network, "nat", "PREROUTING", "-d", f"{VIP}/32", *chance, *dnat)


def _put_nftables(network: Network) -> None:
    tasks = ", ".join(f"{number} : {task}" for number, task in enumerate(TASKS))
    balance = f"dnat to numgen inc mod {len(TASKS)} map {{ {tasks} }}"
    hook = "type nat hook prerouting priority dstnat"
    rule = f"ip daddr {VIP} {balance}"
    rules = f"table ip balance {{\nchain prerouting {{\n{hook}\n{rule}\n}}\n}}\n"
    run_in(network.balancer, "nft", "-f", "-", stdin=rules)


def _iptables(network: Network, table: str, chain: str, *rule: str) -> None:
    run_in(network.balancer, "iptables", "-w", "-t", table, "-A", chain, *rule)


def _ipvsadm(network: Network, services: Sequence[str]) -> None:
    """Round robin and masquerading. Port 0 of a backend is the one that was asked."""
    lines = []
    for service in services:
        port = int(service.rpartition(":")[2]) if ":" in service else 0
        lines += [f"-A {service} -s rr", *(f"-a {service} -r {task}:{port} -m" for task in TASKS)]
    run_in(network.balancer, "ipvsadm", "-R", stdin="\n".join(lines) + "\n")


def _own_vip(network: Network) -> None:
    """IPVS takes what is for the node itself."""
    if network.routed:
        run("ip", "-n", network.node, "addr", "add", f"{VIP}/32", "dev", "lo")


def _put_ipvs(network: Network) -> None:
    """As libnetwork does it for a service's VIP (moby: libnetwork/service_linux.go)."""
    run("modprobe", "ip_vs_rr")
    _own_vip(network)
    own = gateway_of(CLIENT) if network.routed else LB
    for name, value in _IPVS_SYSCTLS.items():
        write_sysctl(network.balancer, f"net/ipv4/vs/{name}", value)
    mark = ["-j", "MARK", "--set-mark", str(_MARK)]
    _iptables(network, "mangle", "INPUT", "-d", f"{VIP}/32", *mark)
    snat = ["-j", "SNAT", "--to-source", own]
    _iptables(network, "nat", "POSTROUTING", "-m", "ipvs", "--ipvs", "-d", SUBNET, *snat)
    write_sysctl(network.balancer, "net/ipv4/vs/conntrack", 1)
    _ipvsadm(network, [f"-f {_MARK}"])


def _put_plain_ipvs(network: Network) -> None:
    """The ports that are asked, each a service: no mark, no SNAT, no conntrack."""
    run("modprobe", "ip_vs_rr")
    _own_vip(network)
    datagrams = [f"-u {VIP}:{UDP_PORT + number}" for number in range(PORTS)]
    _ipvsadm(network, [f"-t {VIP}:{TCP_PORT}", *datagrams])
