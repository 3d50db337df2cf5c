from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ebpfmesh.rates import Order, Rate, Rates, between, ordered
from ebpfmesh.status import FrontendStatus, ServiceStatus, Status, Traffic
from tests.unit.fake_agent import STATUS, VIP, a_service

ZERO = Traffic()


def at(uptime_s: float, *services: ServiceStatus) -> Status:
    node = msgspec.structs.replace(STATUS.node, uptime_s=uptime_s)
    return msgspec.structs.replace(STATUS, node=node, services=services)


def web(traffic: Traffic, entered: Traffic = ZERO, **changes: Any) -> ServiceStatus:
    frontend = FrontendStatus("tcp:8080", "port", 80, traffic, entered)
    return a_service("web", "ingress", **{"frontends": (frontend,), "backends": (), **changes})


def the_rate(rates: Rates) -> Rate:
    (service,) = rates.services
    return service.rate


def test_rates_are_per_second_of_the_agents_own_time() -> None:
    before = web(Traffic(100, 90, 1000, 900, 5), Traffic(10, connections=1))
    after = web(Traffic(120, 100, 5000, 900, 6), Traffic(30, connections=5))
    rates = between(at(60.0, before), at(62.0, after))
    assert rates.seconds == 2.0
    assert the_rate(rates) == Rate(0.5, 10.0, 5.0, 2000.0, 0.0)
    assert rates.services[0].entered == Rate(2.0, 10.0)


def test_frontends_add_up() -> None:
    second = msgspec.structs.replace(VIP, name="10.0.1.3")
    grown = [
        msgspec.structs.replace(
            each, traffic=msgspec.structs.replace(each.traffic, connections=42 + n)
        )
        for n, each in enumerate((VIP, second), 1)
    ]
    rates = between(
        at(1.0, a_service("web", "demo", frontends=(VIP, second))),
        at(2.0, a_service("web", "demo", frontends=tuple(grown))),
    )
    assert the_rate(rates) == Rate(connections=3.0)


def test_backends_have_rates_of_their_own() -> None:
    before, after = a_service("web", "demo"), a_service("web", "demo")
    first, second = after.backends
    moved = msgspec.structs.replace(second, traffic=Traffic(connections=8))
    after = msgspec.structs.replace(after, backends=(first, moved))
    (service,) = between(at(1.0, before), at(3.0, after)).services
    assert [backend.rate.connections for backend in service.backends] == [0.0, 4.0]
    assert [backend.share for backend in service.backends] == [2 / 3, 0.0]


def test_what_has_come_meanwhile_counts_from_zero() -> None:
    rates = between(at(1.0), at(2.0, web(Traffic(connections=7))))
    assert the_rate(rates).connections == 7.0


def test_a_counter_that_has_begun_anew_counts_from_zero() -> None:
    """An id that was given to another frontend: none of its counters may be compared."""
    rates = between(at(1.0, web(Traffic(100, 0, 50))), at(2.0, web(Traffic(3, 0, 60))))
    assert the_rate(rates) == Rate(0.0, 3.0, 0.0, 60.0)


def test_an_agent_that_was_started_again_has_no_rates_yet() -> None:
    rates = between(at(900.0, web(ZERO)), at(0.5, web(Traffic(1000))))
    assert (rates.seconds, the_rate(rates)) == (0.0, Rate())


def some(name: str, packets: int, size: int, new: int, flows: int) -> ServiceStatus:
    frontend = msgspec.structs.replace(VIP, traffic=Traffic(packets, 0, size, 0, new))
    return a_service(name, "demo", frontends=(frontend,), flows=flows)


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        (Order.PACKETS, "abc"),
        (Order.BYTES, "bca"),
        (Order.CONNECTIONS, "cab"),
        (Order.FLOWS, "acb"),
        (Order.NAME, "abc"),
    ],
)
def test_order(order: Order, wanted: str) -> None:
    services = (some("b", 2, 9, 1, 1), some("a", 3, 1, 2, 9), some("c", 1, 5, 3, 5))
    rates = between(at(1.0), at(2.0, *services))
    assert [each.name for each in ordered(rates, order).services] == list(wanted)
    turned = ordered(rates, order, ascending=True)
    assert [each.name for each in turned.services] == list(wanted)[::-1]


def test_what_is_equal_is_in_order_of_name() -> None:
    rates = between(at(1.0), at(2.0, *(some(name, 1, 1, 1, 1) for name in "bca")))
    assert [each.name for each in ordered(rates, Order.PACKETS).services] == list("abc")


def test_what_only_enters_here_counts_for_the_order() -> None:
    other = some("other", 5, 0, 0, 0)
    rates = between(at(1.0), at(2.0, other, web(ZERO, Traffic(packets_to_backend=9))))
    assert [each.name for each in ordered(rates, Order.PACKETS).services] == ["web", "other"]
