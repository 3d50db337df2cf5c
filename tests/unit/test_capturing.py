from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.sctp import SCTP
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from ebpfmesh.capturing import MAX_ADDRESSES, Capture, Instruction, by_addresses, by_ports
from ebpfmesh.explanation import BadQuestion
from ebpfmesh.model import Protocol

_SO_ATTACH_FILTER = 26
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
ENDS = IP(src="192.0.2.1", dst="192.0.2.2")
TUNNEL = ETHER / ENDS / UDP(sport=50000, dport=4789, chksum=0) / VXLAN(flags=8, vni=7)
WEB = {(Protocol.TCP, 8080), (Protocol.TCP, 8443), (Protocol.UDP, 53)}


def passes(wanted: Sequence[Instruction], packet: Packet) -> bool:
    """Whether the kernel's filter lets it through, whole."""
    code = ctypes.create_string_buffer(
        b"".join(struct.pack("=HBBI", i.code, i.then, i.otherwise, i.value) for i in wanted)
    )
    program = struct.pack("@HP", len(wanted), ctypes.addressof(code))
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        other.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        other.setblocking(False)
        one.send(bytes(packet))
        try:
            return other.recv(65535) == bytes(packet)
        except BlockingIOError:
            return False


@pytest.mark.parametrize(
    ("packet", "wanted"),
    [
        (ETHER / ENDS / TCP(sport=4000, dport=8080), True),
        (ETHER / ENDS / TCP(sport=8443, dport=4000), True),
        (ETHER / ENDS / UDP(sport=53, dport=4000), True),
        (ETHER / ENDS / UDP(sport=4000, dport=8080), False),
        (ETHER / ENDS / TCP(sport=4000, dport=8081), False),
        (ETHER / ENDS / SCTP(sport=4000, dport=8080), False),
        (
            ETHER / IP(src="192.0.2.1", dst="192.0.2.2", options=b"\x94\x04\0\0") / TCP(dport=8080),
            True,
        ),
        (ETHER / ENDS / ICMP(type=3, code=4), True),
        (ETHER / IPv6(src="fd00::1", dst="fd00::2") / TCP(sport=8080, dport=4000), True),
        (ETHER / IPv6(src="fd00::1", dst="fd00::2") / TCP(sport=8081, dport=4000), False),
        (ETHER / IPv6(src="fd00::1", dst="fd00::2") / ICMPv6DestUnreach(), True),
        (TUNNEL / ETHER / ENDS / TCP(sport=8080, dport=4000), True),
        (TUNNEL / ETHER / ENDS / UDP(sport=4000, dport=53), True),
        (TUNNEL / ETHER / ENDS / ICMP(type=11), True),
        (TUNNEL / ETHER / ENDS / ICMP(), False),
        (ETHER / ENDS / ICMP(), False),
        (ETHER / IPv6(src="fd00::1", dst="fd00::2") / ICMPv6ND_NS(), False),
        (TUNNEL / ETHER / ENDS / TCP(sport=4000, dport=80), False),
        (ETHER / ENDS / UDP(sport=1, dport=4790) / VXLAN() / ETHER / ENDS / TCP(dport=53), False),
        (ETHER / ARP(), False),
        (ETHER / ENDS, False),
    ],
    ids=str,
)
def test_packets_of_ports(packet: Packet, wanted: bool) -> None:
    assert passes(by_ports(WEB, 4789), packet) is wanted


def test_without_a_tunnel_nothing_is_looked_for_in_it() -> None:
    assert not passes(by_ports(WEB), TUNNEL / ETHER / ENDS / TCP(dport=8080))


@pytest.mark.parametrize(
    ("packet", "wanted"),
    [
        (ETHER / IP(src="10.0.1.3", dst="10.0.1.2") / TCP(), True),
        (ETHER / IP(src="10.0.1.5", dst="10.0.1.3") / TCP(), True),
        (ETHER / IP(src="10.0.1.3", dst="10.0.1.4") / TCP(), False),
        (ETHER / ARP(psrc="10.0.1.2"), False),
        (ETHER / IPv6() / TCP(), False),
    ],
)
def test_packets_of_addresses(packet: Packet, wanted: bool) -> None:
    assert passes(by_addresses(["10.0.1.2", "10.0.1.5"]), packet) is wanted


def test_as_many_as_the_kernel_takes() -> None:
    """4096 instructions, and jumps of 255."""
    ports = {(protocol, n) for protocol in (Protocol.TCP, Protocol.UDP) for n in range(1, 100)}
    assert passes(by_ports(ports, 4789), ETHER / ENDS / TCP(sport=9999, dport=50))
    assert not passes(by_ports(ports, 4789), ETHER / ENDS / TCP(sport=9999, dport=9999))
    for port, wanted in ((50, True), (9999, False)):
        packet = ETHER / IPv6(src="fd00::1", dst="fd00::2") / TCP(sport=9999, dport=port)
        assert passes(by_ports(ports, 4789), packet) is wanted
    addresses = [f"10.0.{i // 250}.{i % 250}" for i in range(MAX_ADDRESSES + 100)]
    held = by_addresses(addresses)
    assert passes(held, ETHER / IP(src="192.0.2.1", dst="10.0.1.7") / TCP())
    assert not passes(held, ETHER / ENDS / TCP())


def test_what_can_be_asked() -> None:
    asked = Capture.asked("web", "10", "1.5", "96", xdp=True)
    assert asked == Capture("web", 10, 1.5, 96, xdp=True)


@pytest.mark.parametrize(
    ("count", "seconds", "snaplen"),
    [("0", "1", "96"), ("x", "1", "96"), ("1", "1e9", "96"), ("1", "nan", "96"), ("1", "1", "1")],
)
def test_what_cannot_be_asked(count: str, seconds: str, snaplen: str) -> None:
    with pytest.raises(BadQuestion, match="wanted a number"):
        Capture.asked("web", count, seconds, snaplen, xdp=False)
