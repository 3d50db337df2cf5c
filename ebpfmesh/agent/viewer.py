# SPDX-License-Identifier: Apache-2.0
"""What the agent sees of its own node: the `LocalView`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from ebpfmesh.datapath.attach import Role
from ebpfmesh.datapath.discover import (
    Device,
    HostLinks,
    Sandbox,
    look_at_host,
    look_at_sandbox,
    overlay_attachments,
    overlay_paths,
)
from ebpfmesh.model import Attachment, BackendState, LocalTask, LocalView
from ebpfmesh.swarm.local import LocalContainer


class Viewer:
    """Looks at the node. Blocks on netlink: call it in a thread, one call at a time."""

    def __init__(self, node_id: str, vtep: str, device: str, netns_dir: Path) -> None:
        self._node_id = node_id
        self._vtep = vtep
        self._device = device
        self._netns_dir = netns_dir
        self._sandboxes: dict[str, Sandbox] = {}

    def device(self) -> Device:
        """The link that carries VXLAN. Raises `DeviceNotFound`."""
        return look_at_host().device(self._device, self._vtep)

    def look(
        self, containers: Sequence[LocalContainer], known: Mapping[str, BackendState]
    ) -> LocalView:
        """One whole look; `known` holds what events have told of tasks meanwhile."""
        host = look_at_host()
        device = host.device(self._device, self._vtep)
        tasks = self._tasks(containers, known, host.gateway_network())
        return LocalView(
            node_id=self._node_id,
            vtep=self._vtep,
            device=device.name,
            addresses=host.own_addresses(),
            tasks=tasks,
            attachments=frozenset(self._attachments(host, device)),
        )

    def _attachments(self, host: HostLinks, device: Device) -> list[Attachment]:
        found = [Attachment(role=Role.NIC, netns="", ifindex=device.index, name=device.name)]
        found += host.gateway_attachments()
        for path in overlay_paths(self._netns_dir):
            found += overlay_attachments(path)
        return found

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
        """A container's network does not change once its way out is there: looked at once."""
        seen = self._sandboxes.get(container.id)
        if seen is not None and seen.gateway is not None:
            return seen
        if not container.sandbox:
            return None
        sandbox = look_at_sandbox(container.sandbox, gateways)
        if sandbox is not None:
            self._sandboxes[container.id] = sandbox
        return sandbox
