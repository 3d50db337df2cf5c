# SPDX-License-Identifier: Apache-2.0
"""`ebpfmesh capture` beside traffic: the same packets before and after translation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet
from scapy.utils import RawPcapNgReader

from ebpfmesh.lab.processes import wait_until

from ..traffic import CLIENT
from .conftest import Steady

TIMEOUT_S = 30


@contextmanager
def captured(steady: Steady, node: str, file: Path) -> Iterator[None]:
    """All that is sent meanwhile, and one packet more: it has begun when the file has."""
    socket = steady.world.lab.node(node).agent_socket
    command = [sys.executable, "-m", "ebpfmesh", "capture", "vote", "--socket", str(socket)]
    limits = ["--write", str(file), "--count", "100000", "--snaplen", "200"]
    with subprocess.Popen([*command, *limits], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert wait_until(lambda: file.exists() and file.stat().st_size > 0, TIMEOUT_S, 0.1)
            yield
        finally:
            process.send_signal(2)
            _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert said.endswith("packets\n"), said


def packets(file: Path) -> list[tuple[str, Packet]]:
    """Each with the name of its interface."""
    found: list[tuple[str, Packet]] = []
    about: Any
    with RawPcapNgReader(str(file)) as reader:
        try:
            while True:
                data, about = reader._read_packet()
                found.append((about.ifname.decode(), Ether(data)))
        except EOFError:
            return found


def asked(found: list[tuple[str, Packet]], name: str) -> set[tuple[str, int]]:
    """Whom the SYNs at such interfaces are for."""
    syns = [p for where, p in found if where.startswith(name) and TCP in p and p[TCP].flags == "S"]
    return {(str(p[IP].dst), int(p[TCP].dport)) for p in syns if VXLAN not in p}


def test_a_published_port(steady: Steady, tmp_path: Path) -> None:
    """At the NIC as the client has sent it and as the tunnel carries it; at the task as it gets."""
    address = steady.mesh[0].partition(":")[0]
    with captured(steady, "node1", tmp_path / "file"):
        status = steady.world.agents.status("node1")
        assert status.datapath.xdp == "off"
        served = steady.world.load.http(CLIENT, steady.mesh[0], count=20).assert_none_failed()
        assert served.host.keys() == steady.hosts
    found = packets(tmp_path / "file")
    assert (address, 8080) in asked(found, "eth0")
    assert any(VXLAN in packet for name, packet in found if name == "eth0")
    (task,) = [task for task in steady.tasks if task.node == "node1"]
    ((gateway, port),) = asked(found, "task ")
    assert (port, gateway in task.addresses.values()) == (80, False)

    def xdp_is_back() -> bool:
        return steady.world.agents.status("node1").datapath.xdp != "off"

    assert wait_until(xdp_is_back, TIMEOUT_S, 0.1)


def test_a_vip(steady: Steady, tmp_path: Path) -> None:
    """On the network's links: for the VIP, and for the backends that it stands for."""
    vip = steady.vip.partition(":")[0]
    with captured(steady, "node3", tmp_path / "file"):
        steady.world.load.http(steady.far.place, steady.vip, count=20).assert_none_failed()
    found = packets(tmp_path / "file")
    backends = {address for task in steady.tasks for address in task.addresses.values()}
    assert (vip, 80) in asked(found, "veth")
    after = asked(found, "vxlan")
    assert after
    assert {address for address, _ in after} <= backends
