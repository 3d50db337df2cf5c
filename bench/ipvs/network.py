# SPDX-License-Identifier: Apache-2.0
"""A client, a node and its tasks, in network namespaces of the guest. Two kinds of them.

`Router`: the node routes between client and tasks, so that whatever balances does it on the way
that packets take anyhow. `Overlay`: client and tasks are on one bridge, as containers of one node
are in an overlay network; IPVS is in a namespace of its own on that bridge, where Swarm has it.

All have one MAC address for each IP address (`docker_mac`), and know their neighbours for good:
nobody asks for them while something is measured.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.ipvs.plan import CLIENT, GATEWAY, LB, SUBNET_BITS, TASKS, VIP, gateway_of
from tests.bpf.net import docker_mac

_NAMESPACES = Path("/var/run/netns")
_TO_CLIENT = "client"


@dataclass(frozen=True)
class Network:
    """Namespaces by the names of `ip netns`. `ports` are the node's links: name -> whose."""

    name: str
    routed: bool

    @property
    def client(self) -> str:
        """Where the client is."""
        return f"{self.name}-client"

    @property
    def node(self) -> str:
        """Where the other ends of everybody's links are."""
        return f"{self.name}-node"

    @property
    def balancer(self) -> str:
        """Where IPVS, iptables or nftables has its rules."""
        return self.node if self.routed else f"{self.name}-lb"

    @property
    def tasks(self) -> list[str]:
        """Where the tasks are."""
        return [f"{self.name}-task{number}" for number in range(len(TASKS))]

    @property
    def containers(self) -> dict[str, str]:
        """The node's link to each container -> the container's address."""
        return {_TO_CLIENT: CLIENT, **{f"task{n}": task for n, task in enumerate(TASKS)}}

    def mac_towards(self, address: str) -> str:
        """Whose frames the node takes in for that address: its own, or the task's at a bridge."""
        return docker_mac(gateway_of(CLIENT) if self.routed else address)

    def make(self) -> None:
        """Makes namespaces, links, addresses, routes and neighbours."""
        names = {_TO_CLIENT: self.client}
        names |= {f"task{number}": task for number, task in enumerate(self.tasks)}
        for namespace in dict.fromkeys([self.node, self.balancer, *names.values()]):
            run("ip", "netns", "add", namespace)
            write_sysctl(namespace, "net/ipv4/ip_forward", 1)
            batch(namespace, ["link set lo up"])
        lines = _routing(self, names) if self.routed else _bridging(self, names)
        for namespace, line in lines:
            batch(namespace, [line])


Lines = Iterator[tuple[str, str]]


def path(namespace: str) -> str:
    """The file of a namespace."""
    return str(_NAMESPACES / namespace)


def run(*command: str, stdin: str = "") -> str:
    """Output of a command; its end with an error is the bench's."""
    done = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def run_in(namespace: str, *command: str, stdin: str = "") -> str:
    """The same in a namespace."""
    return run("ip", "netns", "exec", namespace, *command, stdin=stdin)


def batch(namespace: str, lines: Sequence[str]) -> None:
    """Commands of ip(8)."""
    run("ip", "-n", namespace, "-batch", "-", stdin="\n".join(lines) + "\n")


def write_sysctl(namespace: str, name: str, value: int) -> None:
    """Sets it in one namespace."""
    run_in(namespace, "sh", "-c", f"echo {value} >/proc/sys/{name}")


def _veth(network: Network, port: str, namespace: str, address: str, bits: int) -> Lines:
    """A link from the node, `port`, to a namespace, where it is eth0."""
    yield network.node, f"link add {port} type veth peer name eth0 netns {namespace}"
    yield namespace, f"link set eth0 address {docker_mac(address)} up"
    yield namespace, f"addr add {address}/{bits} dev eth0"
    yield network.node, f"link set {port} up"


def _neighbour(namespace: str, device: str, address: str, mac: str) -> tuple[str, str]:
    return namespace, f"neigh add {address} lladdr {mac} nud permanent dev {device}"


def _routing(network: Network, names: dict[str, str]) -> Lines:
    for port, address in network.containers.items():
        gateway = gateway_of(address)
        yield from _veth(network, port, names[port], address, SUBNET_BITS)
        yield network.node, f"link set {port} address {docker_mac(gateway_of(CLIENT))}"
        yield network.node, f"addr add {gateway}/{SUBNET_BITS} dev {port}"
        yield _neighbour(network.node, port, address, docker_mac(address))
        yield _neighbour(names[port], "eth0", gateway, docker_mac(gateway_of(CLIENT)))
        yield names[port], f"route add default via {gateway}"


def _bridging(network: Network, names: dict[str, str]) -> Lines:
    yield network.node, "link add br0 type bridge"
    yield network.node, f"link set br0 address {docker_mac(GATEWAY)} up"
    yield network.node, f"addr add {GATEWAY}/16 dev br0"
    ports = {**network.containers, "lb": LB}
    names = {**names, "lb": network.balancer}
    for port, address in ports.items():
        yield from _veth(network, port, names[port], address, 16)
        yield network.node, f"link set {port} master br0"
    yield network.balancer, f"addr add {VIP}/32 dev eth0"
    # Who answers for the VIP is the load balancer, in Swarm and with ebpfmesh alike.
    macs = {address: docker_mac(address) for address in ports.values()} | {VIP: docker_mac(LB)}
    for port, own in ports.items():
        for address, mac in macs.items():
            if mac != docker_mac(own):
                yield _neighbour(names[port], "eth0", address, mac)
