# SPDX-License-Identifier: Apache-2.0
"""What the agent sees of its own node: the `LocalView`.

Its links and its tasks are looked at apart: a look at all links takes as long as the kernel is busy
with any of them, and a task that has started should not wait for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from ebpfmesh.agent.senders import endpoints, namespaces
from ebpfmesh.datapath.discover import (
    Device,
    HostLinks,
    Sandbox,
    balancer_path,
    look_at_balancer,
    look_at_host,
    look_at_sandbox,
    overlay_attachments,
    overlay_paths,
)
from ebpfmesh.datapath.nics import nic_attachments
from ebpfmesh.model import (
    Attachment,
    BackendState,
    Endpoint,
    EndpointKey,
    LocalTask,
    LocalView,
)
from ebpfmesh.swarm.local import LocalContainer


@dataclass(frozen=True)
class _Links:
    """One look at all of the node's links. `places` are the attachments, as a set."""

    device: Device | None = None
    addresses: frozenset[str] = frozenset()
    attachments: list[Attachment] = field(default_factory=list)
    places: frozenset[Attachment] = frozenset()
    balancers: dict[EndpointKey, Endpoint] = field(default_factory=dict)


class Viewer:
    """Looks at the node. What looks blocks on netlink: call it in a thread.

    `look_at_links` and `look_at_tasks` may run side by side, each once at a time.
    """

    def __init__(
        self,
        node_id: str,
        vtep: str,
        device: str,
        netns_dir: Path,
        interfaces: Sequence[str] = (),
        *,
        spoof_check: bool = True,
        vip_sockets: bool = False,
    ) -> None:
        self._node_id = node_id
        self._vtep = vtep
        self._device = device
        self._netns_dir = netns_dir
        self._interfaces = interfaces
        self._known: Device | None = None
        self._gateways: IPv4Network | None = None
        self._seen = _Links()
        self._spoof_check = spoof_check
        self._vip_sockets = vip_sockets
        self._sandboxes: dict[str, Sandbox] = {}

    def device(self) -> Device:
        """The link that carries VXLAN; programs are made for it. Raises `DeviceNotFound`."""
        self._known = look_at_host().device(self._device, self._vtep)
        return self._known

    def places(self) -> frozenset[Attachment]:
        """Where programs belong in the node's own namespace, as it is now."""
        host = look_at_host()
        return frozenset(self._host_attachments(host, self._device_of(host)))

    def everywhere(self) -> list[Attachment]:
        """Where programs belong, those of the overlay networks included."""
        host = look_at_host()
        return self._look(host, self._device_of(host)).attachments

    def look_at_links(self) -> None:
        """Looks where programs belong, and which addresses the node has."""
        host = look_at_host()
        self._gateways = host.gateway_network()
        self._seen = self._look(host, self._device_of(host))

    def look_at_tasks(self, containers: Sequence[LocalContainer]) -> None:
        """Looks at the networks of those that have not been seen whole yet."""
        if self._gateways is None:
            self._gateways = look_at_host().gateway_network()
        found = ((container.id, self._look_into(container)) for container in containers)
        self._sandboxes = {key: sandbox for key, sandbox in found if sandbox is not None}

    def sandbox(self, container: LocalContainer) -> Sandbox | None:
        """Its network, as seen last; None if that has not been seen."""
        return self._sandboxes.get(container.id)

    def view(
        self, containers: Sequence[LocalContainer], known: Mapping[str, BackendState]
    ) -> LocalView:
        """What was seen last, without another look; `known`: what events have told of tasks."""
        seen, sandboxes = self._seen, self._sandboxes
        behind = endpoints(containers, sandboxes, seen.attachments) if self._spoof_check else {}
        known_by = namespaces(containers, sandboxes, seen.attachments) if self._vip_sockets else {}
        return LocalView(
            node_id=self._node_id,
            vtep=self._vtep,
            device=seen.device.name if seen.device else "",
            addresses=seen.addresses,
            tasks={c.task_id: _task(c, sandboxes.get(c.id), known) for c in containers},
            attachments=seen.places,
            endpoints=behind | seen.balancers,
            namespaces=known_by,
            link_up=seen.device is None or seen.device.up,
        )

    def _device_of(self, host: HostLinks) -> Device | None:
        """The link that programs were made for; None while it is away.

        It may be without its address for a moment: that takes nothing off.
        """
        return host.again(self._known) if self._known else host.device(self._device, self._vtep)

    def _look(self, host: HostLinks, device: Device | None) -> _Links:
        found = self._host_attachments(host, device)
        balancers = {}
        for path in overlay_paths(self._netns_dir):
            inside = overlay_attachments(path)
            found += inside
            if inside and (balancer := look_at_balancer(balancer_path(path))):
                balancers[EndpointKey(inside[0].vni, 0)] = balancer
        return _Links(device, host.own_addresses(), found, frozenset(found), balancers)

    def _host_attachments(self, host: HostLinks, device: Device | None) -> list[Attachment]:
        found = nic_attachments(host, device, self._interfaces)
        return found + host.gateway_attachments()

    def _look_into(self, container: LocalContainer) -> Sandbox | None:
        """A container's network does not change once all that dockerd gave it is there."""
        seen = self._sandboxes.get(container.id)
        given = {end.address for end in container.endpoints.values()}
        if seen is not None and seen.gateway is not None and given <= seen.macs.keys():
            return seen
        return look_at_sandbox(container.sandbox, self._gateways) if container.sandbox else None


def _task(
    container: LocalContainer, sandbox: Sandbox | None, known: Mapping[str, BackendState]
) -> LocalTask:
    return LocalTask(
        id=container.task_id,
        container_id=container.id,
        state=max(container.state, known.get(container.task_id, BackendState.READY)),
        gateway=sandbox.gateway if sandbox else None,
        macs=sandbox.macs if sandbox else {},
    )
