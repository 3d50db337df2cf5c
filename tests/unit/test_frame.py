from __future__ import annotations

import random

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from ebpfmesh.frame import Frame, end, read, tcp_flags

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
ENDS = IP(src="192.0.2.1", dst="192.0.2.2")
ASKED = ENDS / TCP(sport=4000, dport=80, flags="SA")
SEEN = Frame("tcp", "192.0.2.1", 4000, "192.0.2.2", 80, "SA")
TUNNEL = UDP(sport=1, dport=4789) / VXLAN(flags=8, vni=7)


@pytest.mark.parametrize(
    ("packet", "seen"),
    [
        (ETHER / ASKED, SEEN),
        (ETHER / ENDS / UDP(sport=1, dport=2), Frame("udp", "192.0.2.1", 1, "192.0.2.2", 2)),
        (
            ETHER / ENDS / ICMP(type=3, code=4),
            Frame("icmp", "192.0.2.1", 0, "192.0.2.2", 0, info="type 3 code 4"),
        ),
        (
            ETHER / IP(src="192.0.2.1", dst="192.0.2.2", proto=47) / Raw(b"xxxx"),
            Frame("protocol 47", "192.0.2.1", 0, "192.0.2.2", 0),
        ),
        (
            ETHER / IP(src="192.0.2.1", dst="192.0.2.2", frag=185, proto=17) / Raw(b"abcdefgh"),
            Frame("udp", "192.0.2.1", 0, "192.0.2.2", 0, info="fragment at 1480"),
        ),
        (
            ETHER / IP(src="192.0.2.1", dst="192.0.2.2", flags="MF") / UDP(sport=1, dport=2),
            Frame("udp", "192.0.2.1", 1, "192.0.2.2", 2, info="fragment at 0"),
        ),
        (
            ETHER / IP(src="192.0.2.1", dst="192.0.2.2", options=b"\x94\x04\0\0") / ASKED[TCP],
            SEEN._replace(info="options"),
        ),
        (ETHER / Dot1Q(vlan=5) / ASKED, SEEN._replace(info="VLAN 5")),
        (
            ETHER / IPv6(src="fd00::1", dst="fd00::2") / TCP(sport=4000, dport=80, flags="R"),
            Frame("tcp", "fd00::1", 4000, "fd00::2", 80, "R"),
        ),
        (
            ETHER / ARP(op=1, psrc="192.0.2.1", pdst="192.0.2.2"),
            Frame("arp", "192.0.2.1", 0, "192.0.2.2", 0, info="who-has"),
        ),
        (
            ETHER / IP(src="198.51.100.1", dst="198.51.100.2") / TUNNEL / ETHER / ASKED,
            SEEN._replace(info="in the tunnel from 198.51.100.1"),
        ),
        (ETHER / Raw(b""), Frame("ethertype 0x9000")),
    ],
    ids=lambda value: value.summary() if isinstance(value, Packet) else "",
)
def test_who_sends_what_to_whom(packet: Packet, seen: Frame) -> None:
    assert read(bytes(packet)) == seen


def test_other_ports_are_no_tunnel() -> None:
    packet = ETHER / IP(src="198.51.100.1", dst="198.51.100.2") / TUNNEL / ETHER / ASKED
    assert read(bytes(packet), 8472).destination_port == 4789


def test_tunnels_in_tunnels_end() -> None:
    packet = ETHER / ENDS / TUNNEL / ETHER / ENDS / TUNNEL / ETHER / ASKED
    assert read(bytes(packet)).destination_port == 4789


@pytest.mark.parametrize("length", range(len(bytes(ETHER / ASKED))))
def test_cut_short(length: int) -> None:
    """All that is known is said, nothing that is not."""
    seen = read(bytes(ETHER / ASKED)[:length])
    assert seen.source in {"", "192.0.2.1"}
    assert seen.destination_port in {0, 80}


def test_nonsense_is_no_error() -> None:
    chance = random.Random(1)  # noqa: S311
    heads = [b"\0" * 12 + kind for kind in (b"\x08\0", b"\x08\x06", b"\x86\xdd", b"\x81\0", b"??")]
    for _ in range(5000):
        seen = read(chance.choice(heads) + chance.randbytes(chance.randrange(100)))
        assert all(str(part).isprintable() for part in seen)


def test_ends_in_words() -> None:
    assert end("192.0.2.1", 80) == "192.0.2.1:80"
    assert end("fd00::1", 80) == "[fd00::1]:80"
    assert end("192.0.2.1", 0) == "192.0.2.1"
    assert tcp_flags(0x12) == "SA"
