# SPDX-License-Identifier: Apache-2.0
"""What one run of a program may do. Everything that is not written here is a failure."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from ..node import TC_OK, TC_REDIRECT, TC_SHOT, TC_UNSPEC, XDP_DROP, XDP_PASS, XDP_TX
from .oracle import (
    ETHERNET,
    OTHER_VTEPS,
    SECOND_CHANCE,
    VTEP,
    WRAP,
    adds_up,
    checksums_hold,
    completed,
    first_part,
    inner_of,
    is_for_us,
    is_tunnel,
)

PROGRAMS = (
    "nic_xdp",
    "nic_ip6",
    "nic_ingress",
    "gateway_ingress",
    "gateway_egress",
    "overlay_ingress",
    "overlay_egress",
)
NAMES = {
    True: {XDP_DROP: "drop", XDP_PASS: "pass", XDP_TX: "tx"},
    False: {TC_UNSPEC: "handback", TC_OK: "ok", TC_SHOT: "drop", TC_REDIRECT: "redirect"},
}

# What is counted with each verdict: nothing, a drop, a hand-back, or an answer that was sent in the
# place of a packet that was dropped; beside these, that a flow has got another backend. XDP counts
# no hand-backs: what it passes meets tc, which counts it. So egress programs leave it to the
# ingress programs that the same packet has met.
NOTHING, DROP, HANDBACK, ANSWER = "nothing", "drop", "handback", "answer"
RULES: dict[str, dict[str, frozenset[str]]] = {
    "nic_xdp": {
        "pass": frozenset({NOTHING}),
        "tx": frozenset({NOTHING}),
        "drop": frozenset({DROP}),
    },
    # With the programs that it hands over to. Only what is its own does it count: other IPv6 is
    # counted by nic_ingress.
    "nic_ip6": {
        "handback": frozenset({NOTHING, HANDBACK}),
        "redirect": frozenset({NOTHING, ANSWER}),
        "drop": frozenset({DROP}),
    },
    "nic_ingress": {
        "handback": frozenset({HANDBACK}),
        "redirect": frozenset({NOTHING, ANSWER}),
        "drop": frozenset({DROP}),
    },
    "gateway_ingress": {
        "handback": frozenset({HANDBACK}),
        "ok": frozenset({NOTHING, HANDBACK}),
        "redirect": frozenset({NOTHING, ANSWER}),
        "drop": frozenset({DROP}),
    },
    "gateway_egress": {
        "handback": frozenset({NOTHING}),
        "ok": frozenset({NOTHING}),
        "drop": frozenset({DROP}),
    },
    "overlay_ingress": {
        "handback": frozenset({HANDBACK}),
        "ok": frozenset({NOTHING}),
        "redirect": frozenset({NOTHING, ANSWER}),
        "drop": frozenset({DROP}),
    },
    "overlay_egress": {
        "handback": frozenset({NOTHING}),
        "ok": frozenset({NOTHING}),
        "drop": frozenset({DROP}),
    },
}
# Drops whose sender is told, by an answer that the packet is turned into.
ANSWERED = frozenset({"drop_no_backend", "drop_backend_gone", "drop_too_big", "drop_ttl_exceeded"})

_TAG = struct.Struct("=IIII")
_TAG_MAGIC = 0xEBF0DA7A


@dataclass(frozen=True)
class Run:
    """One program, one packet, what came of it. `counted` are the reasons, each as often."""

    program: str
    packet: bytes
    verdict: int
    out: bytes
    metadata: bytes
    counted: tuple[str, ...]


class Wrong(Exception):
    """A run did what it may not."""


def judge(run: Run) -> str:
    """The verdict by name. Raises `Wrong`."""
    name = NAMES[run.program == "nic_xdp"].get(run.verdict)
    rules = RULES[run.program]
    if name is None or name not in rules:
        raise Wrong(f"verdict {run.verdict} is none of {', '.join(rules)}")
    kind = _kind(run, name)
    if kind not in rules[name]:
        raise Wrong(f"{name}, and counted {list(run.counted) or 'nothing'}")
    if name == "handback" or (name == "pass" and not run.metadata):
        if run.out != run.packet:
            raise Wrong(f"handed back, but changed to {run.out.hex()}")
    elif name != "drop":
        _carried_on(run)
    return name


def _kind(run: Run, name: str) -> str:
    counted = [reason for reason in run.counted if not reason.startswith("retry_")]
    if not counted:
        return NOTHING
    if len(counted) > 1:
        raise Wrong(f"counted more than once: {counted}")
    (reason,) = counted
    if name not in {"drop", "handback"} and reason in ANSWERED:
        return ANSWER
    return DROP if reason.startswith("drop_") else HANDBACK


def _carried_on(run: Run) -> None:
    out = run.out
    if run.metadata:
        _tag(run.metadata)
    inside, came_out = run.packet, out
    if run.program.startswith("overlay_"):
        # To these a tunnel's packet is a datagram like any other.
        if out[26:30] == VTEP and is_tunnel(out) and not is_tunnel(run.packet):
            raise Wrong(f"wrapped inside an overlay network: {out.hex()}")
    elif is_tunnel(out) and not run.packet.endswith(out[ETHERNET:]):  # nor merely unwrapped
        if is_tunnel(run.packet):
            _answer_in_the_tunnel(run)
        _outer(out)
        came_out = inner_of(out)
    if run.program.startswith("nic_") and is_for_us(run.packet):
        inside = inner_of(run.packet)
    if checksums_hold(inside) and first_part(came_out, inside):
        came_out = completed(came_out, inside)  # the rest has come in again
    if checksums_hold(inside) and not checksums_hold(came_out):
        raise Wrong(f"checksums were right, and are wrong in {out.hex()}")


def _tag(metadata: bytes) -> None:
    """What XDP tells tc: the entry node that it names is another one, or none."""
    if len(metadata) != _TAG.size or _TAG.unpack(metadata)[0] != _TAG_MAGIC:
        raise Wrong(f"metadata is {metadata.hex()}")
    if metadata[12:16] not in {bytes(4), *OTHER_VTEPS}:
        raise Wrong(f"the entry node is {socket.inet_ntoa(metadata[12:16])}")


def _outer(out: bytes) -> None:
    """Of a packet that was wrapped here."""
    if out[26:30] != VTEP:
        raise Wrong(f"wrapped as {socket.inet_ntoa(out[26:30])}")
    if out[30:34] not in OTHER_VTEPS:
        raise Wrong(f"wrapped for {socket.inet_ntoa(out[30:34])}, which is no other node")
    total, carried = out[16] << 8 | out[17], out[66] << 8 | out[67]
    # Ethernet may have padded the packet, behind the end of what was wrapped.
    if not carried + WRAP <= total <= len(out) - ETHERNET or (out[38] << 8 | out[39]) != total - 20:
        raise Wrong(f"wrapped with wrong lengths: {out.hex()}")
    if not adds_up(out[14:34]) or out[22] != 64:
        raise Wrong(f"wrapped in a bad IPv4 header: {out.hex()}")
    if is_tunnel(inner_of(out)):
        raise Wrong(f"wrapped twice: {out.hex()}")


def _second_chance(asked: bytes, sent: bytes) -> bool:
    """Whether what came wrapped is sent on once, in its entry node's name, as it is.

    Of the MAC that names that node, only the address counts.
    """
    marks = (asked[ETHERNET + 35], sent[ETHERNET + 35])
    entry = slice(WRAP + 8, WRAP + 12)
    return (
        marks[0] < SECOND_CHANCE
        and marks[1] == marks[0] | SECOND_CHANCE
        and asked[entry] == sent[entry]
        and inner_of(asked).startswith(inner_of(sent)[ETHERNET:], ETHERNET)
    )


def _answer_in_the_tunnel(run: Run) -> None:
    """What came wrapped leaves wrapped only as the answer to it, back to its entry node."""
    asked, answered = run.packet, run.out
    if _second_chance(asked, answered):
        return
    if not run.counted:
        raise Wrong(f"a wrapped packet was wrapped again: {answered.hex()}")
    if answered[30:34] != asked[WRAP + 8 : WRAP + 12]:
        raise Wrong(f"the answer to a wrapped packet goes elsewhere: {answered.hex()}")
    at = WRAP + 26
    if answered[at : at + 8] != asked[at + 4 : at + 8] + asked[at : at + 4]:
        raise Wrong(f"what came wrapped leaves wrapped, and is no answer: {answered.hex()}")
