# SPDX-License-Identifier: Apache-2.0
"""Follows docs/install.md under systemd, with the unit's hardening on, and looks at what comes.

Runs as a unit of that systemd (tests/systemd/trial.service), by the system's own python3: the
package is where the reader of the document has put it. Each step that held is a line of
``RESULTS/steps``; what did not is in ``RESULTS/error``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

INSTALL = Path(__file__).parents[2] / "docs" / "install.md"
INSTALLING = "## By systemd\n"
REMOVING = "By systemd, on every node:\n"

NODE, CLIENT, PORT = "192.0.2.11", "192.0.2.100", 8080
ECHO, BUSYBOX = "ebpfmesh-lab/echo:latest", "ebpfmesh-lab/busybox:latest"
REPLICAS, NETWORK = 2, "shop"
CAPTURE = "web.pcapng"
PATIENCE_S = 300
NO_AGENT = 3
CAPABILITIES = {"NET_ADMIN": 12, "NET_RAW": 13, "SYS_ADMIN": 21, "SYS_NICE": 23}

# What a sandbox that is too narrow makes the kernel say.
REFUSED = ("Operation not permitted", "Permission denied", "Read-only file system", "EPERM")


def block(text: str, after: str) -> list[str]:
    """The commands of the first indented block that follows; a continued one is one."""
    found = re.search(r"(?:^    .*\n)+", text.partition(after)[2], re.MULTILINE)
    assert found, f"no commands follow {after!r}"
    return [line.strip() for line in re.sub(r"\s*\\\n\s*", " ", found[0]).splitlines()]


def sh(command: str, expected: int = 0) -> str:
    """What it prints, errors too. It must end with that exit code."""
    done = subprocess.run(
        ["sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == expected, f"{command}: {done.returncode}, {done.stdout}"
    return done.stdout.strip()


def until(what: str, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.5)


def unit(name: str) -> str:
    """A property of the unit, as systemd knows it."""
    return sh(f"systemctl show --value --property={name} ebpfmesh")


def journal() -> str:
    return sh("journalctl --boot --no-pager --output cat --unit ebpfmesh")


def process(field: str) -> str:
    """A line of the agent's own ``status`` in /proc."""
    text = Path(f"/proc/{unit('MainPID')}/status").read_text()
    found = re.search(rf"^{field}:\s*(\S+)$", text, re.MULTILINE)
    assert found, text
    return found[1]


# --- the steps


def install() -> str:
    """As it is written. There is no dockerd yet: the node fails the check, and nobody answers."""
    expected = {"ebpfmesh check": 1, "ebpfmesh status": NO_AGENT}
    ran = block(INSTALL.read_text(), INSTALLING)
    assert expected.keys() <= set(ran), ran
    for command in ran:
        printed = sh(command, expected.get(command, 0))
        if command.endswith(" check"):
            failures = [line for line in printed.splitlines() if line.startswith("failure")]
            assert [line.split()[1] for line in failures] == ["swarm"], printed
    return f"{len(ran)} commands"


def waits_for_dockerd() -> str:
    until("it says what it waits for", lambda: "agent.waiting" in journal())
    before = unit("MainPID")
    said = sh("ebpfmesh status", NO_AGENT)
    assert unit("ActiveState") == "active"
    assert (unit("NRestarts"), unit("MainPID")) == ("0", before)
    return said


def is_verified() -> str:
    return sh("systemd-analyze verify /etc/systemd/system/ebpfmesh.service")


def is_as_exposed_as_documented() -> str:
    found = re.search(
        r"exposure level for ebpfmesh.service: ([\d.]+) (\w+)",
        sh("systemd-analyze --no-pager security ebpfmesh.service"),
    )
    assert found, "systemd-analyze says no figure"
    documented = re.search(
        r"systemd-analyze security ebpfmesh`\s+says ([\d.]+) \((\w+)\)", INSTALL.read_text()
    )
    assert documented, "docs/install.md names no figure"
    assert found.groups() == documented.groups(), (found[0], documented[0])
    return found[0]


def runs_with_what_it_is_given_and_no_more() -> str:
    wanted = sum(1 << number for number in CAPABILITIES.values())
    assert int(process("CapEff"), 16) == int(process("CapBnd"), 16) == wanted
    assert (process("NoNewPrivs"), process("Seccomp")) == ("1", "2")
    return ", ".join(CAPABILITIES)


def serves_once_there_is_a_swarm() -> str:
    sh(f"""
        set -e
        ip netns add client
        ip link add eth0 type veth peer name eth0 netns client
        ip address add {NODE}/24 dev eth0
        ip link set eth0 up
        ip netns exec client ip address add {CLIENT}/24 dev eth0
        ip netns exec client ip link set eth0 up
        ip netns exec client ethtool -K eth0 tx off
        systemctl start docker
        docker swarm init --advertise-addr {NODE}
        docker load --input lab.tar
        docker network create --driver overlay {NETWORK}
    """)
    service = f"docker service create --quiet --detach --no-resolve-image --network {NETWORK}"
    sh(f"{service} --name web --replicas {REPLICAS} --publish {PORT}:80 {ECHO}")
    sh(f"{service} --name asks --endpoint-mode dnsrr {BUSYBOX}")
    until("both tasks get flows", is_balanced)
    sh("ebpfmesh check")
    return sh("ebpfmesh status").splitlines()[0]


def is_balanced() -> bool:
    answer = subprocess.run(
        ["ebpfmesh", "status", "-o", "json"], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        return False
    rows = [row for row in json.loads(answer.stdout)["services"] if row["name"] == "web"]
    return len(rows) == 2 and all(row["ready"] == row["total"] == REPLICAS for row in rows)


def network_id() -> str:
    return sh(f"docker network inspect --format '{{{{.Id}}}}' {NETWORK}")


def has_programs_where_tasks_came_later() -> str:
    """An overlay's namespace is a mount of dockerd's, and the unit has mounts of its own."""
    tasks = REPLICAS + 1
    containers = f"docker ps --quiet --filter network={NETWORK}"
    until("all tasks run", lambda: len(sh(containers).split()) >= tasks)
    overlay = f"$(echo /run/docker/netns/*-{network_id()[:10]})"
    hooks = f"nsenter --net={overlay} tc qdisc show"
    until("each task's link has programs", lambda: sh(hooks).count("clsact") >= tasks)
    return f"{sh(hooks).count('clsact')} links in the overlay"


def ask(place: str) -> dict[str, str]:
    """What the task says of who it is, and whom it has seen."""
    answer: dict[str, str] = json.loads(sh(place))
    return answer


def from_client() -> dict[str, str]:
    return ask(f"ip netns exec client curl --silent --show-error --max-time 60 {NODE}:{PORT}")


def is_asked_in_every_way() -> str:
    seen = {from_client()["host"] for _ in range(10 * REPLICAS)}
    assert len(seen) == REPLICAS, seen
    assert from_client()["peer"] == CLIENT
    assert ask(f"curl --silent --show-error --max-time 60 127.0.0.1:{PORT}")["host"] in seen
    vips = json.loads(sh("docker service inspect web"))[0]["Endpoint"]["VirtualIPs"]
    shop = network_id()
    (vip,) = (each["Addr"].partition("/")[0] for each in vips if each["NetworkID"] == shop)
    task = sh("docker ps --quiet --filter label=com.docker.swarm.service.name=asks")
    assert ask(f"docker exec {task} wget -q -O - http://{vip}/")["host"] in seen
    return "published port, localhost, VIP"


def shows_packets() -> str:
    """Tracing and capturing want more of the kernel than balancing does."""
    with subprocess.Popen(
        ["ebpfmesh", "trace", "-n", "1", "-o", "json", "--service", "web"],
        stdout=subprocess.PIPE,
        text=True,
    ) as tracing:
        until("a flow is told of", lambda: from_client() and tracing.poll() is not None)
        assert tracing.stdout is not None
        told = json.loads(tracing.stdout.readline())
        assert tracing.returncode == 0
    with subprocess.Popen(["ebpfmesh", "capture", "web", "-n", "4", "-w", CAPTURE]) as taking:
        until("packets are copied", lambda: from_client() and taking.poll() is not None)
        assert taking.returncode == 0
    assert Path(CAPTURE).stat().st_size
    return f"trace: {told['kind']}, capture: {Path(CAPTURE).stat().st_size} bytes"


def is_started_again_when_it_dies() -> str:
    before, restarts, said = unit("MainPID"), int(unit("NRestarts")), journal().count("agent.")
    sh(f"kill -9 {before}")
    until("another one says something", lambda: journal().count("agent.") > said)
    assert unit("MainPID") not in {before, "0"}
    assert int(unit("NRestarts")) == restarts + 1
    return "once"


def is_missed_by_nobody_when_it_dies() -> str:
    before = unit("MainPID")
    sh(f"kill -9 {before}")
    asked = 0
    while unit("MainPID") in {before, "0"} or not is_balanced():
        assert from_client()["peer"] == CLIENT
        asked += 1
        assert asked < PATIENCE_S
    return f"{asked} requests meanwhile, each answered"


def stops_when_it_is_told_to() -> str:
    sh("systemctl stop ebpfmesh")
    ended = [unit(name) for name in ("ActiveState", "Result", "ExecMainStatus")]
    assert ended == ["inactive", "success", "0"], ended
    return sh("ebpfmesh status", NO_AGENT)


def is_not_needed_by_the_kernel() -> str:
    return from_client()["host"]


def was_refused_nothing() -> str:
    refused = [line for line in journal().splitlines() if any(word in line for word in REFUSED)]
    assert refused == []
    return f"{len(journal().splitlines())} lines of log"


def leaves_nothing() -> str:
    ran = block(INSTALL.read_text(), REMOVING)
    for command in ran:
        sh(command)
    pinned = sh("find /sys/fs/bpf -mindepth 1 ! -name '*.debug'")
    hooks = sh("""
        tc qdisc show | grep clsact || true
        ip link show | grep -w prog/xdp || true
        for netns in /var/run/docker/netns/*; do
            nsenter --net=$netns tc qdisc show 2>/dev/null | grep clsact
        done
        true
    """)
    files = [
        str(path)
        for path in map(Path, ("/etc", "/opt", "/usr/local/bin", "/var/lib", "/run"))
        for path in path.rglob("*ebpfmesh*")
        if "docker" not in path.parts  # Docker's own copies of the lab's images
    ]
    assert (pinned, hooks, files) == ("", "", [])
    return f"{len(ran)} commands"


ALONE = (
    install,
    is_verified,
    waits_for_dockerd,
    is_as_exposed_as_documented,
    runs_with_what_it_is_given_and_no_more,
    is_started_again_when_it_dies,
)
WITH_DOCKERD = (
    serves_once_there_is_a_swarm,
    has_programs_where_tasks_came_later,
    is_asked_in_every_way,
    shows_packets,
    is_missed_by_nobody_when_it_dies,
)
AT_THE_END = (stops_when_it_is_told_to, was_refused_nothing, leaves_nothing)


def steps() -> tuple[Callable[[], str], ...]:
    """Those to go: all of them, unless there is a file that says otherwise."""
    if Path("without-docker").exists():
        return (*ALONE, *AT_THE_END)
    stop, *rest = AT_THE_END
    return (*ALONE, *WITH_DOCKERD, stop, is_not_needed_by_the_kernel, *rest)


def main() -> None:
    """Goes on until something does not hold."""
    results = Path(sys.argv[1])
    with (results / "steps").open("w") as lines:
        for step in steps():
            began = time.monotonic()
            try:
                said = step()
            except Exception:
                (results / "error").write_text(f"{step.__name__}\n{traceback.format_exc()}")
                raise
            line = f"{step.__name__.replace('_', ' ')}: {said or 'yes'}"
            print(line, f"({time.monotonic() - began:.0f} s)", file=lines, flush=True)


if __name__ == "__main__":
    main()
