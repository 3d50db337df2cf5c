# SPDX-License-Identifier: Apache-2.0
"""Machines beyond the LAN: behind the client, which routes, or on a second NIC of a node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ebpfmesh.lab.lab import Lab
from ebpfmesh.lab.plan import CLIENT_ADDRESS
from ebpfmesh.lab.processes import wait_until

from .traffic import Place


class Station(NamedTuple):
    """A network of its own, with one address, and a cable to where it stands."""

    place: Place


NETWORK = "198.51.100.0/24"
ROUTER = "198.51.100.1"
ADDRESS = "198.51.100.2"
LINK = "station"
TIMEOUT_S = 60


@contextmanager
def station_at(lab: Lab, where: str) -> Iterator[Station]:
    """A station whose cable ends in `where`, as the link `LINK`."""
    with lab.popen(where, ["unshare", "--net", "sleep", "infinity"]) as process:
        try:
            place = Place(where, process.pid)
            assert wait_until(lambda: _is_apart(lab, place), TIMEOUT_S)
            _lay_cable(lab, place)
            yield Station(place)
        finally:
            process.kill()
    assert wait_until(lambda: LINK not in links(lab, where), TIMEOUT_S)


def _is_apart(lab: Lab, place: Place) -> bool:
    """Whether the process has its own network already: at first it has none but loopback."""
    return "eth0" not in links(lab, place.name, place)


def links(lab: Lab, where: str, place: Place | None = None) -> str:
    argv = ["ip", "-o", "link"]
    return lab.run(where, place.argv(argv) if place else argv).stdout


def _lay_cable(lab: Lab, place: Place) -> None:
    link, pid = LINK, str(place.pid)
    here = [
        ["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pid],
        ["ethtool", "-K", link, "tx", "off"],
        ["ip", "address", "add", f"{ROUTER}/24", "dev", link],
        ["ip", "link", "set", link, "up"],
    ]
    there = [
        ["ethtool", "-K", "eth0", "tx", "off"],
        ["ip", "link", "set", "lo", "up"],
        ["ip", "address", "add", f"{ADDRESS}/24", "dev", "eth0"],
        ["ip", "link", "set", "eth0", "up"],
        ["ip", "route", "add", "default", "via", ROUTER],
    ]
    for command in here:
        lab.run(place.name, command)
    for command in there:
        lab.run(place.name, place.argv(command))


@contextmanager
def behind_the_client(lab: Lab) -> Iterator[Station]:
    """The client routes for it; every node knows the way."""
    way = [NETWORK, "via", CLIENT_ADDRESS]
    nodes = [node.name for node in lab.nodes]
    with station_at(lab, "client") as station:
        lab.run("client", ["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        for node in nodes:
            lab.run(node, ["ip", "route", "add", *way])
        try:
            yield station
        finally:
            for node in nodes:
                lab.run(node, ["ip", "route", "del", *way])
