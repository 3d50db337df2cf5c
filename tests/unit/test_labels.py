from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ebpfmesh.agent.labelwatch import LabelWatch
from ebpfmesh.labels import (
    ACCEPTED,
    AFFINITY,
    ALLOW,
    MAX_NETWORKS,
    PREFER,
    READY,
    SCHEDULER,
    Policy,
    in_words,
    problems,
    read,
    without_effect,
)
from ebpfmesh.model import EndpointMode, MeshState, Network, Port, Protocol, Scheduler, Service
from ebpfmesh.status import PolicyStatus

INGRESS = {"net0": Network("net0", "ingress", 4096, ingress=True)}


def service(labels: dict[str, str], **fields: object) -> Service:
    known = {"mode": EndpointMode.VIP, "ports": (Port(Protocol.TCP, 8080, 80),), **fields}
    return Service("s1", "web", labels=labels, **known)  # type: ignore[arg-type]


def refusals(labels: dict[str, str]) -> list[tuple[str, str]]:
    return [(refused.label, refused.value) for refused in read(labels).refused]


def test_no_label_no_policy() -> None:
    assert read({}) == read({"com.example.owner": "us", "ebpfmeshed": "1"})
    assert read({}).policy == Policy()
    assert read({}).refused == ()


@pytest.mark.parametrize(
    ("label", "value", "policy"),
    [
        (AFFINITY, "client-ip", Policy(affinity=True)),
        (SCHEDULER, "maglev", Policy()),
        (SCHEDULER, "random", Policy(scheduler=Scheduler.RANDOM)),
        (SCHEDULER, "rr", Policy(scheduler=Scheduler.RR)),
        (SCHEDULER, "least-conn", Policy(scheduler=Scheduler.LEAST_CONN)),
        (SCHEDULER, " rr ", Policy(scheduler=Scheduler.RR)),
        (PREFER, "local", Policy(local=True)),
        (READY, "listening", Policy()),
        (READY, "started", Policy(listening=False)),
        (ALLOW, "192.0.2.0/24", Policy(allow=frozenset({"192.0.2.0/24"}))),
        (ALLOW, "192.0.2.7", Policy(allow=frozenset({"192.0.2.7/32"}))),
        (ALLOW, "0.0.0.0/0, ::/0", Policy(allow=frozenset({"0.0.0.0/0", "::/0"}))),
        (ALLOW, "2001:DB8:0::/32", Policy(allow=frozenset({"2001:db8::/32"}))),
        (ALLOW, "10.0.0.0/255.0.0.0", Policy(allow=frozenset({"10.0.0.0/8"}))),
        (ALLOW, "10.0.0.0/8,10.0.0.0/8", Policy(allow=frozenset({"10.0.0.0/8"}))),
    ],
)
def test_values_that_are_accepted(label: str, value: str, policy: Policy) -> None:
    assert (read({label: value}).policy, refusals({label: value})) == (policy, [])


@pytest.mark.parametrize("label", [AFFINITY, SCHEDULER, PREFER])
@pytest.mark.parametrize("value", ["", "none", "Local", "RR", "client_ip", "rr,rr", "\x1b[2J", "1"])
def test_a_wrong_value_is_refused_and_the_default_used(label: str, value: str) -> None:
    reading = read({label: value})
    assert reading.policy == Policy()
    (refused,) = reading.refused
    assert refused.label == label
    for part in (label, ACCEPTED[label], repr(value)):
        assert part in refused.text


def test_other_labels_of_the_service_are_kept() -> None:
    reading = read({SCHEDULER: "fastest", PREFER: "local", ALLOW: "10.0.0.0/8"})
    assert reading.policy == Policy(local=True, allow=frozenset({"10.0.0.0/8"}))
    assert [refused.label for refused in reading.refused] == [SCHEDULER]


@pytest.mark.parametrize(
    ("value", "left", "shown"),
    [
        ("10.0.0.0/8,nonsense", {"10.0.0.0/8"}, "nonsense"),
        ("10.0.0.0/8,10.1.2.3/33,192.0.2.0/24", {"10.0.0.0/8", "192.0.2.0/24"}, "10.1.2.3/33"),
        ("10.0.0.1/8,192.0.2.0/24", {"192.0.2.0/24"}, "10.0.0.1/8"),
        ("10.0.0.0/8,", {"10.0.0.0/8"}, ""),
        ("10.0.0.0/8;192.0.2.0/24", set(), "10.0.0.0/8;192.0.2.0/24"),
        ("example.org", set(), "example.org"),
        ("fe80::1%eth0", set(), "fe80::1%eth0"),
        ("all", set(), "all"),
        ("", set(), ""),
    ],
)
def test_a_list_with_a_mistake_lets_in_only_whom_it_names(
    value: str, left: set[str], shown: str
) -> None:
    """It fails closed: a port that shall not be open to all must not be so by a typing error."""
    reading = read({ALLOW: value})
    assert reading.policy.allow == frozenset(left)
    (refused,) = reading.refused
    assert (refused.label, refused.value) == (ALLOW, shown)
    assert ("nobody" in refused.instead) == (not left)


def test_a_list_that_is_too_long_lets_in_only_the_first() -> None:
    """One service cannot fill the map that all of them share."""
    networks = [f"10.{i // 256}.{i % 256}.0/24" for i in range(MAX_NETWORKS + 1)]
    exact, longer = (read({ALLOW: ",".join(networks[:n])}) for n in (MAX_NETWORKS, None))
    assert (len(exact.policy.allow or ()), exact.refused) == (MAX_NETWORKS, ())
    assert longer.policy == exact.policy
    (refused,) = longer.refused
    assert str(MAX_NETWORKS) in refused.text
    assert len(refused.text) < 250


@pytest.mark.parametrize(
    ("label", "hint"),
    [
        ("ebpfmesh.schedular", f"did you mean {SCHEDULER}?"),
        ("ebpfmesh.Allow", f"did you mean {ALLOW}?"),
        ("ebpfmesh.", "known are"),
        ("ebpfmesh.zzzzzzzzzz", "known are"),
    ],
)
def test_an_unknown_label_is_refused(label: str, hint: str) -> None:
    reading = read({label: "x", PREFER: "local"})
    assert reading.policy == Policy(local=True)
    (refused,) = reading.refused
    assert label in refused.text
    assert hint in refused.text


@pytest.mark.parametrize("scheduler", ["random", "rr", "least-conn"])
def test_affinity_goes_with_maglev_only(scheduler: str) -> None:
    reading = read({AFFINITY: "client-ip", SCHEDULER: scheduler})
    assert reading.policy == Policy(affinity=True)
    assert refusals({AFFINITY: "client-ip", SCHEDULER: scheduler}) == [(SCHEDULER, scheduler)]
    assert refusals({AFFINITY: "client-ip", SCHEDULER: "maglev"}) == []


def test_a_long_value_is_shown_in_part() -> None:
    (refused,) = read({SCHEDULER: "x" * 5000}).refused
    assert len(refused.text) < 250


@given(st.dictionaries(st.text().map(lambda end: "ebpfmesh." + end) | st.text(), st.text()))
def test_whatever_is_in_labels_can_be_read(labels: dict[str, str]) -> None:
    reading = read(labels)
    assert reading.policy.scheduler in Scheduler
    assert all(refused.text.count("\n") == 0 for refused in reading.refused)
    unknown = {label for label in labels if label.startswith("ebpfmesh.") and label not in ACCEPTED}
    assert unknown <= {refused.label for refused in reading.refused}


entries = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=4).map(lambda address: f"{address}/8"),
    st.text(alphabet="0123456789./:, abc"),
)


@given(st.lists(entries))
def test_a_list_is_made_of_networks_and_never_open_by_mistake(listed: list[str]) -> None:
    reading = read({ALLOW: ",".join(listed)})
    allow = reading.policy.allow
    assert allow is not None
    assert all(str(ip_network(network)) == network for network in allow)
    assert allow or reading.refused


def test_policy_in_the_words_of_the_labels() -> None:
    assert in_words(Policy()) == PolicyStatus("maglev", "", "", None)
    policy = read({AFFINITY: "client-ip", PREFER: "local", ALLOW: "192.0.2.1,10.0.0.0/8"}).policy
    allow = ("10.0.0.0/8", "192.0.2.1/32")
    assert in_words(policy) == PolicyStatus("maglev", "client-ip", "local", allow)
    assert in_words(read({SCHEDULER: "least-conn"}).policy).scheduler == "least-conn"
    assert in_words(read({READY: "started"}).policy).ready == "started"


def test_labels_that_change_nothing() -> None:
    assert without_effect(service({PREFER: "local", ALLOW: "10.0.0.0/8"})) == ""
    assert ALLOW in without_effect(service({ALLOW: "10.0.0.0/8"}, ports=()))
    assert without_effect(service({PREFER: "local"}, ports=())) == ""
    assert "dnsrr" in without_effect(service({PREFER: "local"}, mode=EndpointMode.DNSRR, ports=()))
    assert without_effect(service({}, mode=EndpointMode.DNSRR)) == ""


def test_problems_name_the_service() -> None:
    wrong, right = service({SCHEDULER: "x"}), service({SCHEDULER: "rr"})
    assert [(s.name, r.label) for s, r in problems({"a": wrong, "b": right})] == [
        ("web", SCHEDULER)
    ]


def test_what_is_wrong_is_said_once_and_when_it_ends() -> None:
    watch = LabelWatch()
    wrong = MeshState(1, {}, INGRESS, {"s1": service({SCHEDULER: "fastest"})})
    right = MeshState(2, {}, INGRESS, {"s1": service({SCHEDULER: "rr"})})
    with capture_logs() as lines:
        for _ in range(3):
            watch.look(wrong)
    (line,) = lines
    assert (line["log_level"], line["event"], line["service"]) == ("error", "label.refused", "web")
    assert "fastest" in line["reason"]
    assert "maglev, random, rr, least-conn" in line["reason"]
    with capture_logs() as lines:
        watch.look(right)
        watch.look(right)
    assert [line["event"] for line in lines] == ["label.settled"]
