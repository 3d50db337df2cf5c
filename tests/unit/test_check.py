from __future__ import annotations

import json
import socket
import struct
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from ebpfmesh.check import features
from ebpfmesh.check import probe as probing
from ebpfmesh.check.facts import (
    JIT_HIDDEN,
    Facts,
    Filter,
    Level,
    LinkFacts,
    Mount,
    SwarmFacts,
    Verdict,
)
from ebpfmesh.check.judge import judge, passed
from ebpfmesh.cli.app import app
from ebpfmesh.cli.check import look
from ebpfmesh.config import Config

ETH0 = LinkFacts("eth0", 1500, ("192.0.2.11",))
GOOD = Facts(
    root=True,
    capabilities=(1 << 41) - 1,
    kernel="6.1.0-28-amd64",
    jit="1",
    mounts=(
        Mount("/", "ext4"),
        Mount("/sys", "sysfs"),
        Mount("/sys/fs/cgroup", "cgroup2"),
        Mount("/sys/fs/bpf", "bpf"),
    ),
    bcc="/usr/lib/python3/dist-packages/bcc",
    bcc_library=True,
    missing_headers="",
    compiled=False,
    swarm=SwarmFacts(address="192.0.2.11", manager=True, engine_version="20.10.24"),
    links=(LinkFacts("lo", 65536, ("127.0.0.1",)), ETH0),
    filters=(),
    rp_filter={"all": 0, "eth0": 2},
    ip_vs=False,
    listening=frozenset({22}),
    agent=False,
    clock_kept=True,
)


def but(**changes: Any) -> Facts:
    return msgspec.structs.replace(GOOD, **changes)


def found(facts: Facts, subject: str, **settings: Any) -> Verdict:
    verdicts = judge(facts, Config(**settings))
    return next(verdict for verdict in verdicts if verdict.subject == subject)


def test_a_good_node_passes() -> None:
    verdicts = judge(GOOD, Config())
    assert passed(verdicts)
    assert {verdict.level for verdict in verdicts} == {Level.OK, Level.INFO}


@pytest.mark.parametrize(
    ("facts", "subject", "todo"),
    [
        (but(root=False), "privileges", "as root"),
        (but(capabilities=1 << 12), "privileges", "container"),
        (but(capabilities=GOOD.capabilities & ~(1 << 13)), "privileges", "container"),
        (but(kernel="5.19.0-30"), "kernel", "6.1"),
        (but(kernel="odd"), "kernel", "6.1"),
        (but(jit=""), "bpf", "CONFIG_BPF_JIT"),
        (but(mounts=GOOD.mounts[:3]), "bpffs", "mount -t bpf"),
        (but(bcc=""), "bcc", "python3-bpfcc"),
        (but(compiled=True, bcc_library=False), "bcc", "libbpfcc"),
        (but(bcc="foreign"), "bcc", "pip uninstall bcc"),
        (but(missing_headers="/usr/include/linux"), "headers", "linux-libc-dev"),
        (but(swarm=SwarmFacts(error="not in a Swarm")), "swarm", "join"),
        (
            but(swarm=SwarmFacts(address="192.0.2.11", certificates_error="locked")),
            "certificates",
            "autolock",
        ),
        (but(links=(LinkFacts("lo", 65536),)), "device", "set device"),
        (but(refused={"XDP": "Operation not permitted"}), "programs", "kernel"),
        (but(tc_error="Error: Specified qdisc kind is unknown."), "tc", "sch_ingress"),
        (but(listening=frozenset({9477})), "ports", "metrics_port"),
        (but(listening=frozenset({7380})), "ports", "hub_port"),
    ],
)
def test_what_cannot_work_is_a_failure_with_a_way_out(
    facts: Facts, subject: str, todo: str
) -> None:
    verdict = found(facts, subject)
    assert verdict.level is Level.FAILURE
    assert todo in verdict.todo
    assert not passed(judge(facts, Config()))


@pytest.mark.parametrize(
    ("facts", "subject", "todo"),
    [
        (but(jit="0"), "bpf", "sysctl"),
        (but(clock_kept=False), "clock", "chrony"),
        (
            but(links=(LinkFacts("eth0", 1500, ("192.0.2.11",), "other"),)),
            "xdp",
            "dev eth0 xdp off",
        ),
        (but(mounts=(Mount("/sys/fs/bpf", "bpf"),)), "cgroup2", "mount -t cgroup2"),
        (
            but(mounts=(Mount("/", "ext4", private=True), *GOOD.mounts[1:]), systemd=True),
            "mounts",
            "make-rshared",
        ),
        (but(links=None), "device", "iproute2"),
        (
            but(links=(LinkFacts("eth0", 1400, ("192.0.2.11",)),)),
            "overlay mtu",
            "driver.mtu=1350",
        ),
        (but(filters=(Filter("cil_from_netdev", 1),)), "tc", "lets pass"),
        (but(tcx=2), "tcx", "let pass"),
    ],
)
def test_what_works_less_well_is_a_warning(facts: Facts, subject: str, todo: str) -> None:
    verdict = found(facts, subject)
    assert verdict.level is Level.WARNING
    assert todo in verdict.todo
    assert passed(judge(facts, Config()))


def test_private_mounts_are_minded_only_under_systemd() -> None:
    private = but(mounts=(Mount("/", "ext4", private=True), *GOOD.mounts[1:]))
    for facts in (private, but(systemd=True)):
        assert "mounts" not in {verdict.subject for verdict in judge(facts, Config())}


def test_what_another_namespace_hides_is_no_failure() -> None:
    assert found(but(jit=JIT_HIDDEN), "bpf").level is Level.INFO


def test_programs_that_came_compiled_need_no_module() -> None:
    assert found(but(compiled=True, bcc=""), "bcc").level is Level.OK


def test_programs_that_came_compiled_need_no_headers() -> None:
    facts = but(missing_headers="/usr/include/linux", compiled=True)
    assert found(facts, "headers").level is Level.OK
    assert passed(judge(facts, Config()))


def test_our_own_programs_and_ports_are_no_conflict() -> None:
    links = (LinkFacts("eth0", 1500, ("192.0.2.11",), "nic_xdp"),)
    running = but(
        links=links,
        filters=(Filter("ebpfmesh", 7),),
        listening=frozenset({7380, 9477}),
        agent=True,
    )
    verdicts = judge(running, Config())
    assert {verdict.level for verdict in verdicts} == {Level.OK, Level.INFO}


def test_a_worker_has_no_hub_port() -> None:
    worker = but(swarm=SwarmFacts(address="192.0.2.11"), listening=frozenset({7380}))
    assert passed(judge(worker, Config()))


def test_which_xdp_there_will_be() -> None:
    for native, setting, level, text in (
        (True, "native", Level.OK, "its driver runs XDP"),
        (False, "auto", Level.INFO, "generic XDP serves"),
        (False, "native", Level.FAILURE, "does not run XDP"),
        (None, "native", Level.OK, "eth0 is free"),
        (False, "generic", Level.OK, "eth0 is free"),
    ):
        verdict = found(but(native_xdp=native), "xdp", xdp=setting)
        assert verdict.level is level
        assert text in verdict.text


def test_what_was_not_tried_is_not_said_to_work() -> None:
    told = judge(but(capabilities=0), Config())
    assert "programs" not in {verdict.subject for verdict in told}
    assert found(but(clock_kept=None), "clock").level is Level.INFO


def test_another_xdp_program_may_stay_if_ours_is_off() -> None:
    facts = but(links=(LinkFacts("eth0", 1500, ("192.0.2.11",), "other"),))
    assert found(facts, "xdp", xdp="off").level is Level.INFO


def test_a_program_behind_ours_is_no_conflict() -> None:
    assert found(but(filters=(Filter("late", 10),)), "tc").level is Level.INFO


def test_whether_clients_may_ask_by_ipv6() -> None:
    assert "by IPv4 only" in found(GOOD, "ipv6").text
    both = but(links=(LinkFacts("eth0", 1500, ("192.0.2.11", "2001:db8::11")),))
    assert found(both, "ipv6").text == "published ports answer on 2001:db8::11"


@pytest.mark.parametrize(
    ("interfaces", "missing"),
    [
        ("", []),
        ("eth0", []),
        ("eth*", []),
        ("eth0,wlan*", ["wlan*"]),
        ("ens3,ens4", ["ens3", "ens4"]),
    ],
)
def test_interfaces_that_are_not_there(interfaces: str, missing: list[str]) -> None:
    told = [v for v in judge(GOOD, Config(interfaces=interfaces)) if v.subject == "interfaces"]
    assert all(verdict.level is Level.WARNING for verdict in told)
    assert [verdict.text.split("'")[1] for verdict in told] == missing


def test_a_device_by_name() -> None:
    assert found(GOOD, "device", device="lo").text == "lo, MTU 65536"
    assert found(GOOD, "device", device="eth7").level is Level.FAILURE


def test_an_mtu_that_the_device_has_not() -> None:
    assert found(GOOD, "mtu", underlay_mtu=9000).level is Level.WARNING


def test_the_last_mount_on_a_place_counts() -> None:
    covered = but(mounts=(*GOOD.mounts, Mount("/sys/fs/bpf", "tmpfs")))
    assert found(covered, "bpffs").level is Level.FAILURE


# --- reading what the kernel and iproute2 print ---------------------------------------------


def test_capabilities_are_read() -> None:
    assert probing.capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n") == (1 << 41) - 1
    assert probing.capabilities("") == 0


def test_mounts_are_read() -> None:
    text = (
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "31 22 0:27 / /sys/fs/bpf rw,nosuid - bpf bpf rw,mode=700\n"
        "40 22 0:30 / /run rw master:5 - tmpfs tmpfs rw\n"
    )
    assert probing.mounts(text) == (
        Mount("/", "ext4"),
        Mount("/sys/fs/bpf", "bpf", private=True),
        Mount("/run", "tmpfs"),
    )


def test_listening_ports_are_read() -> None:
    text = (
        "  sl  local_address rem_address   st\n"
        "   0: 0100007F:1CD4 00000000:0000 0A 00000000:00000000\n"
        "   1: 0100007F:2505 0100007F:1234 01 00000000:00000000\n"
    )
    assert probing.listening(text) == {7380}


def test_links_are_read() -> None:
    described = [
        {"ifname": "eth0", "mtu": 1500, "xdp": {"mode": 1, "prog": {"id": 7, "name": "nic_xdp"}}},
        {"ifname": "eth1", "mtu": 9000, "xdp": {"mode": 1, "prog": {"id": 8}}},
        {},
    ]
    addressed = [{"ifname": "eth0", "addr_info": [{"local": "192.0.2.11"}]}, {}]
    assert probing.links(described, addressed) == (
        LinkFacts("eth0", 1500, ("192.0.2.11",), "nic_xdp"),
        LinkFacts("eth1", 9000, (), "unnamed"),
    )


def test_filters_are_read() -> None:
    printed = [
        {"protocol": "all", "pref": 7, "kind": "bpf", "chain": 0},
        {"pref": 7, "kind": "bpf", "options": {"handle": "0x1", "bpf_name": "ebpfmesh"}},
        {"pref": 9, "kind": "flower", "options": {"handle": 1}},
    ]
    assert probing.filters(printed) == (Filter("ebpfmesh", 7),)


def test_probing_needs_nothing_to_be_there(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = probing.probe(Config(docker_socket=str(tmp_path / "docker.sock")), agent=False)
    assert facts.links is None
    assert facts.swarm.error
    assert facts.mounts


def test_what_tc_says_is_told_in_a_line() -> None:
    assert features.complaint(0, "") == ""
    assert features.complaint(2, "Error: no clsact.\nWe have an error\n") == "Error: no clsact."
    assert features.complaint(1, "") == "tc ends with 1"
    assert features.complaint(1, "unshare: unshare failed: Operation not permitted\n") == ""


def test_a_driver_that_is_not_there_is_not_known() -> None:
    assert features.native_xdp("no-such-link") is None
    assert features.tcx_programs("no-such-link") == 0


def test_programs_at_tcx_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def bpf(_command: int, question: bytes) -> tuple[int, bytes]:
        index, where = struct.unpack_from("@II", question)
        assert (index, where) == (socket.if_nametoindex("lo"), 46)
        return 0, question[:24] + struct.pack("@I", 3) + bytes(100)

    monkeypatch.setattr(features, "bpf", bpf)
    assert features.tcx_programs("lo") == 3


# --- the command ------------------------------------------------------------------------------


@pytest.mark.parametrize(("facts", "code"), [(GOOD, 0), (but(root=False), 1)])
def test_the_command_exits_with_the_verdict(
    facts: Facts, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "probe", lambda *_, **__: facts)
    assert CliRunner().invoke(app, ["check"]).exit_code == code
    result = CliRunner().invoke(app, ["check", "-o", "json"])
    assert result.exit_code == code
    verdicts = json.loads(result.stdout)["checks"]
    assert verdicts[0]["subject"] == "privileges"
    assert verdicts[0]["level"] == ("failure" if code else "ok")


def test_an_encrypted_ingress_network_is_told() -> None:
    swarm = msgspec.structs.replace(GOOD.swarm, encrypted_ingress=True)
    verdict = found(but(swarm=swarm), "ingress")
    assert verdict.level is Level.WARNING
    assert "left to Docker" in verdict.text
    assert passed(judge(but(swarm=swarm), Config()))
    assert "ingress" not in {verdict.subject for verdict in judge(GOOD, Config())}


def test_an_agent_that_starts_says_what_it_minds(monkeypatch: pytest.MonkeyPatch) -> None:
    minded = but(clock_kept=False, jit="", listening=frozenset({7380, 9477}))
    asked: list[bool] = []

    def probe(_config: Config, *, agent: bool) -> Facts:
        asked.append(agent)
        return msgspec.structs.replace(minded, agent=agent)

    monkeypatch.setattr(probing, "probe", probe)
    with capture_logs() as told:
        look(Config())
    assert asked == [True]
    assert [(line["event"], line["of"]) for line in told] == [
        ("check.failure", "bpf"),
        ("check.warning", "clock"),
    ]
    assert all(line["found"] and line["todo"] for line in told)
