# SPDX-License-Identifier: Apache-2.0
"""A made-up Swarm of any size, as dockerd's API would list it, and one node's own view. Pure.

Services and tasks are spread evenly over networks and nodes. Objects have the fields that real ones
have, read or not: what an answer costs depends on its length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from ebpfmesh.model import (
    Attachment,
    BackendState,
    Gateway,
    LocalTask,
    LocalView,
    MeshState,
    Task,
)
from ebpfmesh.swarm.api import NetworkDoc, NodeDoc, ServiceDoc, TaskDoc, decode
from ebpfmesh.swarm.mesh import Snapshot, mesh_state

Doc = dict[str, Any]

FIRST_PORT = 20000
FIRST_VNI = 4097
TARGET_PORT = 80
_DATE = "2026-01-01T00:00:00.000000000Z"


@dataclass(frozen=True)
class Size:
    """How large a Swarm is. Every `publishing`-th service publishes a port; 0: none does.

    The first `large` tasks are all of service 0, the others go round the other services.
    """

    services: int = 1000
    tasks: int = 10_000
    nodes: int = 100
    networks: int = 20
    publishing: int = 5
    large: int = 0


def _id(kind: str, number: int) -> str:
    """25 characters, as Swarm's ids have."""
    return f"{kind}{number:0{25 - len(kind)}d}"


def service_id(number: int) -> str:
    """The id of a service, counted from 0."""
    return _id("service", number)


def task_id(number: int) -> str:
    """The id of a task. Neighbours by number are not neighbours in order of id."""
    return _id("task", number * 7919 % 1_000_003)


def node_id(number: int) -> str:
    """The id of a node, counted from 0."""
    return _id("node", number)


def network_id(number: int) -> str:
    """The id of an overlay network; 0 is the ingress network."""
    return _id("network", number)


def vni(network: int) -> int:
    """The VNI of an overlay network."""
    return FIRST_VNI + network


def _host(number: int) -> str:
    """The host part of an address in a /16, past what Docker keeps for itself."""
    return f"{(number + 10) // 250}.{(number + 10) % 250 + 1}"


def vip(service: int, network: int) -> str:
    """A service's address on its network: above those of all tasks."""
    return f"10.{network}.{255 - service // 250}.{service % 250 + 1}"


def task_address(task: int, network: int) -> str:
    """A task's address on a network."""
    return f"10.{network}.{_host(task)}"


def vtep(node: int) -> str:
    """A node's address on the underlay."""
    return f"172.20.{node // 250}.{node % 250 + 1}"


def home(service: int, size: Size) -> int:
    """The network that a service is on."""
    return service % size.networks + 1


def service_of(task: int, size: Size) -> int:
    """Whose task it is."""
    if task < size.large:
        return 0
    rest = size.services - (size.large > 0)
    return size.services - 1 - (task - size.large) % rest


def publishes(service: int, size: Size) -> bool:
    """Whether a service has a published port."""
    return size.publishing > 0 and service % size.publishing == 0


# --- the API's answers ------------------------------------------------------------------


def documents(size: Size) -> dict[str, list[Doc]]:
    """What a manager answers: path -> list of objects."""
    return {
        "/services": [service_doc(number, size) for number in range(size.services)],
        "/tasks": [task_doc(n, service_of(n, size), size) for n in range(size.tasks)],
        "/nodes": [_node_doc(number) for number in range(size.nodes)],
        "/networks": [_network_doc(number) for number in range(size.networks + 1)],
    }


def service_doc(number: int, size: Size) -> Doc:
    """A service as `GET /services` lists it."""
    network = home(number, size)
    ports = [_port(number)] if publishes(number, size) else []
    vips = [{"NetworkID": network_id(network), "Addr": f"{vip(number, network)}/16"}]
    if ports:
        vips.append({"NetworkID": network_id(0), "Addr": f"{vip(number, 0)}/16"})
    spec = {
        "Name": f"stack_service-{number}",
        "Labels": {"com.docker.stack.namespace": "stack"},
        "TaskTemplate": _template(number, network),
        "Mode": {"Replicated": {"Replicas": max(1, size.tasks // size.services)}},
        "UpdateConfig": {"Parallelism": 1, "FailureAction": "pause", "Order": "start-first"},
        "EndpointSpec": {"Mode": "vip", "Ports": ports},
    }
    return {
        **_head(service_id(number), 1000 + number),
        "Spec": spec,
        "Endpoint": {"Spec": spec["EndpointSpec"], "Ports": ports, "VirtualIPs": vips},
    }


def task_doc(number: int, service: int, size: Size, *, wanted: str = "running") -> Doc:
    """A running task as `GET /tasks` lists it; `wanted` is its desired state."""
    networks = [home(service, size), *([0] if publishes(service, size) else [])]
    return {
        **_head(task_id(number), 10_000 + number),
        "Labels": {},
        "Spec": _template(service, home(service, size)),
        "ServiceID": service_id(service),
        "Slot": number // size.services + 1,
        "NodeID": node_id(number % size.nodes),
        "Status": {
            "Timestamp": _DATE,
            "State": "running",
            "Message": "started",
            "ContainerStatus": {"ContainerID": f"{number:064x}", "PID": 1000 + number},
            "PortStatus": {},
        },
        "DesiredState": wanted,
        "NetworksAttachments": [
            {
                "Network": _network_doc(network),
                "Addresses": [f"{task_address(number, network)}/16"],
            }
            for network in networks
        ],
    }


def _head(an_id: str, index: int) -> Doc:
    return {"ID": an_id, "Version": {"Index": index}, "CreatedAt": _DATE, "UpdatedAt": _DATE}


def _port(service: int) -> Doc:
    return {
        "Protocol": "tcp",
        "TargetPort": TARGET_PORT,
        "PublishedPort": FIRST_PORT + service,
        "PublishMode": "ingress",
    }


def _template(service: int, network: int) -> Doc:
    """What a service's tasks are made of; nothing of it is read."""
    return {
        "ContainerSpec": {
            "Image": f"registry.example.org/team/service-{service}:1.0@sha256:{service:064x}",
            "Labels": {"com.docker.stack.namespace": "stack"},
            "Env": [f"VARIABLE_{n}=some value of it" for n in range(8)],
            "Privileges": {"CredentialSpec": None, "SELinuxContext": None},
            "Isolation": "default",
        },
        "Resources": {"Limits": {"MemoryBytes": 536870912}, "Reservations": {}},
        "RestartPolicy": {"Condition": "any", "Delay": 5000000000, "MaxAttempts": 0},
        "Placement": {"Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
        "Networks": [{"Target": network_id(network), "Aliases": [f"service-{service}"]}],
        "ForceUpdate": 0,
        "Runtime": "container",
    }


def _node_doc(number: int) -> Doc:
    return {
        **_head(node_id(number), 10 + number),
        "Spec": {"Labels": {}, "Role": "worker" if number else "manager", "Availability": "active"},
        "Description": {
            "Hostname": f"node-{number}",
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 8000000000, "MemoryBytes": 33554432000},
            "Engine": {"EngineVersion": "28.5.2"},
        },
        "Status": {"State": "ready", "Addr": vtep(number)},
        "ManagerStatus": None if number else {"Leader": True, "Addr": f"{vtep(0)}:2377"},
    }


def _network_doc(number: int) -> Doc:
    """A network as `GET /networks` lists it, with what a task's attachment says of it, too."""
    ingress = number == 0
    name = "ingress" if ingress else f"stack_network-{number}"
    return {
        **_head(network_id(number), 100 + number),
        "Id": network_id(number),
        "Name": name,
        "Created": _DATE,
        "Scope": "swarm",
        "Driver": "overlay",
        "Ingress": ingress,
        "IPAM": {"Driver": "default", "Config": [{"Subnet": f"10.{number}.0.0/16"}]},
        "Options": {"com.docker.network.driver.overlay.vxlanid_list": str(vni(number))},
        "Spec": {"Name": name, "Ingress": ingress, "DriverConfiguration": {"Name": "overlay"}},
    }


# --- what is made of them ---------------------------------------------------------------


def snapshot(documents: dict[str, list[Doc]]) -> Snapshot:
    """The answers, read."""
    return Snapshot(
        services=decode(documents["/services"], list[ServiceDoc]),
        tasks=decode(documents["/tasks"], list[TaskDoc]),
        nodes=decode(documents["/nodes"], list[NodeDoc]),
        networks=decode(documents["/networks"], list[NetworkDoc]),
    )


def mesh(size: Size) -> MeshState:
    """The state that a hub makes of such a Swarm."""
    return mesh_state(snapshot(documents(size)), {}, 1)


def without(state: MeshState, *tasks: str) -> MeshState:
    """The next state, in which these tasks are gone."""
    left = {key: task for key, task in state.tasks.items() if key not in tasks}
    return msgspec.structs.replace(state, version=state.version + 1, tasks=left)


def with_tasks(state: MeshState, tasks: dict[str, Task]) -> MeshState:
    """The next state, in which these tasks have come or changed."""
    return msgspec.structs.replace(state, version=state.version + 1, tasks=state.tasks | tasks)


def local_view(state: MeshState, size: Size, *, node: int = 0, ifindex: int = 1) -> LocalView:
    """What a node sees that has tasks on every overlay network; its containers are `ifindex`.

    The attachments say which networks are served: nothing has to be there.
    """
    overlays = range(1, size.networks + 1)
    own = [task for task in state.tasks.values() if task.node_id == node_id(node)]
    return LocalView(
        node_id=node_id(node),
        vtep=vtep(node),
        device="nic0",
        addresses=frozenset({vtep(node)}),
        tasks={task.id: _local_task(task, number, ifindex) for number, task in enumerate(own)},
        attachments=frozenset(
            Attachment("overlay", f"/run/docker/netns/1-{n}", n + 1, "veth0", vni(n))
            for n in overlays
        ),
    )


def _local_task(task: Task, number: int, ifindex: int) -> LocalTask:
    address = f"172.18.{_host(number)}"
    mac = "02:42:" + ":".join(f"{int(byte):02x}" for byte in address.split("."))
    return LocalTask(
        task.id, f"container-{number}", BackendState.READY, Gateway(address, mac, ifindex)
    )
