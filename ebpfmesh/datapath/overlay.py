# SPDX-License-Identifier: Apache-2.0
"""The entries by which an overlay's namespace reaches endpoints of other nodes, through netlink."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ebpfmesh.datapath import dump
from ebpfmesh.datapath.netns import netlink_socket
from ebpfmesh.ways import Found, Way

_AF_BRIDGE = 7
_PERMANENT = 0x80  # NUD_PERMANENT (linux/neighbour.h)
_LEARNED = 0x02 | 0x04  # NUD_REACHABLE, NUD_STALE
_SELF = 0x02  # NTF_SELF: the entry of the link itself, not of the bridge that it is in
_MASTER = 0x04  # NTF_MASTER: the other way round
_ABSENT = frozenset({errno.ENOENT, errno.ENODEV, errno.ESRCH})


class Overlay:
    """One namespace, for a moment. Use through `overlay_of`."""

    def __init__(self, route: Any, index: int) -> None:
        self._route = route
        self._index = index

    def found(self) -> Found:
        """What is there for good, and what the bridge has learned; not what the tunnel has."""
        neighbours = {
            entry.get_attr("NDA_DST"): entry.get_attr("NDA_LLADDR")
            for entry in self._dump(socket.AF_INET)
            if entry["state"] & _PERMANENT
        }
        forwards, learned = {}, set()
        for entry in self._dump(_AF_BRIDGE):
            mac, vtep = entry.get_attr("NDA_LLADDR"), entry.get_attr("NDA_DST")
            if entry["flags"] & _SELF and vtep and entry["state"] & _PERMANENT:
                forwards[mac] = vtep
            elif entry.get_attr("NDA_MASTER") and entry["state"] & _LEARNED:
                learned.add(mac)
        return Found(neighbours, forwards, frozenset(learned))

    def _dump(self, family: int) -> Iterator[Any]:
        for entry in self._route.neigh("dump", family=family, ifindex=self._index):
            if entry["ifindex"] == self._index:
                yield entry

    def put(self, way: Way) -> None:
        """Adds the way, or makes it whole, as libnetwork writes it."""
        self._forward("replace", way, state=_PERMANENT)
        self._neighbour("replace", way, state=_PERMANENT)

    def take(self, way: Way) -> None:
        """Removes the way; what is not there is a success."""
        for remove in (self._forward, self._neighbour):
            with _if_there():
                remove("del", way)

    def forget(self, mac: str) -> None:
        """Has the bridge forget that a MAC is behind the tunnel, if it still thinks so."""
        with _if_there():
            self._route.neigh(
                "del", family=_AF_BRIDGE, ifindex=self._index, lladdr=mac, flags=_MASTER
            )

    def _forward(self, command: str, way: Way, **more: int) -> None:
        self._route.neigh(
            command,
            family=_AF_BRIDGE,
            ifindex=self._index,
            lladdr=way.mac,
            dst=way.vtep,
            flags=_SELF,
            **more,
        )

    def _neighbour(self, command: str, way: Way, **more: int) -> None:
        mac = {"lladdr": way.mac} if more else {}
        self._route.neigh(
            command,
            family=socket.AF_INET,
            ifindex=self._index,
            dst=way.address,
            **mac,
            **more,
        )


@contextmanager
def _if_there() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code not in _ABSENT:
            raise


@contextmanager
def overlay_of(netns: str) -> Iterator[Overlay | None]:
    """The overlay in the namespace at path `netns`; None if it has no vxlan link (yet).

    Nothing is kept open: a socket would keep a namespace alive that dockerd has given up. Raises
    `OSError` for whatever the kernel refuses; `FileNotFoundError` if there is no such namespace.
    """
    with closing(netlink_socket(netns)) as asked:
        index = next((link.index for link in dump.links(asked) if link.vni), 0)
        if not index:
            yield None
            return
        try:
            with closing(IPRoute(fileno=netlink_socket(netns).detach())) as route:
                yield Overlay(route, index)
        except NetlinkError as error:
            raise OSError(error.code, str(error)) from error
