# SPDX-License-Identifier: Apache-2.0
"""Whose veth is whose: by which address and MAC the packets of a task have to be sent. Pure.

And which networks its network namespace is on.

Which addresses a task has, dockerd says; which veth leads to them, the task's own namespace. What a
container has given itself is nobody's word but its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath

from ebpfmesh.datapath.discover import Sandbox
from ebpfmesh.model import Attachment, Endpoint, EndpointKey, Membership
from ebpfmesh.swarm.local import LocalContainer

NETWORK_ID = 10
"""dockerd names an overlay's namespace after the first 10 characters of the network's id."""


def endpoints(
    containers: Iterable[LocalContainer],
    sandboxes: Mapping[str, Sandbox],
    attachments: Iterable[Attachment],
) -> dict[EndpointKey, Endpoint]:
    """Return who is behind which veth, as far as is known for sure.

    `sandboxes` by container id; `attachments` are the places that have programs. A container that
    is no task, or whose veth is not found, is left out: its packets are not judged.
    """
    places = {(a.netns, a.ifindex): a.vni for a in attachments}
    networks = {network_of(a.netns): a.netns for a in attachments if a.vni}
    found = {}
    for container in containers:
        sandbox = sandboxes.get(container.id)
        if sandbox is None:
            continue
        for network_id, end in container.endpoints.items():
            netns = networks.get(network_id[:NETWORK_ID], "")
            peer = sandbox.peers.get(end.address, 0)
            if netns and (netns, peer) in places:
                mac = end.mac or sandbox.macs[end.address]
                found[EndpointKey(places[netns, peer], peer)] = Endpoint(end.address, mac)
        out = container.gateway
        if out and sandbox.gateway and sandbox.gateway.address == out.address:
            key = EndpointKey(0, sandbox.gateway.ifindex)
            found[key] = Endpoint(out.address, out.mac or sandbox.gateway.mac)
    return found


def namespaces(
    containers: Iterable[LocalContainer],
    sandboxes: Mapping[str, Sandbox],
    attachments: Iterable[Attachment],
) -> dict[int, tuple[Membership, ...]]:
    """Return which networks each container's network namespace is on, by its cookie.

    The arguments are those of `endpoints`. Networks whose veth is not found are left out.
    """
    places = {(network_of(a.netns), a.ifindex): a.vni for a in attachments if a.vni}
    found = {}
    for container in containers:
        sandbox = sandboxes.get(container.id)
        if sandbox is None or not sandbox.cookie:
            continue
        ends = (
            (places.get((network_id[:NETWORK_ID], sandbox.peers.get(end.address, 0))), end.address)
            for network_id, end in container.endpoints.items()
        )
        if networks := sorted(Membership(vni, address) for vni, address in ends if vni):
            found[sandbox.cookie] = tuple(networks)
    return found


def network_of(netns: str) -> str:
    """The beginning of a network's id, out of ``<epoch>-<id>``; empty for the node's own."""
    return PurePath(netns).name.partition("-")[2]
