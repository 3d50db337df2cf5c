# SPDX-License-Identifier: Apache-2.0
"""A path for a VIP and for a published port that serves without agents, as IPVS's would: made by
hand, of conntrack and iptables, at the places where Docker's own is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .world import Task, World

# What Docker forwards by itself is not this: its policy is to drop.
_PORT = """
iptables --wait $1 FORWARD -m conntrack --ctstate DNAT -j ACCEPT &&
iptables --wait --table nat $1 PREROUTING -d $2 -p tcp --dport $3 -j DNAT --to-destination $4
"""
# In the load balancer's namespace of an overlay network. All goes out by the link it came in by.
_VIP = """
link=$(ip -o -4 route show default | sed 's/.* dev \\([^ ]*\\).*/\\1/')
link=${link:-$(ip -o -4 address show scope global | awk '{print $2; exit}')}
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 \
    net.ipv4.conf.$link.send_redirects=0 &&
ip address $1 $3/32 dev $link &&
iptables --wait --table nat $2 PREROUTING -d $3 -p tcp -j DNAT --to-destination $4 &&
iptables --wait --table nat $2 POSTROUTING -m conntrack --ctstate DNAT -j MASQUERADE
"""


@contextmanager
def published_port(world: World, node: str, port: int, task: Task) -> Iterator[None]:
    """From a port of a node to a task on that node, the client's address unchanged."""
    address = world.lab.run(
        node, task.place.argv(["ip", "-o", "-4", "route", "get", world.address("node2")])
    )
    words = address.stdout.split()
    gateway = words[words.index("src") + 1]

    def change(how: str) -> None:
        to = [world.address(node), str(port), f"{gateway}:80"]
        world.lab.run(node, ["sh", "-c", _PORT, "sh", how, *to])

    change("--insert")
    try:
        yield
    finally:
        change("--delete")


@contextmanager
def vip(world: World, node: str, network: str, address: str, task: Task) -> Iterator[None]:
    """From a VIP, for the containers of one node, to a task, which sees another client."""
    network_id = str(world.inspect("network", "inspect", network)["Id"])
    netns = f"/var/run/docker/netns/lb_{network_id[:9]}"

    def change(ip: str, iptables: str) -> None:
        how = [ip, iptables, address, task.addresses[network]]
        world.lab.run(node, ["nsenter", f"--net={netns}", "sh", "-c", _VIP, "sh", *how])

    change("add", "--insert")
    try:
        yield
    finally:
        change("del", "--delete")
