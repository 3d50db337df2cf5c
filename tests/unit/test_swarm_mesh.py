# SPDX-License-Identifier: Apache-2.0
"""The mesh state, made of answers as dockerd gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ebpfmesh.model import BackendState, EndpointMode, MeshState, Network, Node, Port, Protocol
from ebpfmesh.swarm.api import NetworkDoc, NodeDoc, ServiceDoc, TaskDoc, decode
from ebpfmesh.swarm.errors import UnexpectedAnswer
from ebpfmesh.swarm.mesh import (
    SEQUENCE_BITS,
    Heard,
    NodeReport,
    Snapshot,
    changed_ns,
    nanoseconds,
    next_state,
    updating,
    with_tasks,
)

VNI = "com.docker.network.driver.overlay.vxlanid_list"

INGRESS = {
    "Id": "ing",
    "Name": "ingress",
    "Scope": "swarm",
    "Driver": "overlay",
    "Ingress": True,
    "Options": {VNI: "4096"},
}
FRONT = {
    "Id": "net",
    "Name": "front",
    "Scope": "swarm",
    "Driver": "overlay",
    "Ingress": False,
    "Options": {VNI: "4097,4098", "encrypted": ""},
}
WEB = {
    "ID": "web",
    "Version": {"Index": 30},
    "Spec": {
        "Name": "shop_web",
        "Labels": {"ebpfmesh.weight": "2", "com.docker.stack.namespace": "shop"},
        "EndpointSpec": {"Mode": "vip"},
    },
    "Endpoint": {
        "Ports": [
            {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
            {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 5353, "PublishMode": "host"},
        ],
        "VirtualIPs": [
            {"NetworkID": "ing", "Addr": "10.0.0.5/24"},
            {"NetworkID": "net", "Addr": "10.0.1.2/24"},
        ],
    },
}
ONE = {
    "ID": "n1",
    "Version": {"Index": 9},
    "Spec": {"Role": "manager", "Availability": "active"},
    "Description": {"Hostname": "one"},
    "Status": {"State": "ready", "Addr": "192.0.2.11"},
    "ManagerStatus": {"Leader": True, "Addr": "192.0.2.11:2377"},
}
TWO = {
    "ID": "n2",
    "Spec": {"Role": "worker"},
    "Description": {"Hostname": "two"},
    "Status": {"State": "ready", "Addr": "192.0.2.12"},
}


def task(status: str = "running", desired: str = "running", **more: object) -> dict[str, Any]:
    return {
        "ID": "t1",
        "Version": {"Index": 31},
        "ServiceID": "web",
        "NodeID": "n2",
        "DesiredState": desired,
        "Status": {"State": status, "ContainerStatus": {"ContainerID": "c1", "PID": 7}},
        "NetworksAttachments": [
            {"Network": {"ID": "ing"}, "Addresses": ["10.0.0.6/24"]},
            {"Network": {"ID": "net"}, "Addresses": ["10.0.1.3/24"]},
            {"Network": {"ID": "new"}, "Addresses": None},
        ],
        **more,
    }


Answer = dict[str, Any]


def snapshot(
    *,
    services: Sequence[Answer] = (),
    tasks: Sequence[Answer] = (),
    nodes: Sequence[Answer] = (ONE, TWO),
    networks: Sequence[Answer] = (INGRESS, FRONT),
) -> Snapshot:
    return Snapshot(
        services=decode(list(services), list[ServiceDoc]),
        tasks=decode(list(tasks), list[TaskDoc]),
        nodes=decode(list(nodes), list[NodeDoc]),
        networks=decode(list(networks), list[NetworkDoc]),
    )


def state_of(reports: dict[str, NodeReport] | None = None, **lists: Sequence[Answer]) -> MeshState:
    return next_state(MeshState(), snapshot(**lists), reports or {})


def test_a_service_has_its_vips_its_mesh_ports_and_our_labels() -> None:
    web = state_of(services=[WEB]).services["web"]
    assert web.name == "shop_web"
    assert web.mode is EndpointMode.VIP
    assert web.vips == {"net": "10.0.1.2"}
    assert web.ports == (Port(Protocol.TCP, published=8080, target=80),)
    assert web.labels == {"ebpfmesh.weight": "2"}


def test_a_service_without_an_endpoint_yet_is_listed_with_nothing_to_balance() -> None:
    bare = {"ID": "s", "Spec": {"Name": "s", "Labels": None}, "Endpoint": {}}
    service = state_of(services=[bare]).services["s"]
    assert (service.mode, service.vips, service.ports) == (EndpointMode.VIP, {}, ())


@pytest.mark.parametrize(("mode", "listed"), [("vip", True), ("dnsrr", True), ("later", False)])
def test_only_known_modes_are_listed(mode: str, listed: bool) -> None:
    service = {"ID": "s", "Spec": {"Name": "s", "EndpointSpec": {"Mode": mode}}}
    assert ("s" in state_of(services=[service]).services) is listed


def test_networks_are_the_swarms_overlays_that_have_a_vni() -> None:
    others: list[Answer] = [
        {"Id": "bridge", "Name": "bridge", "Scope": "local", "Driver": "bridge", "Options": {}},
        {"Id": "new", "Name": "new", "Scope": "swarm", "Driver": "overlay", "Options": None},
    ]
    assert state_of(networks=[INGRESS, FRONT, *others]).networks == {
        "ing": Network("ing", "ingress", 4096, ingress=True),
        "net": Network("net", "front", 4097, encrypted=True),
    }


@pytest.mark.parametrize("value", ["", "true", "false"])
def test_an_encrypted_ingress_is_told_by_the_options_name(value: str) -> None:
    doc = {**INGRESS, "Options": {VNI: "4096", "encrypted": value}}
    assert state_of(networks=[doc]).networks["ing"].encrypted


def test_a_nodes_own_word_on_its_vtep_counts() -> None:
    nodes = state_of({"n2": NodeReport(vtep="198.51.100.2")}).nodes
    assert nodes["n1"] == Node("n1", "one", "192.0.2.11", "192.0.2.11", manager=True)
    assert nodes["n2"] == Node("n2", "two", "192.0.2.12", "198.51.100.2")


@pytest.mark.parametrize(
    "said",
    ["", "nonsense", "1", "2001:db8::1", "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"],
)
def test_a_vtep_that_no_node_can_have_is_not_believed(said: str) -> None:
    nodes = state_of({"n2": NodeReport(vtep=said)}).nodes
    assert nodes["n2"].vtep == "192.0.2.12"
    lost = {**TWO, "Status": {"State": "ready", "Addr": said}}
    assert state_of(nodes=[ONE, lost]).nodes["n2"].vtep == ""


@pytest.mark.parametrize(
    ("state", "up"),
    [("ready", True), ("unknown", True), ("down", False), ("disconnected", False)],
)
def test_a_new_leaders_ignorance_takes_no_node_down(state: str, up: bool) -> None:
    node = {**TWO, "Status": {"State": state}}
    assert state_of(nodes=[node]).nodes["n2"].up is up


@pytest.mark.parametrize(
    ("status", "desired", "expected"),
    [
        ("running", "running", BackendState.READY),
        ("running", "shutdown", BackendState.DRAINING),
        ("running", "remove", BackendState.DRAINING),
        ("starting", "running", None),
        ("ready", "running", None),
        ("failed", "shutdown", None),
        ("complete", "shutdown", None),
    ],
)
def test_a_task_is_in_if_it_runs_and_shall_run(
    status: str, desired: str, expected: BackendState | None
) -> None:
    tasks = state_of(tasks=[task(status, desired)]).tasks
    assert (tasks["t1"].state if tasks else None) == expected


def test_a_task_has_its_addresses() -> None:
    found = state_of(tasks=[task()]).tasks["t1"]
    assert found.addresses == {"ing": "10.0.0.6", "net": "10.0.1.3"}
    assert (found.service_id, found.node_id) == ("web", "n2")


def test_a_task_without_a_node_or_a_network_is_no_trouble() -> None:
    assert state_of(tasks=[task(NodeID=None)]).tasks == {}
    assert state_of(tasks=[task(NetworksAttachments=None)]).tasks["t1"].addresses == {}


@pytest.mark.parametrize(
    ("desired", "expected"), [("running", BackendState.DRAINING), ("shutdown", None)]
)
def test_a_down_nodes_tasks_drain_and_are_given_up_once_replaced(
    desired: str, expected: BackendState | None
) -> None:
    down = {**TWO, "Status": {"State": "down", "Addr": "192.0.2.12"}}
    tasks = state_of(tasks=[task(desired=desired)], nodes=[ONE, down]).tasks
    assert (tasks["t1"].state if tasks else None) == expected


@pytest.mark.parametrize("listed", ["running", "shutdown"])
@pytest.mark.parametrize("reported", BackendState)
def test_the_worse_of_two_words_on_a_task_counts(listed: str, reported: BackendState) -> None:
    api = BackendState.READY if listed == "running" else BackendState.DRAINING
    reports = {"n2": NodeReport(tasks={"t1": reported, "other": BackendState.GONE})}
    assert state_of(reports, tasks=[task(desired=listed)]).tasks["t1"].state == max(api, reported)


def test_only_its_own_node_speaks_for_a_task() -> None:
    reports = {"n1": NodeReport(tasks={"t1": BackendState.GONE})}
    assert state_of(reports, tasks=[task()]).tasks["t1"].state is BackendState.READY


def test_the_version_follows_the_managers_log_and_counts_in_between() -> None:
    first = state_of(services=[WEB], tasks=[task()])
    assert first.version == 31 << SEQUENCE_BITS
    same = snapshot(services=[WEB], tasks=[task()])
    assert next_state(first, same, {}) is first
    reports = {"n2": NodeReport(tasks={"t1": BackendState.GONE})}
    second = next_state(first, same, reports)
    assert second.version == first.version + 1
    third = next_state(second, snapshot(services=[WEB], tasks=[]), reports)
    assert third.version == second.version + 1
    newer = task(Version={"Index": 40})
    assert next_state(third, snapshot(tasks=[newer]), {}).version == 40 << SEQUENCE_BITS


def test_an_empty_swarm_has_a_state_of_its_own() -> None:
    empty = Snapshot()
    first = next_state(MeshState(), empty, {})
    assert first.version == 1
    assert next_state(first, empty, {}) is first


def test_an_answer_of_another_shape_names_the_place() -> None:
    with pytest.raises(UnexpectedAnswer, match=r"\$\[0\]"):
        decode([{"Name": "no id"}], list[TaskDoc])


def test_a_fresh_task_waits_for_its_nodes_word() -> None:
    listed = snapshot(services=[WEB], tasks=[task()])

    def state(fresh: set[str], reports: dict[str, NodeReport]) -> BackendState:
        return next_state(MeshState(), listed, reports, fresh).tasks["t1"].state

    silent = {"n2": NodeReport(vtep="192.0.2.12", tasks={"t0": BackendState.READY})}
    assert state({"t1"}, {}) is BackendState.STARTING
    assert state({"t1"}, silent) is BackendState.STARTING
    assert state({"t1"}, {"n2": NodeReport(tasks={"t1": BackendState.READY})}) is BackendState.READY
    assert state(set(), {}) is BackendState.READY
    assert (
        state(set(), {"n2": NodeReport(tasks={"t1": BackendState.STARTING})})
        is BackendState.STARTING
    )


def test_nobodys_word_is_waited_for_where_started_is_enough() -> None:
    labels = {"Name": "web", "Labels": {"ebpfmesh.ready": "started"}}
    listed = snapshot(services=[{**WEB, "Spec": labels}], tasks=[task()])
    assert next_state(MeshState(), listed, {}, {"t1"}).tasks["t1"].state is BackendState.READY


@pytest.mark.parametrize(
    ("desired", "report", "node_state", "well"),
    [
        ("shutdown", BackendState.READY, "ready", True),
        ("shutdown", BackendState.DRAINING, "ready", False),
        ("shutdown", None, "ready", False),
        ("running", BackendState.READY, "ready", False),
        ("running", BackendState.READY, "down", False),
    ],
)
def test_a_task_that_drains_is_well_until_it_is_told_to_stop(
    desired: str, report: BackendState | None, node_state: str, well: bool
) -> None:
    reports = {"n2": NodeReport(tasks={"t1": report} if report else {})}
    nodes = [ONE, {**TWO, "Status": {"State": node_state}}]
    assert state_of(reports, tasks=[task(desired=desired)], nodes=nodes).tasks["t1"].well is well


def at(second: int) -> str:
    return f"2026-01-02T03:04:{second:02d}.123456789Z"


@pytest.mark.parametrize(
    ("old", "new", "second"),
    [
        (task(), task(desired="shutdown", UpdatedAt=at(5)), 5),
        (task("starting"), task(UpdatedAt=at(6)), 6),
        (task(UpdatedAt=at(5)), task("failed", UpdatedAt=at(7)), 7),
        (task("preparing", UpdatedAt=at(5)), task("starting", UpdatedAt=at(6)), None),
        (task(UpdatedAt=at(5)), task(UpdatedAt=at(5)), None),
        (task(), task(UpdatedAt="soon"), None),
    ],
)
def test_when_a_change_was_made(old: Answer, new: Answer, second: int | None) -> None:
    """The managers say; what came to no flows, and goes to none, is no change of ours."""
    found = changed_ns(snapshot(tasks=[old]), snapshot(tasks=[new]))
    assert found == (nanoseconds(at(second)) if second else 0)
    assert changed_ns(None, snapshot(tasks=[new])) == 0


def test_the_first_of_several_changes_counts() -> None:
    node = {**TWO, "Status": {"State": "down"}, "UpdatedAt": at(9)}
    new = snapshot(
        tasks=[task(UpdatedAt=at(8))], nodes=[ONE, node], services=[{**WEB, "UpdatedAt": at(7)}]
    )
    assert changed_ns(snapshot(), new) == nanoseconds(at(7))


def test_a_time_as_dockerd_writes_it() -> None:
    assert nanoseconds("1970-01-01T00:00:01.5Z") == 1_500_000_000
    assert nanoseconds("") == 0


def test_newer_tasks_take_none_away() -> None:
    old = snapshot(tasks=[task(), {**task(), "ID": "t2"}])
    (newer,) = snapshot(tasks=[task(desired="shutdown")]).tasks
    both = {doc.id: doc.desired_state for doc in with_tasks(old, [newer]).tasks}
    assert both == {"t1": "shutdown", "t2": "running"}


@pytest.mark.parametrize(
    ("state", "expected"), [("updating", True), ("rollback_started", True), ("completed", False)]
)
def test_whether_a_service_is_being_updated(state: str, expected: bool) -> None:
    service = {**WEB, "UpdateStatus": {"State": state}}
    assert updating(snapshot(services=[WEB, service]).services) is expected


def test_a_node_that_no_hub_hears_is_marked_with_the_time() -> None:
    listed = snapshot()
    before = next_state(MeshState(), listed, {})
    state = next_state(before, listed, {}, (), Heard({"n2": 7}))
    assert (state.nodes["n1"].silent_ns, state.nodes["n2"].silent_ns) == (0, 7)
    assert state.version > before.version
    assert next_state(state, listed, {}).nodes == before.nodes


@pytest.mark.parametrize("desired", ["running", "shutdown"])
def test_tasks_of_a_node_that_is_down_but_there_drain(desired: str) -> None:
    """Only its dockerd is dead: who is connected to them goes on, and nobody else comes."""
    down = {**TWO, "Status": {"State": "down", "Addr": "192.0.2.12"}}
    listed = snapshot(services=[WEB], tasks=[task(desired=desired)], nodes=[ONE, down])
    there = next_state(MeshState(), listed, {}, (), Heard(there=frozenset({"n2"})))
    assert there.tasks["t1"].state is BackendState.DRAINING
    assert not there.tasks["t1"].well
    lost = next_state(there, listed, {}, (), Heard())
    assert ("t1" in lost.tasks) is (desired == "running")
