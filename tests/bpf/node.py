# SPDX-License-Identifier: Apache-2.0
"""A node under test: its maps, and its programs, each run on one packet."""

from __future__ import annotations

import difflib

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ebpfmesh.datapath.loader import TC, XDP, Module

from .net import HERE, HERE_GATEWAY, HERE_TOO, HERE_TOO_GATEWAY, VNI
from .prog_run import Flood, Result, SkbContext, XdpContext, run_filters, run_skb, run_xdp
from .sandbox import ifindex
from .world import Task, World

XDP_DROP, XDP_PASS, XDP_TX = 1, 2, 3
TC_UNSPEC, TC_OK, TC_SHOT, TC_REDIRECT = -1, 0, 2, 7


class Node(World):
    """Runs are named for the place that the program is attached to."""

    def __init__(self, module: Module) -> None:
        super().__init__(module)
        self._programs = self.module = module
        module.fill_programs()

    def here(self) -> Task:
        """A task of this node."""
        return Task(HERE, gateway=HERE_GATEWAY, ifindex=ifindex("gw0"))

    def here_too(self) -> Task:
        return Task(HERE_TOO, gateway=HERE_TOO_GATEWAY, ifindex=ifindex("gw1"))

    def nic_xdp(self, packet: Packet | bytes, device: str = "nic0") -> Result:
        return run_xdp(self._programs.program("nic_xdp", XDP), bytes(packet), ifindex(device))

    def nic_ingress(
        self,
        packet: Packet | bytes,
        gso_segs: int = 0,
        gso_size: int = 0,
        device: str = "nic0",
        mark: int = 0,
    ) -> Result:
        fd = self._programs.program("nic_ingress", TC)
        return run_skb(fd, bytes(packet), ifindex(device), gso_segs, gso_size, mark)

    def nic_ip6(self, packet: Packet | bytes, mark: int = 0) -> Result:
        fd = self._programs.program("nic_ip6", TC)
        return run_skb(fd, bytes(packet), ifindex("nic0"), mark=mark)

    def nic_filters(self, packet: Packet | bytes) -> Result:
        """All that tc does at the NIC, in its order."""
        fds = [self._programs.program(name, TC) for name in ("nic_ip6", "nic_ingress")]
        return run_filters(fds, bytes(packet), ifindex("nic0"))

    def gateway_ingress(self, packet: Packet | bytes, device: str = "gw0", mark: int = 0) -> Result:
        fd = self._programs.program("gateway_ingress", TC)
        return run_skb(fd, bytes(packet), ifindex(device), mark=mark)

    def gateway_egress(self, packet: Packet | bytes, device: str = "gw0") -> Result:
        fd = self._programs.program("gateway_egress", TC)
        return run_skb(fd, bytes(packet), ifindex(device))

    def overlay_ingress(
        self,
        packet: Packet | bytes,
        vni: int = VNI,
        device: str = "gw0",
        gso_segs: int = 0,
        gso_size: int = 0,
    ) -> Result:
        fd = self._programs.program_for_network("overlay_ingress", vni)
        return run_skb(fd, bytes(packet), ifindex(device), gso_segs, gso_size)

    def overlay_egress(self, packet: Packet | bytes, vni: int = VNI, mark: int = 0) -> Result:
        fd = self._programs.program_for_network("overlay_egress", vni)
        return run_skb(fd, bytes(packet), ifindex("gw0"), mark=mark)

    def overlay_flood(self, packet: Packet, vni: int = VNI) -> Flood:
        fd = self._programs.program_for_network("overlay_ingress", vni)
        return Flood(fd, bytes(packet), SkbContext(ifindex=ifindex("gw0")))

    def nic_flood(self, packet: Packet) -> Flood:
        fd = self._programs.program("nic_ingress", TC)
        return Flood(fd, bytes(packet), SkbContext(ifindex=ifindex("nic0")))

    def xdp_flood(self, packet: Packet) -> Flood:
        data = bytes(packet)
        context = XdpContext(data_end=len(data), ingress_ifindex=ifindex("nic0"))
        return Flood(self._programs.program("nic_xdp", XDP), data, context)


def _shown(data: bytes) -> list[str]:
    """A packet as text, field by field, with its bytes."""
    return [*str(Ether(data).show(dump=True)).splitlines(), data.hex(" ")]


def source_port(result: Result) -> int:
    """Of the packet that has come out."""
    return int(Ether(result.data)[IP].payload.sport)


def assert_result(result: Result, verdict: int, packet: Packet | bytes) -> None:
    """The verdict, and every byte."""
    if (result.verdict, result.data) == (verdict, bytes(packet)):
        return
    expected = [f"verdict {verdict}", *_shown(bytes(packet))]
    actual = [f"verdict {result.verdict}", *_shown(result.data)]
    diff = difflib.unified_diff(expected, actual, "expected", "actual", lineterm="", n=1)
    pytest.fail("\n".join(diff), pytrace=True)
