from __future__ import annotations

from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from ebpfmesh.config import Config
from ebpfmesh.metrics import ConvergenceTimer, SyncTimer, backend_states, families, render
from ebpfmesh.status import (
    STATUS_VERSION,
    BackendStatus,
    DatapathStatus,
    FrontendStatus,
    HubStatus,
    MapStatus,
    NicStatus,
    NodeStatus,
    ServiceStatus,
    Status,
    Traffic,
)

TRAFFIC = Traffic(10, 8, 1000, 800, 3)
ENTERED = Traffic(packets_to_backend=7, bytes_to_backend=700, connections=2)


def a_backend(address: str, state: str = "ready", traffic: Traffic = TRAFFIC) -> BackendStatus:
    return BackendStatus("task" + address, address, "node1", True, state, traffic)


def a_service(**changes: Any) -> ServiceStatus:
    service = ServiceStatus(
        id="s1",
        name="web",
        network="ingress",
        vni=4096,
        mode="vip",
        state="ok",
        ready=1,
        total=1,
        flows=5,
        frontends=(FrontendStatus("tcp:8080", "port", 80, TRAFFIC, ENTERED),),
        backends=(a_backend("10.0.0.5"),),
    )
    return msgspec.structs.replace(service, **changes)


def a_status(*services: ServiceStatus, **changes: Any) -> Status:
    status = Status(
        version=STATUS_VERSION,
        problems=(),
        node=NodeStatus("n1", "node1", "192.0.2.11", 60.0, "0.1.0", "20.10.24"),
        datapath=DatapathStatus("eth0", "native", "tunnel", 4, 16381, 1, 15461121),
        hub=HubStatus("hub", True, "192.0.2.11", 5.0, 9, 0.5),
        maps=(MapStatus("flows", 12, 262144),),
        services=services,
        drops={"no_backend": 4},
        handbacks={"not_ipv4": 6},
        retries={"second_chance": 2},
        notes=(),
        syncs=3,
        sync_errors=1,
    )
    return msgspec.structs.replace(status, **changes)


ORDER = (
    *("service", "network", "frontend", "backend", "reason", "map", "state", "direction"),
    *("device", "xdp", "le"),
)


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    """Name and label values -> value; a series that occurs twice fails."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = [sample.labels[name] for name in ORDER if name in sample.labels]
            key = (sample.name, *labels)
            assert key not in found
            found[key] = sample.value
    return found


def test_a_status_becomes_metrics() -> None:
    found = samples(render(a_status(a_service())))
    expected: dict[tuple[str, ...], float] = {
        ("ebpfmesh_service_packets_total", "web", "ingress", "tcp:8080", "to_backend"): 10,
        ("ebpfmesh_service_packets_total", "web", "ingress", "tcp:8080", "to_client"): 8,
        ("ebpfmesh_service_bytes_total", "web", "ingress", "tcp:8080", "to_client"): 800,
        ("ebpfmesh_service_connections_total", "web", "ingress", "tcp:8080"): 3,
        ("ebpfmesh_entry_packets_total", "web", "ingress", "tcp:8080", "to_backend"): 7,
        ("ebpfmesh_entry_connections_total", "web", "ingress", "tcp:8080"): 2,
        ("ebpfmesh_backend_bytes_total", "web", "ingress", "10.0.0.5", "to_backend"): 1000,
        ("ebpfmesh_backend_connections_total", "web", "ingress", "10.0.0.5"): 3,
        ("ebpfmesh_service_backends", "web", "ingress", "ready"): 1,
        ("ebpfmesh_service_backends", "web", "ingress", "draining"): 0,
        ("ebpfmesh_service_backends_avoided", "web", "ingress"): 0,
        ("ebpfmesh_flows", "web", "ingress"): 5,
        ("ebpfmesh_drops_total", "no_backend"): 4,
        ("ebpfmesh_handbacks_total", "not_ipv4"): 6,
        ("ebpfmesh_retries_total", "second_chance"): 2,
        ("ebpfmesh_map_entries", "flows"): 12,
        ("ebpfmesh_map_max_entries", "flows"): 262144,
        ("ebpfmesh_hub_connected",): 1,
        ("ebpfmesh_hub_state_age_seconds",): 0.5,
        ("ebpfmesh_nodes_unreachable",): 0,
        ("ebpfmesh_healthy",): 1,
        ("ebpfmesh_syncs_total",): 3,
        ("ebpfmesh_sync_errors_total",): 1,
    }
    assert expected.items() <= found.items()


def test_nics_and_what_is_under_way() -> None:
    datapath = msgspec.structs.replace(
        a_status().datapath,
        nics=(NicStatus("eth0", "native"), NicStatus("eth1", "off")),
        mode="giving_back",
        takeover_left_s=12.5,
    )
    found = samples(render(a_status(datapath=datapath)))
    assert found["ebpfmesh_nic", "eth0", "native"] == found["ebpfmesh_nic", "eth1", "off"] == 1
    assert found["ebpfmesh_giving_back",] == 1
    assert found["ebpfmesh_takeover_seconds_left",] == 12.5


def test_labels_may_be_any_text() -> None:
    names = ['a"b', "back\\slash", "größe", 'x",y="z', "}", "<b>", "two words"]
    services = [a_service(name=name) for name in names]
    found = samples(render(a_status(*services)))
    for name in names:
        assert found["ebpfmesh_flows", name, "ingress"] == 5


def test_one_address_is_one_series() -> None:
    """A task that is gone and a new one may share an address for a while."""
    twins = (a_backend("10.0.0.5", "gone"), a_backend("10.0.0.5"))
    found = samples(render(a_status(a_service(backends=twins, total=2))))
    assert found["ebpfmesh_backend_connections_total", "web", "ingress", "10.0.0.5"] == 6


def test_services_that_are_not_programmed_here_say_nothing_of_backends() -> None:
    elsewhere = a_service(state="elsewhere", ready=0, frontends=(), backends=())
    assert not [key for key in samples(render(a_status(elsewhere))) if "web" in key]


def test_only_published_ports_have_entries() -> None:
    vip = FrontendStatus("10.0.1.2", "vip", 0, TRAFFIC, Traffic())
    found = samples(render(a_status(a_service(frontends=(vip,)))))
    assert not [key for key in found if key[0].startswith("ebpfmesh_entry")]
    assert ("ebpfmesh_service_connections_total", "web", "ingress", "10.0.1.2") in found


def test_a_running_task_that_gets_nothing_is_unreachable() -> None:
    backends = (a_backend("10.0.0.5"), a_backend("10.0.0.6"), a_backend("10.0.0.7", "draining"))
    states = backend_states(a_service(backends=backends, ready=1, total=3))
    others = dict.fromkeys(("starting", "stopping", "gone"), 0)
    assert states == {"ready": 1, "unreachable": 1, "draining": 1, **others}


def test_trouble_shows() -> None:
    hub = HubStatus("agent", False, "", 9.0, 0, None)
    found = samples(render(a_status(problems=("no hub",), hub=hub)))
    assert found[("ebpfmesh_healthy",)] == 0
    assert found[("ebpfmesh_hub_connected",)] == 0
    assert ("ebpfmesh_hub_state_age_seconds",) not in found


def test_the_timer_counts_and_comes_along() -> None:
    timer = SyncTimer()
    timer.observe(0.002)
    timer.observe(3)
    timer.failed()
    found = samples(render(a_status(), timer))
    assert (timer.count, timer.errors) == (2, 1)
    assert found[("ebpfmesh_sync_duration_seconds_count",)] == 2
    assert found["ebpfmesh_sync_duration_seconds_bucket", "0.0025"] == 1


def test_names_break_no_line_and_speak_to_no_terminal() -> None:
    evil = 'e\x1b[2J"\\\n# EOF\r\u2028{x="y"} 1\x00\u202e\x9b\udcff'
    backends = (a_backend("10.0.0.5"),)
    service = a_service(name=evil, network=evil, backends=backends)
    datapath = DatapathStatus("eth0", "off", "dsr", 4, 31, 1, 2, (NicStatus(evil, "off"),))
    text = render(a_status(service, a_service(name="again" + evil), datapath=datapath))
    shown = 'e[2J"\\# EOF{x="y"} 1'
    assert samples(text)["ebpfmesh_flows", shown, shown] == 5
    assert samples(text)["ebpfmesh_backend_connections_total", shown, shown, "10.0.0.5"] == 3
    assert text.decode().replace("\n", "").isprintable()


def test_names_that_look_alike_are_one_series() -> None:
    services = [a_service(name=name) for name in ("web", "web\x00", "w\x1beb")]
    assert samples(render(a_status(*services)))["ebpfmesh_flows", "web", "ingress"] == 15


def test_how_long_changes_took_to_get_here() -> None:
    timer = ConvergenceTimer()
    for origin_ns in (0, 10**9, 10**9, 3 * 10**9):
        timer.began(origin_ns)
    taken = timer.take()
    assert taken == [10**9, 3 * 10**9]
    assert timer.take() == []
    timer.put_back(taken)
    # The other node's clock is ahead of this one's: that is no time at all.
    assert timer.observe(timer.take(), 1_040_000_000) == [40.0, 0.0]
    found = samples(render(a_status(), timer))
    assert found[("ebpfmesh_convergence_seconds_count",)] == 2
    assert found[("ebpfmesh_convergence_seconds_bucket", "0.005")] == 1
    assert found[("ebpfmesh_convergence_seconds_bucket", "0.05")] == 2


def test_of_many_backends_those_that_were_used_come_first() -> None:
    backends = [a_backend(f"10.0.0.{n}", traffic=Traffic()) for n in range(5, 9)]
    backends.append(a_backend("10.0.0.9"))
    status = a_status(a_service(backends=tuple(backends), total=5))
    found = samples(render(status, backends=2))
    of_backends = {key[3] for key in found if key[0].startswith("ebpfmesh_backend_")}
    assert of_backends == {"10.0.0.5", "10.0.0.9"}
    assert found[("ebpfmesh_backends_left_out",)] == 3
    assert samples(render(status))[("ebpfmesh_backends_left_out",)] == 0
    assert not [
        k for k in samples(render(status, backends=0)) if k[0].startswith("ebpfmesh_backend_")
    ]


def of_a_large_swarm(services: int, tasks: int) -> Status:
    """Each service has a VIP on one network, a published port on another, and tasks on both."""
    vip = FrontendStatus("10.0.1.2", "vip", 0, TRAFFIC, Traffic())
    rows = []
    for number in range(services):
        tasks_of_it = tuple(a_backend(f"10.{number}.0.{task}") for task in range(tasks))
        rows.append(a_service(name=f"s{number}", backends=tasks_of_it))
        rows.append(
            a_service(name=f"s{number}", network="back", frontends=(vip,), backends=tasks_of_it)
        )
    return a_status(*rows)


def test_how_many_series_there_are() -> None:
    """What docs/metrics.md says of 1,000 services, from the growth by 20 of them."""
    few, more = (len(samples(render(of_a_large_swarm(n, 10), backends=0))) for n in (0, 20))
    assert (more - few) * 1000 // 20 == 31_000
    with_backends = len(samples(render(of_a_large_swarm(20, 10), backends=100)))
    assert with_backends - more == 5 * 100
    assert 31_000 + 5 * Config().metrics_backends == 56_000


def test_every_family_is_known() -> None:
    datapath = DatapathStatus("eth0", "off", "dsr", 4, 31, 1, 2, (NicStatus("eth0", "off"),))
    status = a_status(a_service(), datapath=datapath)
    told = {name for name, *_ in samples(render(status, SyncTimer(), ConvergenceTimer()))}
    known = {family.name for family in families()}
    parts = ("_created", "_count", "_sum")
    assert {name for name in told if not name.endswith(parts)} == known
    assert not [family for family in families() if not family.text.endswith(".")]


def test_nodes_that_no_hub_hears_are_counted() -> None:
    found = samples(render(a_status(unreachable=("n3", "n4")), SyncTimer(), ConvergenceTimer()))
    assert found["ebpfmesh_nodes_unreachable",] == 2
