# SPDX-License-Identifier: Apache-2.0
"""Which program runs on which packet, and what has to have happened before."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from bench import swarm
from bench.programs.assemble import TC, XDP, Vary
from bench.programs.world import CLIENT as CONTAINER
from bench.programs.world import NETWORK, Furnished
from ebpfmesh.desired import mac_of
from tests.bpf.net import CLIENT, FROM_CLIENT, NODE_A, NODE_A_MAC, NODE_B, NODE_B_MAC, tcp, wrapped
from tests.bpf.node import TC_OK, TC_REDIRECT, XDP_PASS, XDP_TX
from tests.bpf.prog_run import run_skb, run_xdp
from tests.bpf.sandbox import ifindex

SOURCE, SPORT, DPORT = 26, 34, 36  # offsets in an Ethernet frame with an IPv4 header of 20 bytes
DESTINATION = 30
WRAP = 50
_PAYLOAD = b"x" * 18  # a UDP or TCP message of a few bytes
_BRIDGE_MAC = "02:42:00:00:00:01"
_TUNNELLED = (NODE_B_MAC, NODE_A_MAC)

Step = Callable[[int], None]


@dataclass(frozen=True)
class Case:
    """One program and its packet; flow number n differs from others by the fields that vary.

    `verdict` is what it must say. `known`: `open_flow` has to be called for each flow before.
    `restorable`: a restorer can put the packet right again.
    """

    name: str
    kind: int
    fd: int
    device: str
    packet: bytes
    verdict: int
    open_flow: Step | None = None
    vary: tuple[Vary, ...] = ()
    restorable: bool = True
    at_most: tuple[tuple[int, float], ...] = ()  # flows, nanoseconds above empty

    @property
    def known(self) -> bool:
        """Whether the packet is of a flow that is open already."""
        return self.open_flow is not None

    def packets(self, first: int, count: int) -> list[bytes]:
        """The packets of flows `first` and up."""
        return [numbered(self.packet, self.vary, number) for number in range(first, first + count)]


def numbered(packet: bytes, vary: tuple[Vary, ...], number: int) -> bytes:
    """The packet of another flow."""
    out = bytearray(packet)
    for field in vary:
        struct.pack_into("!H", out, field.offset, field.low + number % field.count)
        number //= field.count
    return bytes(out)


class Cases:
    """All cases, for a node that is furnished."""

    def __init__(self, node: Furnished) -> None:
        self._node = node
        self._module = node.module

    def all(self) -> list[Case]:
        """In the order of a packet's way."""
        return [
            self._vip_hit(),
            self._vip_answer(),
            self._vip_new(),
            self._entry_hit(),
            self._entry_new(),
            self._unwrap(),
            self._deliver_hit(),
            self._deliver_new(),
            self._tunnel_hit(),
            self._task_answer(),
            self._task_answer_wrapped(),
            self._return(),
        ]

    # --- the programs -------------------------------------------------------------------

    def _overlay(self, name: str) -> int:
        return self._module.program_for_network(name, swarm.vni(NETWORK))

    def _tc(self, fd: int, device: str, packet: bytes) -> bytes:
        """The packet after a run that lets it pass."""
        result = run_skb(fd, packet, ifindex(device))
        assert result.verdict in {TC_OK, TC_REDIRECT}, f"verdict {result.verdict}"
        return result.data

    # --- VIPs ---------------------------------------------------------------------------

    def _ask_vip(self, flags: str) -> bytes:
        payload = b"" if flags == "S" else _PAYLOAD
        frame = tcp(f"{CONTAINER}:1024", f"{self._node.vip}:1024", flags, payload=payload)
        return bytes(frame)

    def _open_vip(self, number: int) -> None:
        """Question, answer, question."""
        ports = (Vary(SPORT),)
        out = self._overlay("overlay_ingress")
        asked = self._tc(out, "gw0", numbered(self._ask_vip("S"), ports, number))
        back = numbered(self._answer(asked), (Vary(DPORT),), number)
        self._tc(self._overlay("overlay_egress"), "gw0", back)
        self._tc(out, "gw0", numbered(self._ask_vip("A"), ports, number))

    def _answer(self, asked: bytes) -> bytes:
        """What the backend answers to what it got."""
        backend = ".".join(map(str, asked[DESTINATION : DESTINATION + 4]))
        macs = (mac_of(backend), mac_of(CONTAINER))
        return bytes(tcp(f"{backend}:1024", f"{CONTAINER}:1024", "SA", macs=macs))

    def _vip_hit(self) -> Case:
        fd = self._overlay("overlay_ingress")
        vary, step = (Vary(SPORT),), self._open_vip
        packet = self._ask_vip("A")
        return Case("VIP, known flow", TC, fd, "gw0", packet, TC_OK, step, vary)

    def _vip_answer(self) -> Case:
        """Of one flow: another may have another backend."""
        fd = self._overlay("overlay_egress")
        self._open_vip(0)  # wholly: a SYN that comes again unanswered would get another one
        asked = self._tc(self._overlay("overlay_ingress"), "gw0", self._ask_vip("A"))
        packet = self._answer(asked)
        return Case("VIP, answer", TC, fd, "gw0", packet, TC_OK, self._open_vip)

    def _vip_new(self) -> Case:
        """Other ports than those of the known flows."""
        fd = self._overlay("overlay_ingress")
        vary = (Vary(SPORT), Vary(DPORT, 2000, 60_000))
        return Case("VIP, new flow", TC, fd, "gw0", self._ask_vip("S"), TC_OK, None, vary)

    # --- published ports ----------------------------------------------------------------

    def _ask_port(self, flags: str, port: int) -> bytes:
        payload = b"" if flags == "S" else _PAYLOAD
        to = f"{NODE_A}:{port}"
        return bytes(tcp(f"{CLIENT}:1024", to, flags, macs=FROM_CLIENT, payload=payload))

    def _open_entry(self, number: int) -> None:
        fd = self._module.program("nic_xdp", XDP)
        for flags in ("S", "A"):
            packet = numbered(self._ask_port(flags, self._node.port), (Vary(SPORT),), number)
            assert run_xdp(fd, packet, ifindex("nic0")).verdict == XDP_TX

    def _entry_hit(self) -> Case:
        fd = self._module.program("nic_xdp", XDP)
        packet = self._ask_port("A", self._node.port)
        return Case(
            "mesh entry, known flow",
            XDP,
            fd,
            "nic0",
            packet,
            XDP_TX,
            self._open_entry,
            (Vary(SPORT),),
            at_most=((1, 120.0), (5000, 230.0)),
        )

    def _entry_new(self) -> Case:
        """Of clients whose address ends otherwise."""
        fd = self._module.program("nic_xdp", XDP)
        packet = self._ask_port("S", self._node.port)
        vary = (Vary(SPORT), Vary(SOURCE + 2, 4096))
        return Case("mesh entry, new flow", XDP, fd, "nic0", packet, XDP_TX, None, vary)

    def _wrapped(self, flags: str) -> bytes:
        payload = b"" if flags == "S" else _PAYLOAD
        to = f"{NODE_B}:{self._node.local_port}"
        inside = tcp(f"{CLIENT}:1024", to, flags, macs=_TUNNELLED, payload=payload)
        inner = (NODE_B, self._node.local_task)
        return bytes(wrapped(inside, (NODE_B, NODE_A), inner, 0xC123, _TUNNELLED))

    def _unwrap(self) -> Case:
        fd = self._module.program("nic_xdp", XDP)
        vary = (Vary(WRAP + SPORT),)
        return Case("decapsulation", XDP, fd, "nic0", self._wrapped("A"), XDP_PASS, None, vary)

    def _open_local(self, number: int) -> None:
        nic = self._module.program("nic_ingress", TC)
        ask = [self._ask_port(flags, self._node.local_port) for flags in ("S", "A")]
        self._tc(nic, "nic0", numbered(ask[0], (Vary(SPORT),), number))
        self._tc(
            self._module.program("gateway_ingress", TC),
            "gw0",
            numbered(self._from_task("SA"), (Vary(DPORT),), number),
        )
        self._tc(nic, "nic0", numbered(ask[1], (Vary(SPORT),), number))

    def _deliver_hit(self) -> Case:
        fd = self._module.program("nic_ingress", TC)
        packet = self._ask_port("A", self._node.local_port)
        step, vary = self._open_local, (Vary(SPORT),)
        return Case("delivery, known flow", TC, fd, "nic0", packet, TC_REDIRECT, step, vary)

    def _deliver_new(self) -> Case:
        fd = self._module.program("nic_ingress", TC)
        packet = self._ask_port("S", self._node.local_port)
        vary = (Vary(SPORT), Vary(SOURCE + 2, 4096))
        return Case("delivery, new flow", TC, fd, "nic0", packet, TC_REDIRECT, None, vary)

    def _open_tunnelled(self, number: int) -> None:
        nic = self._module.program("nic_ingress", TC)
        vary = (Vary(WRAP + SPORT),)
        self._tc(nic, "nic0", numbered(self._wrapped("S"), vary, number))
        back = numbered(self._from_task("SA"), (Vary(DPORT),), number)
        self._tc(self._module.program("gateway_ingress", TC), "gw0", back)
        self._tc(nic, "nic0", numbered(self._wrapped("A"), vary, number))

    def _tunnel_hit(self) -> Case:
        return Case(
            "decapsulation and delivery in tc",
            TC,
            self._module.program("nic_ingress", TC),
            "nic0",
            self._wrapped("A"),
            TC_REDIRECT,
            self._open_tunnelled,
            (Vary(WRAP + SPORT),),
            restorable=False,
        )

    # --- answers ------------------------------------------------------------------------

    def _from_task(self, flags: str) -> bytes:
        task = self._node.gateway
        macs = (mac_of(task), _BRIDGE_MAC)
        port = swarm.TARGET_PORT
        payload = b"" if flags == "SA" else _PAYLOAD
        return bytes(tcp(f"{task}:{port}", f"{CLIENT}:1024", flags, macs=macs, payload=payload))

    def _task_answer(self) -> Case:
        """The client asked this node."""
        fd = self._module.program("gateway_ingress", TC)
        packet, vary = self._from_task("A"), (Vary(DPORT),)
        return Case(
            "return, client of this node",
            TC,
            fd,
            "gw0",
            packet,
            TC_REDIRECT,
            self._open_local,
            vary,
        )

    def _task_answer_wrapped(self) -> Case:
        """The client asked node B."""
        return Case(
            "return, through the entry node",
            TC,
            self._module.program("gateway_ingress", TC),
            "gw0",
            self._from_task("A"),
            TC_REDIRECT,
            self._open_tunnelled,
            (Vary(DPORT),),
            restorable=False,
        )

    def _return(self) -> Case:
        """At the entry node: out to the client."""
        macs = _TUNNELLED
        inside = tcp(f"{NODE_A}:{self._node.port}", f"{CLIENT}:1024", "A", macs=macs)
        frame = wrapped(inside, (NODE_B, NODE_A), (NODE_B, NODE_A), 0xC123, macs)
        fd = self._module.program("nic_xdp", XDP)
        vary = (Vary(WRAP + DPORT),)
        return Case("return, at the entry node", XDP, fd, "nic0", bytes(frame), XDP_TX, None, vary)
