# SPDX-License-Identifier: Apache-2.0
"""Links, addresses and program hooks of one network namespace, through netlink."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import cached_property
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ebpfmesh.datapath import dump
from ebpfmesh.datapath.dump import Link, LinkAddress
from ebpfmesh.datapath.netns import cookie_of, netlink_socket

_AF_INET, _AF_INET6 = 2, 10
_CHUNK = 1 << 16
_RTMGRP_LINK = 1
_RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x10, 0x100
_ETH_P_ALL, _ETH_P_IPV6 = 0x0003, 0x86DD
_EEXIST = errno.EEXIST
# How the kernel says that there is no such link, queueing discipline or filter.
_ABSENT = frozenset({errno.ENOENT, errno.EINVAL, errno.ENODEV})

# Our filters are told apart from others' by name.
FILTER_HANDLE = 1
FILTER_NAME = "ebpfmesh"


class Hook(IntEnum):
    """The parents of a clsact queueing discipline's filters."""

    INGRESS = 0xFFFFFFF2
    EGRESS = 0xFFFFFFF3


@dataclass(frozen=True)
class Turn:
    """When a filter has its turn at a hook: by priority, and for packets of one protocol."""

    priority: int
    protocol: int


# Early, and IPv6 before that: what becomes of it needs no second look.
FOR_ALL = Turn(7, _ETH_P_ALL)
FOR_IP6 = Turn(6, _ETH_P_IPV6)


class XdpMode(StrEnum):
    """Where XDP runs: in the driver, in the kernel's generic hook, nowhere."""

    NATIVE = "native"
    GENERIC = "generic"
    OFF = "off"


_XDP_FLAG = {XdpMode.GENERIC: 1 << 1, XdpMode.NATIVE: 1 << 2}
_XDP_ATTACHED = {"xdp": XdpMode.NATIVE, "xdpgeneric": XdpMode.GENERIC}


class Links:
    """Netlink in one namespace. Use through `links_of`."""

    def __init__(self, netns: str) -> None:
        self._netns = netns
        self._socket = netlink_socket(netns)

    @cached_property
    def _route(self) -> Any:
        """For all but lists. pyroute2 takes the descriptor over."""
        return IPRoute(fileno=netlink_socket(self._netns).detach())

    def close(self) -> None:
        """Closes what was opened."""
        self._socket.close()
        if "_route" in self.__dict__:
            self._route.close()

    def cookie(self) -> int:
        """The kernel's name for the namespace."""
        return cookie_of(self._socket)

    def links(self) -> list[Link]:
        """Every link of the namespace."""
        return dump.links(self._socket)

    def addresses(self) -> list[LinkAddress]:
        """Every IPv4 address of the namespace."""
        return dump.addresses(self._socket, _AF_INET)

    def addresses6(self) -> list[LinkAddress]:
        """Every IPv6 address of the namespace; none where it has no IPv6."""
        return dump.addresses(self._socket, _AF_INET6)

    def set_filter(self, index: int, hook: Hook, fd: int, turn: Turn = FOR_ALL) -> None:
        """Attaches a tc program, or takes the place of the one that we had there, in one step."""
        self._ensure_clsact(index)
        self._route.tc(
            "replace-filter",
            "bpf",
            index,
            handle=FILTER_HANDLE,
            parent=int(hook),
            prio=turn.priority,
            protocol=turn.protocol,
            fd=fd,
            name=FILTER_NAME,
            classid=1,
            direct_action=True,
        )

    def _ensure_clsact(self, index: int) -> None:
        try:
            self._route.tc("add", "clsact", index)
        except NetlinkError as error:
            if error.code != _EEXIST:
                raise

    def has_filter(self, index: int, hook: Hook) -> bool:
        """Whether a program of ours is attached there; no such link, or no hook, is a no."""
        try:
            return bool(self._turns(index, hook))
        except NetlinkError as error:
            if error.code not in _ABSENT:
                raise
            return False

    def remove_filters(self, index: int, hook: Hook) -> None:
        """Takes our programs off; nothing of ours there, or no such link, is a success."""
        try:
            for turn in self._turns(index, hook):
                self._route.tc(
                    "del-filter",
                    "bpf",
                    index,
                    handle=FILTER_HANDLE,
                    parent=int(hook),
                    prio=turn.priority,
                    protocol=turn.protocol,
                )
        except NetlinkError as error:
            if error.code not in _ABSENT:
                raise

    def remove_empty_clsact(self, index: int) -> None:
        """Removes the queueing discipline of the hooks, unless it has programs of others."""
        try:
            if not any(list(self._route.get_filters(index=index, parent=int(h))) for h in Hook):
                self._route.tc("del", "clsact", index)
        except NetlinkError as error:
            if error.code not in _ABSENT:
                raise

    def _turns(self, index: int, hook: Hook) -> set[Turn]:
        """Those that our filters have."""
        filters = self._route.get_filters(index=index, parent=int(hook))
        infos = (message["info"] for message in filters if _is_ours(message))
        return {Turn(info >> 16, socket.ntohs(info & 0xFFFF)) for info in infos}

    def set_xdp(self, index: int, fd: int, mode: XdpMode) -> None:
        """Attaches an XDP program in a mode; raises `OSError` if the driver has it not."""
        try:
            self._set_xdp(index, fd, _XDP_FLAG[mode])
        except NetlinkError as error:
            raise OSError(error.code, str(error)) from error

    def remove_xdp(self, index: int) -> None:
        """Takes the XDP program off, whichever mode it is in; no such link is a success."""
        mode = self.xdp_mode(index)
        if mode is XdpMode.OFF:
            return
        try:
            self._set_xdp(index, -1, _XDP_FLAG[mode])
        except NetlinkError as error:
            if error.code not in _ABSENT:
                raise

    def _set_xdp(self, index: int, fd: int, flags: int) -> None:
        nla = {"attrs": [("IFLA_XDP_FD", fd), ("IFLA_XDP_FLAGS", flags)]}
        self._route.link("set", index=index, IFLA_XDP=nla)

    def xdp_mode(self, index: int) -> XdpMode:
        """The mode of the XDP program that is attached, `OFF` if none is, or no such link."""
        attached = self._xdp(index, "IFLA_XDP_ATTACHED")
        return _XDP_ATTACHED.get(attached or "", XdpMode.OFF)

    def xdp_program(self, index: int) -> int:
        """The kernel's id of the XDP program that is attached, 0 if none is."""
        return self._xdp(index, "IFLA_XDP_PROG_ID") or 0

    def _xdp(self, index: int, attribute: str) -> Any:
        try:
            messages = list(self._route.get_links(index))
        except NetlinkError as error:
            if error.code not in _ABSENT:
                raise
            return None
        xdp = messages[0].get_attr("IFLA_XDP") if messages else None
        return xdp.get_attr(attribute) if xdp else None


def _is_ours(message: Any) -> bool:
    options = message.get_attr("TCA_OPTIONS")
    return bool(options) and options.get_attr("TCA_BPF_NAME") == FILTER_NAME


@contextmanager
def links_of(netns: str) -> Iterator[Links]:
    """Netlink in the namespace at path `netns`; the caller's own if that is empty.

    Whatever the kernel refuses is an `OSError`; `FileNotFoundError` if there is no such
    namespace (any more).
    """
    with closing(Links(netns)) as links:
        try:
            yield links
        except NetlinkError as error:
            raise OSError(error.code, str(error)) from error


async def link_changes() -> AsyncIterator[None]:
    """Yields at every change of a link or an address in the caller's namespace: "look again"."""
    loop = asyncio.get_running_loop()
    with closing(netlink_socket("")) as heard:
        heard.setblocking(False)
        heard.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
        while True:
            await loop.sock_recv(heard, _CHUNK)
            yield None
