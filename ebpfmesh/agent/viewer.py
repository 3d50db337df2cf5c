# SPDX-License-Identifier: Apache-2.0
"""What the agent sees of its own node: the `LocalView`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from ebpfmesh.agent.senders import endpoints
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


class Viewer:
    """Looks at the node. Blocks on netlink: call it in a thread, one call at a time."""

    def __init__(
        self,
        node_id: str,
        vtep: str,
        device: str,
        netns_dir: Path,
        interfaces: Sequence[str] = (),
        *,
        spoof_check: bool = True,
    ) -> None:
        self._node_id = node_id
        self._vtep = vtep
        self._device = device
        self._netns_dir = netns_dir
        self._interfaces = interfaces
        self._known: Device | None = None
        self._spoof_check = spoof_check
        self._sandboxes: dict[str, Sandbox] = {}
        self._balancers: dict[EndpointKey, Endpoint] = {}

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
        return self._attachments(host, self._device_of(host))

    def look(
        self, containers: Sequence[LocalContainer], known: Mapping[str, BackendState]
    ) -> LocalView:
        """One whole look; `known` holds what events have told of tasks meanwhile."""
        host = look_at_host()
        device = self._device_of(host)
        tasks = self._tasks(containers, known, host.gateway_network())
        attachments = self._attachments(host, device)
        return LocalView(
            node_id=self._node_id,
            vtep=self._vtep,
            device=device.name if device else "",
            addresses=host.own_addresses(),
            tasks=tasks,
            attachments=frozenset(attachments),
            endpoints=(
                endpoints(containers, self._sandboxes, attachments) if self._spoof_check else {}
            )
            | self._balancers,
            link_up=device is None or device.up,
        )

    def _device_of(self, host: HostLinks) -> Device | None:
        """The link that programs were made for; None while it is away.

        It may be without its address for a moment: that takes nothing off.
        """
        return host.again(self._known) if self._known else host.device(self._device, self._vtep)

    def _attachments(self, host: HostLinks, device: Device | None) -> list[Attachment]:
        found = self._host_attachments(host, device)
        self._balancers = {}
        for path in overlay_paths(self._netns_dir):
            inside = overlay_attachments(path)
            found += inside
            if inside and (balancer := look_at_balancer(balancer_path(path))):
                self._balancers[EndpointKey(inside[0].vni, 0)] = balancer
        return found

    def _host_attachments(self, host: HostLinks, device: Device | None) -> list[Attachment]:
        found = nic_attachments(host, device, self._interfaces)
        return found + host.gateway_attachments()

    def _tasks(
        self,
        containers: Sequence[LocalContainer],
        known: Mapping[str, BackendState],
        gateways: IPv4Network | None,
    ) -> dict[str, LocalTask]:
        living = {container.id for container in containers}
        self._sandboxes = {k: v for k, v in self._sandboxes.items() if k in living}
        return {c.task_id: self._task(c, known, gateways) for c in containers}

    def _task(
        self,
        container: LocalContainer,
        known: Mapping[str, BackendState],
        gateways: IPv4Network | None,
    ) -> LocalTask:
        sandbox = self._sandbox(container, gateways)
        return LocalTask(
            id=container.task_id,
            container_id=container.id,
            state=max(container.state, known.get(container.task_id, BackendState.READY)),
            gateway=sandbox.gateway if sandbox else None,
            macs=sandbox.macs if sandbox else {},
        )

    def _sandbox(self, container: LocalContainer, gateways: IPv4Network | None) -> Sandbox | None:
        """A container's network does not change once all that dockerd gave it is there."""
        seen = self._sandboxes.get(container.id)
        given = {end.address for end in container.endpoints.values()}
        if seen is not None and seen.gateway is not None and given <= seen.macs.keys():
            return seen
        if not container.sandbox:
            return None
        sandbox = look_at_sandbox(container.sandbox, gateways)
        if sandbox is not None:
            self._sandboxes[container.id] = sandbox
        return sandbox
