# SPDX-License-Identifier: Apache-2.0
"""Which backend a packet would get on this node, and why: the programs' way, step by step.

It reads the maps that the programs read and asks in their order: bpf/entry.h for published ports,
bpf/vip.h for VIPs. A packet is the next one of a flow that is known and open, and else the first
one of a new flow.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpfmesh import flowhash
from ebpfmesh.datapath.flows import FLOW_DIRECT, FLOW_FIN_CLIENT, FLOW_FIN_SERVER, FLOW_RST
from ebpfmesh.datapath.lookup import BackendEntry, FlowEntry, FlowTuple, FrontendEntry, Lookup
from ebpfmesh.explanation import Candidate, Choice, Explanation, Outcome, Question, Step
from ebpfmesh.model import BackendState, FrontendKind, Protocol, Scheduler
from ebpfmesh.status import STATUS_VERSION
from ebpfmesh.takeover import Mode

_ENDED = FLOW_FIN_CLIENT | FLOW_FIN_SERVER | FLOW_RST


@dataclass(frozen=True)
class Surroundings:
    """What the maps do not say: this node, and the names of things.

    `services` by id, `networks` by VNI, `nodes` by VTEP.
    """

    vtep: str
    return_mode: str
    udp_timeout_s: float
    mode: Mode = Mode.SERVING
    services: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[int, str] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)


class _Drawn(NamedTuple):
    """Of a table: the ids that may come out, with their shares."""

    choice: Choice
    shares: dict[int, float]
    hash: int = -1
    slot: int = -1


def explain(asked: Question, lookup: Lookup, around: Surroundings) -> Explanation:
    """Answer. Blocks on system calls; raises `MapError`."""
    return _Explainer(asked, lookup, around).run()


class _Explainer:
    """One answer; each step of the reasoning is noted as it is made."""

    def __init__(self, asked: Question, lookup: Lookup, around: Surroundings) -> None:
        self._asked = asked
        self._lookup = lookup
        self._around = around
        self._now_ns = time.monotonic_ns()
        self._steps: list[Step] = []
        self._service = self._network = ""

    def run(self) -> Explanation:
        vnis = self._lookup.networks_of(self._asked.address)
        if self._asked.network:
            names = {name: vni for vni, name in self._around.networks.items()}
            vnis = [vni for vni in vnis if vni == names.get(self._asked.network)]
        elif self._lookup.is_own(self._asked.address):
            vnis = []
        if len(vnis) > 1:
            names_of = ", ".join(sorted(self._network_name(vni) for vni in vnis))
            self._note("network", f"several have that address: {names_of}; say which")
            return self._end(Outcome.KERNEL, "no_frontend")
        return self._vip(vnis[0]) if vnis else self._port()

    # -- published ports ------------------------------------------------------------------

    def _port(self) -> Explanation:
        asked = self._asked
        frontend = self._lookup.port_frontend(asked.port, asked.protocol)
        name = f"{asked.protocol.name.lower()}:{asked.port}"
        if frontend is None:
            self._note("frontend", f"{asked.address} is no VIP here, and {name} is not published")
            return self._end(Outcome.KERNEL, "no_frontend")
        self._name(frontend, f"published port {name}, port {frontend.target_port} of its tasks")
        if self._is_process_of_this_node():
            return self._at_the_socket(frontend)
        if not self._may_ask(frontend):
            return self._end(Outcome.DROPPED, "not_allowed")
        flow = self._flow_tuple(0)
        if known := self._known(self._lookup.entry(flow)):
            return self._given(known, Choice.FLOW, frontend, flow)
        if not self._lookup.is_own(asked.address):
            other = self._around.nodes.get(asked.address)
            ask = f": ask the agent of {other}" if other else ""
            self._note("address", f"{asked.address} is not this node's{ask}")
            return self._end(Outcome.KERNEL, "foreign_address")
        return self._balance(frontend, flow)

    def _is_process_of_this_node(self) -> bool:
        client = self._asked.client
        return IPv4Address(client).is_loopback or self._lookup.is_own(client)

    def _at_the_socket(self, frontend: FrontendEntry) -> Explanation:
        """bpf/sock.h: the node counts as the client, and no port is known yet."""
        self._note("client", "a process of this node: the choice is made when it connects")
        if self._around.mode is Mode.GIVING_BACK:
            return self._end(Outcome.KERNEL, "giving_back")
        drawn = self._draw(frontend, self._around.vtep, 0)
        return self._chosen(drawn, frontend, None, none=Outcome.KERNEL)

    def _may_ask(self, frontend: FrontendEntry) -> bool:
        client, asked = self._asked.client, self._asked.address
        if not frontend.restricted:
            self._note("client", "everybody may ask")
        elif self._lookup.is_listed(frontend.pool, client):
            self._note("client", f"{client} is among the allowed ones")
        elif self._lookup.is_node(client):
            self._note("client", f"{client} is a node: nodes may always ask")
        elif not self._lookup.is_own(asked) and not self._lookup.is_node(asked):
            self._note("client", f"{asked} is no node's: nothing to refuse")
        else:
            self._note("client", f"{client} is not among the allowed ones")
            return False
        return True

    # -- VIPs -----------------------------------------------------------------------------

    def _vip(self, vni: int) -> Explanation:
        frontend = self._lookup.frontend(self._asked.address, vni)
        self._network = self._network_name(vni)
        if frontend is None or frontend.kind is FrontendKind.DIRECT:
            text = f"{self._asked.address} is a backend's own address on {self._network}"
            self._note("frontend", text + ": nothing is balanced")
            return self._end(Outcome.KERNEL, "no_frontend")
        self._name(frontend, f"VIP on network {self._network}: every port")
        flow = self._flow_tuple(vni)
        if known := self._known(self._lookup.flow(flow)):
            return self._given(known, Choice.FLOW, frontend, flow)
        return self._balance(frontend, flow)

    # -- the choice -----------------------------------------------------------------------

    def _flow_tuple(self, vni: int) -> FlowTuple:
        asked = self._asked
        return FlowTuple(
            asked.client, asked.client_port, asked.address, asked.port, asked.protocol, vni
        )

    def _known(self, flow: FlowEntry | None) -> BackendEntry | None:
        """The backend that a flow goes on with."""
        if not self._asked.client_port:
            self._note("flow", "without a client's port none can be known")
            return None
        if flow is None or flow.flags & FLOW_DIRECT:
            self._note("flow", "none is known: a new one")
            return None
        idle_s = max(0.0, (self._now_ns - flow.seen_ns) / 1e9)
        if flow.flags & _ENDED:
            self._note("flow", "one is known, and has ended or is about to: a new one")
            return None
        if self._asked.protocol is Protocol.UDP and idle_s > self._around.udp_timeout_s:
            self._note("flow", f"one is known, but silent for {idle_s:.0f} s: a new one")
            return None
        backend = self._lookup.backend(flow.backend)
        same = flow.address in (backend.address, backend.gateway)
        if not same or self._takes_no_more(backend):
            self._note("flow", "one is known, but its backend has gone, or is about to: a new one")
            return None
        self._note("flow", f"known, last packet {idle_s:.1f} s ago: it keeps its backend")
        return backend

    def _takes_no_more(self, backend: BackendEntry) -> bool:
        """bpf/flow.h."""
        if backend.state is BackendState.STOPPING:
            return self._asked.protocol is Protocol.UDP
        return backend.state in (None, BackendState.GONE)

    def _balance(self, frontend: FrontendEntry, flow: FlowTuple) -> Explanation:
        if self._around.mode is Mode.GIVING_BACK:
            self._note("mode", "giving back: new flows are the kernel's")
            return self._end(Outcome.KERNEL, "giving_back")
        drawn = self._draw(frontend, flow.client, flow.client_port)
        return self._chosen(drawn, frontend, flow, none=Outcome.DROPPED)

    def _draw(self, frontend: FrontendEntry, client: str, client_port: int) -> _Drawn | None:
        """bpf/schedule.h; None if nobody gets new flows."""
        table = self._lookup.table(frontend.pool)
        if table is None:
            return None
        if frontend.scheduler is not Scheduler.MAGLEV:
            word = frontend.scheduler.name.lower().replace("_", "-")
            self._note("choice", f"scheduler {word}: it depends on what comes before")
            turns = table[: self._lookup.in_turn(frontend.pool)]
            return _Drawn(Choice.SCHEDULER, _shares(turns))
        if frontend.affinity:
            return self._slot(table, flowhash.client_hash(client), "of the client's address")
        if not client_port:
            self._note("choice", "the slot of a Maglev table, by the client's port too")
            return _Drawn(Choice.SLOT, _shares(table))
        asked = self._asked
        hashed = flowhash.flow_hash(client, client_port, asked.port, asked.protocol)
        return self._slot(table, hashed, "of both ports, the client's address and the protocol")

    def _slot(self, table: NDArray[np.uint32], hashed: int, of: str) -> _Drawn:
        slot = flowhash.slot(hashed, len(table))
        text = f"slot {slot} of {len(table)} in the Maglev table: hash {hashed:#010x} {of}"
        self._note("choice", text)
        return _Drawn(Choice.SLOT, {int(table[slot]): 1.0}, hashed, slot)

    def _chosen(
        self, drawn: _Drawn | None, frontend: FrontendEntry, flow: FlowTuple | None, none: Outcome
    ) -> Explanation:
        backends = [self._lookup.backend(i) for i in drawn.shares if i] if drawn else []
        if drawn is None or not backends:
            self._note("backend", "none gets new flows")
            return self._end(none, "no_backend")
        if len(backends) == 1:
            return self._given(backends[0], drawn.choice, frontend, flow, drawn)
        self._note("backend", f"any of {len(backends)}")
        candidates = tuple(self._candidate(one, drawn.shares[one.id]) for one in backends)
        return self._end(Outcome.ANY, choice=drawn.choice, backends=candidates)

    def _given(
        self,
        backend: BackendEntry,
        choice: Choice,
        frontend: FrontendEntry,
        flow: FlowTuple | None,
        drawn: _Drawn | None = None,
    ) -> Explanation:
        """One backend; the way there and back."""
        state = backend.state.name.lower() if backend.state else "unset"
        where = f"on {self._node_name(backend)}"
        text = f"task {backend.task or '?'}, {backend.address}, {where}, {state}"
        self._note("backend", text)
        if frontend.kind is FrontendKind.VIP:
            self._vip_path(backend)
        else:
            self._port_path(backend, frontend, flow)
        return self._end(
            Outcome.BACKEND,
            choice=choice,
            drawn=drawn,
            backends=(self._candidate(backend, 1.0),),
        )

    # -- the ways -------------------------------------------------------------------------

    def _vip_path(self, backend: BackendEntry) -> None:
        if backend.address == self._asked.client:
            self._note("path", "back into the container that asks: it is balanced to itself")
        elif self._is_here(backend):
            self._note("path", f"destination becomes {backend.address}; over the bridge, here")
        else:
            text = f"destination becomes {backend.address}; by the network's VXLAN"
            self._note("path", f"{text} to {backend.vtep or 'its node'}")
        self._note("return", "the source becomes the VIP again, at the client's veth")

    def _port_path(
        self, backend: BackendEntry, frontend: FrontendEntry, flow: FlowTuple | None
    ) -> None:
        port = frontend.target_port
        if backend.gateway:
            self._note("path", f"into the task by docker_gwbridge, as {backend.gateway}:{port}")
            self._note("return", "by docker_gwbridge's veth, out of this node")
            return
        node = self._node_name(backend)
        if flow is None:
            self._note("path", f"to the published port of {node}, {backend.vtep}")
            self._note("return", f"from {node}")
            return
        self._note("path", f"wrapped in VXLAN to {backend.vtep}, into the task at port {port}")
        dsr = self._around.return_mode == "dsr"
        back = f"from {node} straight to the client" if dsr else f"from {node} through this node"
        self._note("return", f"{back} ({self._around.return_mode})")

    # -- names ----------------------------------------------------------------------------

    def _note(self, subject: str, text: str) -> None:
        self._steps.append(Step(subject, text))

    def _name(self, frontend: FrontendEntry, what: str) -> None:
        service = self._lookup.service_of(frontend.pool)
        self._service = self._around.services.get(service, service)
        self._note("frontend", f"service {self._service}: {what}")

    def _network_name(self, vni: int) -> str:
        return self._around.networks.get(vni, f"VNI {vni}")

    def _is_here(self, backend: BackendEntry) -> bool:
        return bool(backend.gateway) or backend.vtep == self._around.vtep

    def _node_name(self, backend: BackendEntry) -> str:
        if self._is_here(backend):
            return "this node"
        return self._around.nodes.get(backend.vtep, backend.vtep or "an unknown node")

    def _candidate(self, backend: BackendEntry, share: float) -> Candidate:
        return Candidate(
            id=backend.id,
            task=backend.task,
            address=backend.address,
            node=self._around.nodes.get(backend.vtep, ""),
            vtep=backend.vtep,
            local=self._is_here(backend),
            state=backend.state.name.lower() if backend.state else "unset",
            share=share,
        )

    def _end(
        self,
        outcome: Outcome,
        reason: str = "",
        choice: Choice = Choice.NONE,
        drawn: _Drawn | None = None,
        backends: tuple[Candidate, ...] = (),
    ) -> Explanation:
        return Explanation(
            version=STATUS_VERSION,
            client=self._asked.client_text,
            frontend=self._asked.frontend_text,
            outcome=outcome,
            reason=reason,
            choice=choice,
            service=self._service,
            network=self._network,
            hash=drawn.hash if drawn else -1,
            slot=drawn.slot if drawn else -1,
            slots=self._lookup.slots,
            backends=backends,
            steps=tuple(self._steps),
        )


def _shares(table: NDArray[np.uint32]) -> dict[int, float]:
    """Backend id -> its part of the table."""
    ids, counts = np.unique(table, return_counts=True)
    return {int(i): int(n) / len(table) for i, n in zip(ids, counts, strict=True)}
