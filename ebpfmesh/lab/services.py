# SPDX-License-Identifier: Apache-2.0
"""Services in the lab's Swarm, as demo and tests want them: thin, over what Docker offers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ebpfmesh.lab import images
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.processes import wait_until
from ebpfmesh.lab.unix_http import get_json


class TaskContainer(NamedTuple):
    """A running task: its node, its container, its address on each network by name."""

    node: str
    container_id: str
    addresses: dict[str, str]


def create_command(
    name: str,
    command: Sequence[str] = (),
    *,
    image: str = images.ECHO,
    replicas: int = 1,
    networks: Sequence[str] = (),
    publish: Sequence[str] = (),
    options: Sequence[str] = (),
) -> list[str]:
    """Arguments for docker that create a service."""
    return [
        *("service", "create", "--quiet", "--detach", "--no-resolve-image"),
        *("--name", name, "--replicas", str(replicas)),
        *(f"--network={network}" for network in networks),
        *(f"--publish={port}" for port in publish),
        *options,
        image,
        *command,
    ]


def wait_for_replicas(manager: Path, service: str, count: int, timeout_s: float) -> None:
    """Wait until exactly so many tasks run, and none more is wanted."""

    def reached() -> bool:
        tasks = [task for task in _tasks(manager, service) if _is_wanted(task)]
        return len(tasks) == count and all(_is_running(task) for task in tasks)

    if not wait_until(reached, timeout_s, poll_s=0.1):
        raise LabError(
            f"{service} has not {count} running tasks after {timeout_s:g} s:\n"
            + "\n".join(_describe(task) for task in _tasks(manager, service))
        )


def task_containers(manager: Path, service: str) -> list[TaskContainer]:
    """The running tasks of a service."""
    nodes = {node["ID"]: node["Description"]["Hostname"] for node in get_json(manager, "/nodes")}
    return [
        TaskContainer(
            nodes[task["NodeID"]],
            task["Status"]["ContainerStatus"]["ContainerID"],
            _addresses(task),
        )
        for task in _tasks(manager, service)
        if _is_wanted(task) and _is_running(task)
    ]


def _tasks(manager: Path, service: str) -> list[dict[str, Any]]:
    filters = quote(json.dumps({"service": [service]}))
    tasks: list[dict[str, Any]] = get_json(manager, f"/tasks?filters={filters}")
    return tasks


def _is_wanted(task: dict[str, Any]) -> bool:
    return bool(task["DesiredState"] == "running")


def _is_running(task: dict[str, Any]) -> bool:
    return bool(task["Status"]["State"] == "running")


def _addresses(task: dict[str, Any]) -> dict[str, str]:
    return {
        attachment["Network"]["Spec"]["Name"]: attachment["Addresses"][0].partition("/")[0]
        for attachment in task.get("NetworksAttachments") or ()
        if attachment.get("Addresses")
    }


def _describe(task: dict[str, Any]) -> str:
    status = task["Status"]
    reason = status.get("Err") or status.get("Message") or ""
    return f"  {task['ID']}: {status['State']}, wanted {task['DesiredState']}: {reason}"
