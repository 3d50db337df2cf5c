# SPDX-License-Identifier: Apache-2.0
"""Packets in groups: each begins with empty flow maps and depends on nothing but seed and number.

Every packet goes through every program. At a group's end whatever lies in the maps that the
programs fill must be explained by a sound packet of the group.
"""

from __future__ import annotations

import ctypes
import re
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from random import Random

from ebpfmesh.datapath.loader import TC, XDP, Module
from ebpfmesh.datapath.source import reasons, source_dir

from ..net import NODE_A, NODE_A6, NODE_B, NODE_C, VNI
from ..node import Node
from ..prog_run import Reader, Runner
from ..sandbox import ifindex
from ..world import READY, Service
from .judge import PROGRAMS, Run, Wrong, judge
from .mutate import mutated
from .oracle import (
    IPV6,
    Flow,
    Flow6,
    flow6_of,
    flow_of,
    follows_another,
    inner_of,
    is_for_us,
    may_end_another,
)
from .seeds import SENDERS, STATES, dialogues, furnish, seeds

GROUP = 2000  # packets
_CHANGE_EVERY = 250  # packets between changes of a backend's state
_TALK = 0.25  # of the packets belong to orderly connections
_LOOK_EVERY = 97  # runs between looks whether an unsound packet has left anything
_OVERLAY = ("overlay_ingress", "overlay_egress")
_LRU = re.compile(r'PINNED_MAP\((\w+), "lru_hash", (?:struct )?(\w+), struct \w+,')
_PLACES = {"nic_xdp": "nic0", "nic_ip6": "nic0", "nic_ingress": "nic0"}


@cache
def lru_maps() -> dict[str, str]:
    """Name -> struct of the key, of every map that the programs fill and the kernel empties."""
    text = (source_dir() / "maps.h").read_text()
    return dict(_LRU.findall(text))


class Failure(Exception):
    """What was wrong, and how to see it again."""


@dataclass
class Report:
    """Figures of a campaign."""

    packets: int = 0
    seconds: float = 0.0
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    entries: Counter[str] = field(default_factory=Counter)

    def text(self) -> str:
        """For people."""
        runs = sum(self.verdicts.values())
        rate = int(runs / self.seconds) if self.seconds else 0
        lines = [f"{self.packets} packets, {runs} runs, {self.seconds:.1f} s, {rate} runs/s"]
        for program in PROGRAMS:
            found = {v: n for (p, v), n in sorted(self.verdicts.items()) if p == program}
            shown = "  ".join(f"{verdict} {count}" for verdict, count in found.items())
            lines.append(f"  {program:16} {sum(found.values()):8}  {shown}")
        for title, counts in (("reasons", self.reasons), ("map entries made", self.entries)):
            shown = "  ".join(f"{name} {count}" for name, count in counts.most_common())
            lines.append(f"  {title}: {shown}")
        return "\n".join(lines)


class Bench:
    """One node: its programs to be run, and what they leave behind, read as bytes."""

    def __init__(self, name: str, module: Module, *, guarded: bool = False) -> None:
        self.name = name
        self.node = Node(module)
        self.node.node(NODE_A, NODE_B, NODE_C)
        self.node.addresses(NODE_A, NODE_A6)
        self.changing = furnish(self.node)
        self.senders = self._guard() if guarded else {}
        self.runners = {program: self._runner(module, program) for program in PROGRAMS}
        table = module.table("reasons")
        self._reasons = Reader(table.map_fd, 4, ctypes.sizeof(table.Leaf), int(table.max_entries))
        self._names = [""] + [f"{kind}_{what}" for kind, what in _reason_names()]
        self._cpus = ctypes.sizeof(table.Leaf) // 8
        self._before = self._reasons.values()
        self.lru = {
            map_name: (_reader(module, map_name), module.table(map_name))
            for map_name in lru_maps()
            if not map_name.startswith("sock_")
        }

    def _guard(self) -> dict[str, bytes]:
        """By program, the only MAC and address that packets may come in with."""
        senders = {}
        for program, (address, vni, mac) in SENDERS.items():
            self.node.endpoint(address, vni, ifindex("gw0"), mac)
            senders[program] = bytes.fromhex(mac.replace(":", "")) + socket.inet_aton(address)
        return senders

    @staticmethod
    def _runner(module: Module, program: str) -> Runner:
        if program in _OVERLAY:
            fd = module.program_for_network(program, VNI)
        else:
            fd = module.program(program, XDP if program == "nic_xdp" else TC)
        device = ifindex(_PLACES.get(program, "gw0"))
        return Runner(fd, device, xdp=program == "nic_xdp")

    def start(self) -> None:
        """No flows, and every backend that may change is ready."""
        for reader, _ in self.lru.values():
            reader.items(take=True)
        self.node.forget_recent()
        for service in self.changing:
            for address in service.ids:
                service.state(address, READY)
        self.counted()

    def counted(self) -> tuple[str, ...]:
        """The reasons that were counted since the last call, each as often."""
        before, now = self._before, self._reasons.values()
        if before == now:
            return ()
        self._before = now
        old, new = memoryview(before).cast("Q"), memoryview(now).cast("Q")
        return tuple(
            self._names[i // self._cpus]
            for i in range(len(new))
            if new[i] != old[i]
            for _ in range(new[i] - old[i])
        )

    def keys(self) -> dict[str, set[bytes]]:
        """What the LRU maps hold."""
        return {name: {k for k, _ in reader.items()} for name, (reader, _) in self.lru.items()}


def _has_changed(before: dict[str, set[bytes]], now: dict[str, set[bytes]], packet: bytes) -> bool:
    """Whether a packet without a flow has made entries, or taken some that it may not take."""
    if may_end_another(packet):
        return any(now[name] - before[name] for name in now)
    return now != before


def _reason_names() -> list[tuple[str, str]]:
    found = reasons(source_dir())
    return [found[index] for index in sorted(found)]


def _reader(module: Module, name: str) -> Reader:
    table = module.table(name)
    room = int(table.max_entries) + 64
    return Reader(table.map_fd, ctypes.sizeof(table.Key), ctypes.sizeof(table.Leaf), room)


class _Talk:
    """Several connections at once, each in its order, for ever anew."""

    def __init__(self, rng: Random, dialogues: list[list[bytes]]) -> None:
        self._rng = rng
        self._dialogues = dialogues
        self._said = [0] * len(dialogues)

    def next(self) -> bytes:
        """What one of them says next."""
        which = self._rng.randrange(len(self._dialogues))
        said, dialogue = self._said[which], self._dialogues[which]
        self._said[which] = (said + 1) % len(dialogue)
        return dialogue[said]


class Campaign:
    """Groups of packets, on several nodes in turn."""

    def __init__(self, benches: list[Bench], seed: int) -> None:
        self._benches = benches
        self._seed = seed
        self._seeds = seeds()
        self._dialogues = dialogues()
        self._fragments = "fragments" in lru_maps()
        self.report = Report()

    def run(self, count: int, first_group: int = 0) -> Report:
        """At least `count` packets. Raises `Failure`."""
        began = time.perf_counter()
        group = first_group
        while self.report.packets < count:
            self._group(group, min(GROUP, count - self.report.packets))
            group += 1
        self.report.seconds += time.perf_counter() - began
        return self.report

    def _group(self, number: int, size: int) -> None:
        bench = self._benches[number % len(self._benches)]
        rng = Random(f"{self._seed}/{number}")  # noqa: S311 - repeatable is what it must be
        bench.start()
        talk = _Talk(rng, self._dialogues)
        sound: dict[int, set[Flow | Flow6]] = {0: set(), VNI: set()}
        for index in range(size):
            packet = talk.next() if rng.random() < _TALK else mutated(rng, rng.choice(self._seeds))
            if index % _CHANGE_EVERY == 0:
                _change(rng, bench.changing)
            flows = self._flows(packet)
            for vni, found in flows.items():
                if found is not None:
                    sound[vni].add(found)
            where = f"seed {self._seed} group {number} packet {index} on {bench.name}"
            for program in PROGRAMS:
                self._run(bench, program, packet, flows, f"{where} {program}")
        self._account(bench, sound, f"seed {self._seed} group {number} on {bench.name}")
        self.report.packets += size

    def _flows(self, packet: bytes) -> dict[int, Flow | Flow6 | None]:
        """By network, the flow that a packet may make an entry for."""
        if packet[12:14] == IPV6:
            return {0: flow6_of(packet), VNI: None}
        mesh = inner_of(packet) if is_for_us(packet) else packet
        fragments = self._fragments
        return {0: flow_of(mesh, fragments=fragments), VNI: flow_of(packet, fragments=fragments)}

    def _run(
        self,
        bench: Bench,
        program: str,
        packet: bytes,
        flows: dict[int, Flow | Flow6 | None],
        where: str,
    ) -> None:
        report = self.report
        network = VNI if program in _OVERLAY else 0
        inside = inner_of(packet) if is_for_us(packet) and not network else packet
        unsound = flows[network] is None and not follows_another(inside)
        looks = unsound and sum(report.verdicts.values()) % _LOOK_EVERY == 0
        before = bench.keys() if looks else {}
        try:
            verdict, out, metadata = bench.runners[program].run(packet)
        except OSError as error:
            # Less than an IP header is refused before the program is run.
            if len(packet) >= (54 if packet[12:14] == b"\x86\xdd" else 34):
                raise Failure(f"{where}: {error}\n{packet.hex()}") from error
            report.verdicts[program, "not run"] += 1
            return
        counted = bench.counted()
        try:
            name = judge(Run(program, packet, verdict, out, metadata, counted))
            sender = bench.senders.get(program)
            if sender and name != "drop" and _sender(packet) not in {sender, sender[:6]}:
                raise Wrong(f"{name}, though sent in the name of {_sender(packet).hex()}")
            if looks and _has_changed(before, bench.keys(), packet):
                raise Wrong("an unsound packet has changed what the flow maps hold")
        except Wrong as wrong:
            raise Failure(f"{where}: {wrong}\n{packet.hex()}") from wrong
        report.verdicts[program, name] += 1
        report.reasons.update(counted)

    def _account(self, bench: Bench, sound: dict[int, set[Flow | Flow6]], where: str) -> None:
        """Every entry of the LRU maps belongs to a sound packet."""
        surrogates = _clients(bench)
        asked = {(flow.client, flow.node) for flow in sound[0] if isinstance(flow, Flow6)}
        if not surrogates.keys() <= asked:
            raise Failure(f"{where}: surrogates of nobody: {surrogates.keys() - asked}")
        everything = {
            (vni, flow.by(surrogates.get((flow.client, flow.node), b"")))
            if isinstance(flow, Flow6)
            else (vni, flow)
            for vni, flows in sound.items()
            for flow in flows
        }
        for name, (reader, table) in bench.lru.items():
            entries = reader.items(take=True)
            self.report.entries[name] += len(entries)
            if len(entries) > int(table.max_entries):
                raise Failure(f"{where}: {name} holds {len(entries)}")
            if lru_maps()[name] != "flow_key":
                if len(entries) > len(everything):
                    raise Failure(f"{where}: {name} holds {len(entries)}")
                continue
            for raw, leaf in entries:
                if not _owners(table, raw, leaf) & everything:
                    text = f"{raw.hex()} -> {leaf.hex()}"
                    raise Failure(f"{where}: {name} holds what no sound packet asked for: {text}")


def _clients(bench: Bench) -> dict[tuple[bytes, bytes], bytes]:
    """Who stands in for whom: an IPv6 client and the address that it asks -> an IPv4 address."""
    reader, table = bench.lru["surrogates"]
    found = {}
    for address, raw in reader.items():
        leaf = table.Leaf.from_buffer_copy(raw)
        found[bytes(leaf.client), bytes(leaf.node)] = address
    return found


def _owners(table: object, raw: bytes, leaf: bytes) -> set[tuple[int, Flow]]:
    """Whose entry it may be: of the flow that its key names, or, of answers, that it leads to."""
    key = table.Key.from_buffer_copy(raw)  # type: ignore[attr-defined]
    owners = {(key.vni, Flow(bytes(key.t), key.protocol))}
    if hasattr(table.Leaf, "to"):  # type: ignore[attr-defined]
        value = table.Leaf.from_buffer_copy(leaf)  # type: ignore[attr-defined]
        to = bytes(value.to)
        back = to[4:8] + to[:4] + to[10:12] + to[8:10]
        owners.add((key.vni, Flow(back, key.protocol)))
    return owners


def _sender(packet: bytes) -> bytes:
    """In whose name: the MAC, and the address if it is an IPv4 packet."""
    return packet[6:12] + (packet[26:30] if packet[12:14] == b"\x08\x00" else b"")


def _change(rng: Random, services: list[Service]) -> None:
    """A backend becomes another's, drains, goes, comes back."""
    service = rng.choice(services)
    service.state(rng.choice(sorted(service.ids)), rng.choice(STATES))
