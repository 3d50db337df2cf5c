# SPDX-License-Identifier: Apache-2.0
"""The live flows of this node, as the command line lists them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ebpfmesh.agent.naming import Named
from ebpfmesh.datapath.flows import (
    FLOW_ANSWERED,
    FLOW_DIRECT,
    FLOW_FIN_CLIENT,
    FLOW_FIN_SERVER,
    FLOW_RST,
    entries,
    flows,
)
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.maps import int_to_address, ip6_text
from ebpfmesh.model import Protocol
from ebpfmesh.status import FlowStatus


def list_flows(module: Module, whose: Callable[[int], Named]) -> list[FlowStatus]:
    """Every balanced flow; `whose` gives service and network of a backend id."""
    now_ns, clients = time.monotonic_ns(), _ip6_clients(module)
    return [
        _flow(key, value, whose, now_ns, clients)
        for keys, values in flows(module)
        for key, value in zip(keys, values, strict=True)
        if not int(value["flags"]) & FLOW_DIRECT
    ]


def _ip6_clients(module: Module) -> dict[int, str]:
    """The IPv4 address that stands for a client -> that client."""
    return {
        int(key): ip6_text(value["client"].tobytes())
        for keys, values in entries(module, "surrogates")
        for key, value in zip(keys, values, strict=True)
    }


def _flow(
    key: Any,
    value: Any,
    whose: Callable[[int], Named],
    now_ns: int,
    clients: Mapping[int, str],
) -> FlowStatus:
    service, network = whose(int(value["backend"]))
    protocol = Protocol(int(key["protocol"]))
    return FlowStatus(
        protocol=protocol.name.lower(),
        client=_client(key["t"]["saddr"], key["t"]["sport"], clients),
        frontend=_endpoint(key["t"]["daddr"], key["t"]["dport"]),
        backend=_endpoint(value["to"]["daddr"], value["to"]["dport"]),
        service=service,
        network=network,
        state=_state(protocol, int(value["flags"])),
        idle_s=max(0.0, (now_ns - int(value["seen_ns"])) / 1e9),
        entry=int_to_address(int(value["entry"])) if int(value["entry"]) else "",
    )


def _client(address: Any, port: Any, clients: Mapping[int, str]) -> str:
    """Of IPv6 where it came in here by that."""
    asked = _endpoint(address, port)
    ip6 = clients.get(int(address))
    return f"[{ip6}]:{asked.rpartition(':')[2]}" if ip6 else asked


def _endpoint(address: Any, port: Any) -> str:
    """Both lie in network byte order."""
    return f"{int_to_address(int(address))}:{int.from_bytes(int(port).to_bytes(2, 'little'))}"


def _state(protocol: Protocol, flags: int) -> str:
    if flags & FLOW_RST:
        return "reset"
    ended = flags & (FLOW_FIN_CLIENT | FLOW_FIN_SERVER)
    if ended == FLOW_FIN_CLIENT | FLOW_FIN_SERVER:
        return "closed"
    if ended:
        return "half-closed"
    if flags & FLOW_ANSWERED:
        return "established" if protocol is Protocol.TCP else "answered"
    return "new"
