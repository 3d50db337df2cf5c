# SPDX-License-Identifier: Apache-2.0
"""Corner cases of sockets from inside a namespace, and what came of them."""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import socket
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .frame import (
    CHUNK,
    SHOWN_ERRORS,
    TIMEOUT_S,
    Command,
    Target,
    name_of,
    parser,
    run,
    tell,
)
from .frame import connected_udp as udp

SERVER_SETTLES_S = 0.002
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n"
LINGER_0 = struct.pack("ii", 1, 0)
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14
IP_RECVERR, MSG_ERRQUEUE = 11, 0x2000
ICMP_TIME_EXCEEDED = 11
EXTENDED_ERROR = struct.Struct("=IBBBxIIHH4s")  # sock_extended_err, sockaddr_in: ip(7)
TCP_REPAIR = 19  # a socket that is closed so says nothing to anybody
IP_UDP = 28  # bytes of both headers
MOST_HOPS = 5


def tcp_counters() -> dict[str, int]:
    """This namespace's, since it is there."""
    found: dict[str, int] = {}
    for name in ("snmp", "netstat"):
        lines = (line.split() for line in Path("/proc/net", name).read_text().splitlines())
        for names, numbers in zip(lines, lines, strict=True):
            if names[0] in {"Tcp:", "TcpExt:"}:
                found |= dict(zip(names[1:], map(int, numbers[1:]), strict=True))
    return found


def tcp(to: Target, source_port: int = 0) -> socket.socket:
    made = socket.socket()
    made.settimeout(TIMEOUT_S)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(("0.0.0.0", source_port))
        made.connect(to)
    except OSError:
        made.close()
        raise
    return made


def ask(connection: socket.socket, header: bytes = b"") -> str:
    """The name of who answers one request."""
    connection.sendall(REQUEST % header)
    answer = b""
    while not answer.endswith(b"}\n"):
        more = connection.recv(CHUNK)
        if not more:
            raise ConnectionResetError("end of file")
        answer += more
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["host"])


def ask_udp(connected: socket.socket) -> str:
    datagram = b"%016x" % random.getrandbits(64)
    connected.send(datagram)
    while not (answer := connected.recv(CHUNK)).endswith(datagram):
        pass  # the answer to an earlier one
    return str(json.loads(answer[: -len(datagram)])["host"])


# --- refusals ---------------------------------------------------------------------------


def refused(options: argparse.Namespace) -> dict[str, Any]:
    """What connecting to each target, and asking it over UDP, fails with."""
    found: dict[str, Counter[str]] = {"tcp": Counter(), "udp": Counter()}
    slowest_s = 0.0
    for to in options.targets:
        for _ in range(options.count):
            for kind, make, question in (("tcp", tcp, ask), ("udp", udp, ask_udp)):
                began_s = time.monotonic()
                found[kind][attempt(to, make, question)] += 1
                slowest_s = max(slowest_s, time.monotonic() - began_s)
    return {**found, "slowest_s": slowest_s}


def attempt(
    to: Target, make: Callable[[Target], socket.socket], question: Callable[[socket.socket], str]
) -> str:
    try:
        with make(to) as made:
            question(made)
    except OSError as error:
        return name_of(error)
    return "answered"


# --- connections that stay --------------------------------------------------------------


class Kept:
    """A connection, or a connected socket of UDP: who answers, or why nobody does any more."""

    def __init__(self, to: Target, *, datagrams: bool) -> None:
        self._ask = ask_udp if datagrams else ask
        self._socket = udp(to) if datagrams else tcp(to)
        self._broken = ""

    def vanish(self) -> None:
        """Without a word, then again from the same port."""
        to, (_, port) = self._socket.getpeername(), self._socket.getsockname()
        self._socket.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        self._socket.close()
        self._socket = tcp(to, port)

    def says(self) -> str:
        if not self._broken:
            try:
                return self._ask(self._socket)
            except OSError as error:
                self._broken = name_of(error)
        return self._broken


def keep(options: argparse.Namespace) -> dict[str, Any]:
    """So many to each target; asks all of them now, and for each line of standard input.

    First those whom the line names begin again.
    """
    kept = [Kept(to, datagrams=options.udp) for to in options.targets for _ in range(options.count)]
    opened = [one.says() for one in kept]
    tell(opened)
    for line in sys.stdin:
        for one, host in zip(kept, opened, strict=True):
            if host == line.strip():
                one.vanish()
        tell([one.says() for one in kept])
    return {}


def half_closed(options: argparse.Namespace) -> dict[str, Any]:
    """Asks each target for much, closes its own direction, and reads on when told to."""
    connections = []
    for to in options.targets:
        connection = tcp(to)
        connection.sendall(b"GET /bytes/%d HTTP/1.1\r\nHost: x\r\n\r\n" % options.size)
        connection.shutdown(socket.SHUT_WR)
        connections.append(connection)
    tell({})
    sys.stdin.readline()
    return {"crc32": [body_crc32(connection) for connection in connections]}


def body_crc32(connection: socket.socket) -> int:
    """Of what follows the head, to the end of the connection."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(1)
    found = 0
    while more := connection.recv(CHUNK):
        found = zlib.crc32(more, found)
    return found


# --- one source port, again and again ---------------------------------------------------


def reuse(options: argparse.Namespace) -> dict[str, Any]:
    """Connects from one port to the targets in turn, as soon as the one before has ended.

    On one CPU: on two of them a SYN may overtake the packet that ended the connection before.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    before, done, errors = tcp_counters(), 0, []
    for number in range(options.count):
        to = options.targets[number % len(options.targets)]
        try:
            one_of_many(to, options.source_port, reset=options.reset)
            done += 1
        except OSError as error:
            errors.append(f"{name_of(error)}: {error}")
    after = tcp_counters()
    sent_again, resets = (after[name] - before[name] for name in ("TCPSynRetrans", "OutRsts"))
    # A server that remembers the connection before may have to be reset first: RFC 6191.
    asked_for = resets - done if options.reset else resets
    return {"done": done, "errors": errors[:SHOWN_ERRORS], "lost_syns": sent_again - asked_for}


def one_of_many(to: Target, source_port: int, *, reset: bool) -> None:
    with tcp_when_free(to, source_port) as connection:
        if reset:
            ask(connection)
            # While the server is still in its send(), its kernel queues what arrives; the SYN that
            # stands there behind the RST is thrown away with the socket, balancer or none.
            time.sleep(SERVER_SETTLES_S)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        else:  # the server ends it first: then the port is free here, and the server remembers
            ask(connection, b"Connection: close\r\n")
            if connection.recv(1):
                raise OSError("more than an answer")


def tcp_when_free(to: Target, source_port: int) -> socket.socket:
    """The last acknowledgement of the connection before may still be on its way."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return tcp(to, source_port)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL or time.monotonic() > deadline_s:
                raise


# --- sizes ------------------------------------------------------------------------------


def path_mtu(options: argparse.Namespace) -> dict[str, Any]:
    """A datagram that must not be fragmented, and that the way has no room for; then one that fits.

    Its echo is larger than it, so nobody waits for that.
    """
    with udp(options.targets[0]) as connected:
        connected.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        ask_udp(connected)
        connected.send(bytes(options.size))
        try:
            connected.recv(CHUNK)
            error = ""
        except OSError as refusal:
            error = errno.errorcode.get(refusal.errno or 0, name_of(refusal))
        mtu = connected.getsockopt(socket.IPPROTO_IP, IP_MTU)
        connected.send(bytes(mtu - IP_UDP))
        ask_udp(connected)
        return {"mtu": mtu, "error": error}


# --- hops ---------------------------------------------------------------------------------


def hops(options: argparse.Namespace) -> dict[str, Any]:
    """Who says "time exceeded" to each TTL, from 1 on, until there is an answer."""
    return {
        kind: [trace(to, question, make) for to in options.targets]
        for kind, question, make in (
            ("tcp", ask, socket.SOCK_STREAM),
            ("udp", ask_udp, socket.SOCK_DGRAM),
        )
    }


def trace(to: Target, question: Callable[[socket.socket], str], kind: int) -> list[str]:
    found = []
    for ttl in range(1, MOST_HOPS):
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.settimeout(TIMEOUT_S)
            probe.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
            try:
                probe.connect(to)
                question(probe)
            except OSError as error:
                found.append(time_exceeded_by(probe) or name_of(error))
            else:
                return found
    return found


def time_exceeded_by(probe: socket.socket) -> str:
    _, control, _, _ = probe.recvmsg(CHUNK, 512, MSG_ERRQUEUE)
    (data,) = (data for level, kind, data in control if (level, kind) == (0, IP_RECVERR))
    fields = EXTENDED_ERROR.unpack_from(data)
    return socket.inet_ntoa(fields[-1]) if fields[2] == ICMP_TIME_EXCEEDED else ""


# --- forged packets ---------------------------------------------------------------------


def flood(options: argparse.Namespace) -> dict[str, Any]:
    """SYNs from forged sources: so many, of addresses and ports that are all different."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    to, port = options.targets[0]
    destination = socket.inet_aton(to)
    network, first = socket.inet_aton("192.0.2.0")[:3], 120
    for number in range(options.count):
        source = network + bytes([first + number % 130])
        segment = syn(source, destination, 1024 + number // 130, port)
        length = 20 + len(segment)
        head = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, 6, 0) + source + destination
        raw.sendto(head + segment, (to, 0))
    return {}


def syn(source: bytes, destination: bytes, source_port: int, port: int) -> bytes:
    fields = (source_port, port, random.getrandbits(32), 0, 5 << 4, 2, 65535)
    pseudo = source + destination + struct.pack("!HH", 6, 20)
    total = sum(struct.unpack("!16H", pseudo + struct.pack("!HHIIBBHHH", *fields, 0, 0)))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!HHIIBBHHH", *fields, ~total & 0xFFFF, 0)


COMMANDS: dict[str, Command] = {
    "refused": refused,
    "keep": keep,
    "half-closed": half_closed,
    "reuse": reuse,
    "path-mtu": path_mtu,
    "flood": flood,
    "hops": hops,
}


def main() -> None:
    made = parser(__doc__, COMMANDS)
    made.add_argument("--count", type=int, default=1)
    made.add_argument("--size", type=int, default=0)
    made.add_argument("--source-port", type=int, default=0)
    made.add_argument("--udp", action="store_true")
    made.add_argument("--reset", action="store_true")
    run(made, COMMANDS)


if __name__ == "__main__":
    main()
