# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from ebpfmesh.agent.senders import endpoints, namespaces
from ebpfmesh.datapath.attach import Role
from ebpfmesh.datapath.discover import Sandbox
from ebpfmesh.model import (
    Attachment,
    BackendState,
    Endpoint,
    EndpointKey,
    Gateway,
    Membership,
)
from ebpfmesh.swarm.local import Endpoint as DockerEndpoint
from ebpfmesh.swarm.local import LocalContainer

NETWORK, OTHER = "abcdefghijklmnopqrstuvwxy", "0123456789abcdefghijklmno"
VNI, OTHER_VNI = 4097, 4098
WEB, WEB_MAC = "10.0.1.5", "02:42:0a:00:01:05"
OUT, OUT_MAC = "172.18.0.5", "02:42:ac:12:00:05"
PLACES = (
    Attachment(Role.OVERLAY, "/ns/1-abcdefghij", 7, "veth0", VNI),
    Attachment(Role.OVERLAY, "/ns/1-0123456789", 7, "veth0", OTHER_VNI),
    Attachment(Role.GATEWAY, "", 9, "veth9"),
)
SANDBOX = Sandbox(Gateway(OUT, OUT_MAC, 9), {WEB: WEB_MAC, OUT: OUT_MAC}, {WEB: 7, OUT: 9})


def container(**fields: object) -> LocalContainer:
    known: dict[str, object] = {
        "id": "c1",
        "task_id": "t1",
        "service_id": "s1",
        "sandbox": "/ns/c1",
        "pid": 1,
        "state": BackendState.READY,
        "endpoints": {NETWORK: DockerEndpoint(WEB, WEB_MAC)},
        "gateway": DockerEndpoint(OUT, OUT_MAC),
    }
    return LocalContainer(**(known | fields))  # type: ignore[arg-type]


def test_both_ways_out_of_a_task() -> None:
    assert endpoints([container()], {"c1": SANDBOX}, PLACES) == {
        EndpointKey(VNI, 7): Endpoint(WEB, WEB_MAC),
        EndpointKey(0, 9): Endpoint(OUT, OUT_MAC),
    }


def test_what_a_container_calls_itself_does_not_count() -> None:
    """It has given its links another address and another MAC, and its way out another, too."""
    lies = Sandbox(
        Gateway("172.18.0.1", OUT_MAC, 9),
        {WEB: "02:42:0a:00:01:03", "10.0.1.3": "02:42:0a:00:01:03"},
        {WEB: 7, "10.0.1.3": 7},
    )
    found = endpoints([container()], {"c1": lies}, PLACES)
    assert found == {EndpointKey(VNI, 7): Endpoint(WEB, WEB_MAC)}


def test_mac_is_read_where_dockerd_does_not_tell() -> None:
    bare = container(endpoints={NETWORK: DockerEndpoint(WEB, "")}, gateway=DockerEndpoint(OUT, ""))
    assert endpoints([bare], {"c1": SANDBOX}, PLACES) == {
        EndpointKey(VNI, 7): Endpoint(WEB, WEB_MAC),
        EndpointKey(0, 9): Endpoint(OUT, OUT_MAC),
    }


def test_who_is_not_known_is_left_out() -> None:
    assert endpoints([container()], {}, PLACES) == {}
    assert endpoints([container()], {"c1": SANDBOX}, PLACES[1:2]) == {
        EndpointKey(0, 9): Endpoint(OUT, OUT_MAC)
    }
    nowhere = Sandbox(None, {}, {})
    assert endpoints([container()], {"c1": nowhere}, PLACES) == {}
    assert endpoints([container(gateway=None, endpoints={})], {"c1": SANDBOX}, PLACES) == {}


COOKIE = 1234
KNOWN = Sandbox(SANDBOX.gateway, SANDBOX.macs, {**SANDBOX.peers, "10.0.2.5": 7}, COOKIE)


def test_networks_of_a_tasks_namespace() -> None:
    ends = {NETWORK: DockerEndpoint(WEB, WEB_MAC), OTHER: DockerEndpoint("10.0.2.5", "")}
    found = namespaces([container(endpoints=ends)], {"c1": KNOWN}, PLACES)
    assert found == {COOKIE: (Membership(VNI, WEB), Membership(OTHER_VNI, "10.0.2.5"))}


def test_namespace_is_known_only_where_its_network_is_for_sure() -> None:
    assert namespaces([container()], {}, PLACES) == {}
    assert namespaces([container()], {"c1": SANDBOX}, PLACES) == {}  # without its cookie
    assert namespaces([container()], {"c1": KNOWN}, PLACES[1:]) == {}
    assert namespaces([container(endpoints={})], {"c1": KNOWN}, PLACES) == {}
