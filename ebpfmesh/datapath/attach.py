# SPDX-License-Identifier: Apache-2.0
"""Which programs belong to which place, and how they get there."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import structlog

from ebpfmesh.datapath.announce import announce
from ebpfmesh.datapath.errors import AttachError, PlaceGone
from ebpfmesh.datapath.links import FOR_IP6, Hook, Links, XdpMode, links_of
from ebpfmesh.datapath.loader import TC, XDP, Module
from ebpfmesh.datapath.progname import program_name
from ebpfmesh.model import Attachment

log = structlog.get_logger(__name__)


class Role(StrEnum):
    """What a link is to us: `NIC` leads to the other nodes, `EDGE` is any other NIC."""

    NIC = "nic"
    EDGE = "edge"
    GATEWAY = "gateway"
    OVERLAY = "overlay"


class XdpPolicy(StrEnum):
    """The setting `xdp`: `AUTO` takes the best that the driver has."""

    AUTO = "auto"
    NATIVE = "native"
    GENERIC = "generic"
    OFF = "off"


_MODES = {
    XdpPolicy.AUTO: (XdpMode.NATIVE, XdpMode.GENERIC),
    XdpPolicy.NATIVE: (XdpMode.NATIVE,),
    XdpPolicy.GENERIC: (XdpMode.GENERIC,),
    XdpPolicy.OFF: (),
}

_XDP_PROGRAM, _IP6_PROGRAM = "nic_xdp", "nic_ip6"
_GONE = frozenset({errno.ENOENT, errno.ENODEV})
_NO_VIPS: Mapping[str, str] = MappingProxyType({})

# In this order: what ingress translates, egress has to translate back.
_HOOKS = {
    Role.NIC: {Hook.INGRESS: "nic_ingress"},
    Role.EDGE: {Hook.INGRESS: "nic_ingress"},
    Role.GATEWAY: {Hook.EGRESS: "gateway_egress", Hook.INGRESS: "gateway_ingress"},
    Role.OVERLAY: {Hook.EGRESS: "overlay_egress", Hook.INGRESS: "overlay_ingress"},
}


@dataclass(frozen=True)
class Attached:
    """What was done for one attachment; `xdp` says in which mode XDP runs there."""

    attachment: Attachment
    xdp: XdpMode = XdpMode.OFF


class Attacher:
    """Attaches the programs of one module. Every step may be repeated."""

    def __init__(self, module: Module, policy: XdpPolicy) -> None:
        self._module = module
        self._policy = policy
        self.xdp_paused = False

    def attach(
        self, attachment: Attachment, vips: Mapping[str, str] = MappingProxyType({})
    ) -> Attached:
        """Puts all programs of the attachment's role in place, then announces `vips` there.

        Raises `AttachError`, and of its kind `PlaceGone` where there is nothing to attach to.
        """
        try:
            with links_of(attachment.netns) as links:
                attached = self._attach(links, attachment)
            self._announce(attachment, vips)
            return attached
        except OSError as error:
            kind = PlaceGone if error.errno in _GONE else AttachError
            place = f"{attachment.name} in {attachment.netns or 'the node'}"
            raise kind(f"{attachment.role} programs at {place}: {error}") from error

    def load(self, attachment: Attachment) -> None:
        """Loads what `attach` will put there, so that this takes no time."""
        role = Role(attachment.role)
        for name in _HOOKS[role].values():
            self._program(name, attachment.vni)
        if role in {Role.NIC, Role.EDGE}:
            self._program(_IP6_PROGRAM, attachment.vni)
        if role is Role.NIC:
            self._module.program(_XDP_PROGRAM, XDP)

    @staticmethod
    def _announce(attachment: Attachment, vips: Mapping[str, str]) -> None:
        if not vips:
            return
        try:
            announce(attachment.netns, attachment.name, vips)
        except OSError as error:
            if error.errno != errno.ENETDOWN:  # of such a link nobody has asked anything yet
                raise

    def _attach(self, links: Links, attachment: Attachment) -> Attached:
        role = Role(attachment.role)
        # XDP last: it relies on tc for what it hands on.
        for hook, name in _HOOKS[role].items():
            links.set_filter(attachment.ifindex, hook, self._program(name, attachment.vni))
        if role in {Role.NIC, Role.EDGE}:
            fd = self._program(_IP6_PROGRAM, attachment.vni)
            links.set_filter(attachment.ifindex, Hook.INGRESS, fd, FOR_IP6)
        xdp = self._attach_xdp(links, attachment.ifindex) if role is Role.NIC else XdpMode.OFF
        if role is Role.EDGE:
            _remove_own_xdp(links, attachment.ifindex)
        return Attached(attachment, xdp)

    def _program(self, name: str, vni: int) -> int:
        if vni:
            return self._module.program_for_network(name, vni)
        return self._module.program(name, TC)

    def _attach_xdp(self, links: Links, ifindex: int) -> XdpMode:
        """The best mode that the policy allows and the driver has; tc does without, if need be."""
        modes = _MODES[XdpPolicy.OFF if self.xdp_paused else self._policy]
        if _held_by_another(links, ifindex):
            log.warning("xdp.held_by_another", ifindex=ifindex, effect="tc does all of it")
            return XdpMode.OFF
        if links.xdp_mode(ifindex) not in {XdpMode.OFF, *modes[:1]}:
            links.remove_xdp(ifindex)
        fd = self._module.program(_XDP_PROGRAM, XDP)
        for mode in modes:
            try:
                links.set_xdp(ifindex, fd, mode)
            except OSError:
                if mode is modes[-1] and self._policy is not XdpPolicy.AUTO:
                    raise
                continue
            return mode
        return XdpMode.OFF


def _held_by_another(links: Links, ifindex: int) -> bool:
    """Whether a link carries an XDP program that is not ours; it stays."""
    program = links.xdp_program(ifindex)
    return bool(program) and program_name(program) != _XDP_PROGRAM


def _remove_own_xdp(links: Links, ifindex: int) -> None:
    """XDP sends on by the NIC that it is on alone: only the one to the other nodes has it."""
    if not _held_by_another(links, ifindex):
        links.remove_xdp(ifindex)


def has_programs(attachment: Attachment) -> bool:
    """Whether programs of ours are at a place; it may be gone meanwhile."""
    try:
        with links_of(attachment.netns) as links:
            hooks = _HOOKS[Role(attachment.role)]
            return any(links.has_filter(attachment.ifindex, hook) for hook in hooks)
    except OSError:
        return False


def detach(attachment: Attachment) -> bool:
    """Takes our programs off one place and says whether there were any.

    A place that is gone is a success. Raises `AttachError` for one that cannot be reached.
    """
    try:
        with links_of(attachment.netns) as links:
            hooks = [
                hook
                for hook in _HOOKS[Role(attachment.role)]
                if links.has_filter(attachment.ifindex, hook)
            ]
            if attachment.role in {Role.NIC, Role.EDGE}:
                _remove_own_xdp(links, attachment.ifindex)
            for hook in hooks:
                links.remove_filters(attachment.ifindex, hook)
            if hooks:
                links.remove_empty_clsact(attachment.ifindex)
            return bool(hooks)
    except FileNotFoundError:
        return False
    except OSError as error:
        place = f"{attachment.name} in {attachment.netns or 'the node'}"
        raise AttachError(f"{attachment.role} programs stay at {place}: {error}") from error
