# SPDX-License-Identifier: Apache-2.0
"""Which tasks of a node are not ready yet."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from structlog.testing import capture_logs

from ebpfmesh.agent.readiness import FIRST_EPHEMERAL, SETTLE_S, Readiness, heard
from ebpfmesh.datapath.listening import KernelSilent, Listener
from ebpfmesh.labels import READY as READY_LABEL
from ebpfmesh.model import BackendState, EndpointMode, MeshState, Port, Protocol, Service
from ebpfmesh.swarm.local import LocalContainer

TCP_80, UDP_53 = Listener(Protocol.TCP, 80), Listener(Protocol.UDP, 53)
PLAIN = Service("web", "web", EndpointMode.VIP, ports=(Port(Protocol.TCP, 8080, 80),))
BOTH = msgspec.structs.replace(PLAIN, ports=(*PLAIN.ports, Port(Protocol.UDP, 53, 53)))
INSIDE = msgspec.structs.replace(PLAIN, ports=())
NOW_S = 1_000_000.0
BOUND_S = 10.0


class Machine:
    """Containers, who listens in them, and two clocks."""

    def __init__(self) -> None:
        self.inside: dict[str, frozenset[Listener]] = {}
        self.uptime_s = 500.0
        self.looks = 0
        self.fails: Exception | None = None
        self.readiness = Readiness(
            BOUND_S, look=self.look, now_s=lambda: self.uptime_s, wall_s=lambda: NOW_S
        )

    def look(self, netns: str) -> frozenset[Listener]:
        self.looks += 1
        if self.fails:
            raise self.fails
        return self.inside.get(netns, frozenset())

    def listen(self, *found: Listener) -> None:
        self.inside["/ns/c1"] = frozenset(found)

    def starting(
        self, container: LocalContainer | None = None, service: Service | None = PLAIN
    ) -> set[str]:
        mesh = MeshState(1, services={service.id: service} if service else {})
        found = self.readiness.starting([container or CONTAINER], mesh)
        assert set(found.values()) <= {BackendState.STARTING}
        return set(found)


CONTAINER = LocalContainer(
    id="c1",
    task_id="t1",
    service_id="web",
    sandbox="/ns/c1",
    pid=7,
    state=BackendState.READY,
    started_s=NOW_S,
)


def but(container: LocalContainer = CONTAINER, **fields: object) -> LocalContainer:
    return msgspec.structs.replace(container, **fields)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_a_task_is_starting_until_it_listens_and_then_ready_for_good(machine: Machine) -> None:
    assert machine.starting() == {"t1"}
    machine.listen(TCP_80)
    assert machine.starting() == set()
    machine.listen()
    looks = machine.looks
    assert machine.starting() == set()
    assert machine.looks == looks


def test_a_task_that_listens_on_all_that_is_published_is_ready_at_once(machine: Machine) -> None:
    machine.listen(TCP_80)
    assert machine.starting(service=BOTH) == {"t1"}
    machine.listen(TCP_80, UDP_53)
    assert machine.starting(service=BOTH) == set()


@pytest.mark.parametrize("service", [BOTH, INSIDE])
def test_one_that_listens_on_something_may_go_on_to_more(
    machine: Machine, service: Service
) -> None:
    machine.listen(TCP_80)
    assert machine.starting(service=service) == {"t1"}
    machine.uptime_s += SETTLE_S - 0.01
    assert machine.starting(service=service) == {"t1"}
    machine.uptime_s += 0.02
    assert machine.starting(service=service) == set()


def test_each_socket_that_comes_may_be_followed_by_another(machine: Machine) -> None:
    machine.listen(TCP_80)
    assert machine.starting(service=INSIDE) == {"t1"}
    machine.uptime_s += SETTLE_S + 0.01
    machine.listen(TCP_80, UDP_53)
    assert machine.starting(service=INSIDE) == {"t1"}
    machine.uptime_s += SETTLE_S + 0.01
    assert machine.starting(service=INSIDE) == set()


def test_what_closes_again_does_not_count(machine: Machine) -> None:
    machine.listen(TCP_80)
    assert machine.starting(service=INSIDE) == {"t1"}
    machine.uptime_s += SETTLE_S + 0.01
    machine.listen()
    assert machine.starting(service=INSIDE) == {"t1"}


def test_a_container_that_is_started_again_has_to_listen_again(machine: Machine) -> None:
    machine.listen(TCP_80)
    assert machine.starting() == set()
    machine.listen()
    assert machine.starting(but(pid=8)) == {"t1"}


@pytest.mark.parametrize("age_s", [0.0, 4.0])
def test_there_is_a_bound_from_its_start_on(machine: Machine, age_s: float) -> None:
    container = but(started_s=NOW_S - age_s)
    assert machine.starting(container) == {"t1"}
    machine.uptime_s += BOUND_S - age_s - 0.1
    assert machine.starting(container) == {"t1"}
    machine.uptime_s += 0.2
    with capture_logs() as logs:
        assert machine.starting(container) == set()
    assert [line["event"] for line in logs] == ["task.not_listening"]


def test_an_old_task_is_ready_at_the_first_look_without_a_word(machine: Machine) -> None:
    with capture_logs() as logs:
        assert machine.starting(but(started_s=NOW_S - BOUND_S)) == set()
    assert logs == []


@pytest.mark.parametrize("started_s", [NOW_S + 3600, 0.0])
def test_a_wrong_clock_costs_the_bound_at_most(machine: Machine, started_s: float) -> None:
    container = but(started_s=started_s)
    assert machine.starting(container) == {"t1"}
    machine.uptime_s += BOUND_S
    assert machine.starting(container) == set()


def test_what_got_flows_before_the_agent_started_goes_on(machine: Machine) -> None:
    machine.readiness.adopt({"t1"})
    assert machine.starting() == set()
    assert machine.starting(but(id="c2", task_id="t1", pid=9)) == {"t1"}


def test_a_health_check_says_more(machine: Machine) -> None:
    assert machine.starting(but(health="healthy")) == set()
    assert machine.looks == 0


@pytest.mark.parametrize(
    "service",
    [
        Service("web", "web", EndpointMode.VIP, labels={READY_LABEL: "started"}),
        Service("web", "web", EndpointMode.DNSRR),
    ],
)
def test_nobody_waits_where_none_is_wanted_or_nothing_is_balanced(
    machine: Machine, service: Service
) -> None:
    assert machine.starting(service=service) == set()


def test_a_wrong_label_does_not_switch_it_off(machine: Machine) -> None:
    service = Service("web", "web", EndpointMode.VIP, labels={READY_LABEL: "yes"})
    assert machine.starting(service=service) == {"t1"}


def test_what_to_look_for_is_said_by_the_service(machine: Machine) -> None:
    machine.listen(TCP_80)
    assert machine.starting(service=None) == {"t1"}
    assert machine.starting() == set()


def test_a_namespace_that_is_not_there_listens_to_nobody(machine: Machine) -> None:
    machine.fails = FileNotFoundError()
    assert machine.starting() == {"t1"}
    assert machine.starting(but(sandbox="")) == {"t1"}


def test_a_kernel_that_does_not_tell_is_asked_once(machine: Machine) -> None:
    machine.fails = KernelSilent("no tcp_diag")
    with capture_logs() as logs:
        assert machine.starting() == set()
        assert machine.starting(but(id="c2")) == set()
    assert [line["event"] for line in logs] == ["task.readiness_unknown"]
    assert machine.looks == 1


@pytest.mark.parametrize(
    ("ports", "found", "ready"),
    [
        ((), (), False),
        ((), (TCP_80,), True),
        ((), (UDP_53,), True),
        ((), (Listener(Protocol.UDP, FIRST_EPHEMERAL),), False),
        ((), (Listener(Protocol.TCP, FIRST_EPHEMERAL),), True),
        ((Port(Protocol.TCP, 8080, 80),), (TCP_80,), True),
        ((Port(Protocol.TCP, 80, 8080),), (TCP_80,), False),
        ((Port(Protocol.UDP, 8080, 80),), (TCP_80,), False),
        ((Port(Protocol.TCP, 8080, 80), Port(Protocol.UDP, 53, 53)), (UDP_53,), True),
        ((Port(Protocol.UDP, 1, 40000),), (Listener(Protocol.UDP, 40000),), True),
    ],
)
def test_a_task_answers_on_what_is_published_or_on_anything(
    ports: tuple[Port, ...], found: Iterable[Listener], ready: bool
) -> None:
    service = Service("web", "web", EndpointMode.VIP, ports=ports)
    assert bool(heard(frozenset(found), service)) is ready
