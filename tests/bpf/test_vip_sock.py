# SPDX-License-Identifier: Apache-2.0
"""VIPs that are balanced at sockets: real sockets, real tasks, all in one container's network.

Nobody has the VIP: what is not led to a task gets no answer here. Elsewhere it would meet the
programs at the container's link.
"""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ebpfmesh.datapath.cgroup import (
    HOST_PROGRAMS,
    SOCKET_PROGRAMS,
    attach_socket_programs,
    netns_cookie,
)
from ebpfmesh.datapath.discover import look_at_sandbox
from ebpfmesh.datapath.events import Ring
from ebpfmesh.datapath.loader import Module
from ebpfmesh.datapath.object import Object
from ebpfmesh.model import Membership
from ebpfmesh.takeover import Mode
from ebpfmesh.tracing import Path as Way

from .net import NODE_A, VNI
from .node import Node
from .sockets import Processes, node_processes
from .world import AFFINITY, DRAINING, GONE, LEAST_CONN, RR, STOPPING, Service

PORT = 8099
VIP = "198.51.100.77"  # on the link of nic1, where nobody has it
CLIENT = "10.0.1.7"  # the container's own address on the network
TASKS = ["127.0.1.1", "127.0.1.2", "127.0.1.3"]
NO_ANSWER = "timed out"
PATIENT_S, QUICK_S = 10, 0.3  # with who shall answer, and with who shall not

_CONNECT = """
for _ in range({count}):
    try:
        with socket.socket(socket.{family}, socket.{kind}) as s:
            s.settimeout({patience_s})
            {before}
            s.connect(({address!r}, {port}))
            s.send(b'hello')
            print(s.recv(99).decode(), *s.getpeername()[:2])
    except OSError as error:
        print(error)
"""

_SEND = """
with socket.socket(socket.{family}, socket.SOCK_DGRAM) as s:
    s.settimeout({patience_s})
    for _ in range({count}):
        try:
            s.sendto(b'hello', ({address!r}, {port}))
            data, peer = s.recvfrom(99)
            print(data.decode(), *peer[:2])
        except OSError as error:
            print(error)
"""


def connect(
    address: str = VIP,
    count: int = 1,
    kind: str = "SOCK_STREAM",
    family: str = "AF_INET",
    before: str = "",
    patience_s: float = PATIENT_S,
) -> str:
    return _CONNECT.format(
        address=address,
        port=PORT,
        count=count,
        kind=kind,
        family=family,
        before=before,
        patience_s=patience_s,
    )


def send(
    address: str = VIP, count: int = 1, family: str = "AF_INET", patience_s: float = PATIENT_S
) -> str:
    return _SEND.format(
        address=address, port=PORT, count=count, family=family, patience_s=patience_s
    )


def answers(said: str) -> Tally[str]:
    """Who has answered how often, by the last number of the address."""
    return Tally(line.split()[0].rpartition(".")[2] for line in said.splitlines())


def _answer_streams(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.recv(99)
            connection.sendall(server.getsockname()[0].encode())


def _answer_datagrams(server: socket.socket) -> None:
    while True:
        data, client = server.recvfrom(99)
        if not data:
            return
        server.sendto(server.getsockname()[0].encode(), client)


@pytest.fixture(scope="module", autouse=True)
def servers(bpffs: Path) -> Iterator[None]:
    """The tasks: each tells its own address. What is sent to the VIP is lost."""
    nobody = ["lladdr", "02:00:00:00:01:77", "nud", "permanent", "dev", "nic1"]
    subprocess.run(["ip", "neigh", "add", VIP, *nobody], check=True)
    with ExitStack() as stack:
        streams = [stack.enter_context(socket.create_server((task, PORT))) for task in TASKS]
        datagrams = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in TASKS]
        for task, server in zip(TASKS, datagrams, strict=True):
            server.bind((task, PORT))
        threads = [threading.Thread(target=_answer_streams, args=(s,)) for s in streams]
        threads += [threading.Thread(target=_answer_datagrams, args=(s,)) for s in datagrams]
        for thread in threads:
            thread.start()
        yield
        for stream, datagram in zip(streams, datagrams, strict=True):
            stream.shutdown(socket.SHUT_RDWR)
            datagram.sendto(b"", datagram.getsockname())
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def containers(sock_module: Module, sock_pins: Path) -> Iterator[Processes]:
    """Processes that have programs for VIPs at their sockets."""
    with node_processes(sock_module, sock_pins, SOCKET_PROGRAMS) as running:
        yield running


@pytest.fixture
def own(sock_module: Module) -> Iterator[Node]:
    """A node that knows this network namespace as that of a container."""
    node = Node(sock_module)
    node.addresses(NODE_A)
    node.maps.put_namespace(
        netns_cookie(), [Membership(VNI + 1, "10.0.2.7"), Membership(VNI, CLIENT)]
    )
    yield node
    node.table("sock_origins").clear()
    node.clear()


@pytest.fixture
def web(own: Node) -> Service:
    return own.vip(VIP, VNI).backends(*TASKS)


# --- connections


def test_connection_reaches_a_task_and_its_peer_is_the_vip(
    web: Service, containers: Processes
) -> None:
    said = containers.run(connect(count=30)).splitlines()
    assert {line.split()[0] for line in said} == set(TASKS)
    assert {line.split(" ", 1)[1] for line in said} == {f"{VIP} {PORT}"}


def test_connections_are_counted(own: Node, web: Service, containers: Processes) -> None:
    seen = answers(containers.run(connect(count=30)))
    assert own.counter("frontend", web.frontend).connections == 30
    for task in TASKS:
        counted = own.counter("backend", web.ids[task]).connections
        assert counted == seen[task.rpartition(".")[2]]


def test_connections_take_turns(web: Service, containers: Processes) -> None:
    web.flagged(RR)
    assert answers(containers.run(connect(count=9))) == {"1": 3, "2": 3, "3": 3}


def test_a_container_keeps_its_task(web: Service, containers: Processes) -> None:
    web.flagged(AFFINITY)
    assert len(answers(containers.run(connect(count=12)))) == 1


@pytest.mark.parametrize("state", [DRAINING, STOPPING, GONE])
def test_who_takes_no_new_ones_gets_none_though_it_is_in_the_table(
    web: Service, containers: Processes, state: int
) -> None:
    web.state(TASKS[0], state)
    assert answers(containers.run(connect(count=30))).keys() == {"2", "3"}


def test_avoided_task_gets_none(own: Node, web: Service, containers: Processes) -> None:
    own.avoid(web.ids[TASKS[0]], web.ids[TASKS[2]])
    assert answers(containers.run(connect(count=10))) == {"2": 10}


_KEEP = f"""
with socket.create_connection(({VIP!r}, {PORT}), 10) as s:
    print('connected', flush=True)
    input()
    s.send(b'hello')
    print(s.recv(99).decode(), *s.getpeername(), flush=True)
"""


def test_open_connection_goes_on_while_its_task_drains(web: Service, containers: Processes) -> None:
    with containers.start(_KEEP) as asking:
        assert asking.line() == "connected"
        for task in TASKS:
            web.state(task, DRAINING)
        web.choose()
        asking.go_on()
        said = asking.line().split()
    assert said[0] in TASKS
    assert said[1:] == [VIP, str(PORT)]


# --- datagrams


def test_datagrams_of_a_socket_go_to_one_task_and_come_from_the_vip(
    own: Node, web: Service, containers: Processes
) -> None:
    web.flagged(RR)
    said = containers.run(send(count=12)).splitlines()
    assert len(set(said)) == 1
    assert said[0].split(" ", 1)[1] == f"{VIP} {PORT}"
    assert own.counter("frontend", web.frontend).connections == 1


def test_each_socket_has_its_turn(web: Service, containers: Processes) -> None:
    web.flagged(RR)
    said = "\n".join(containers.run(send()) for _ in range(3))
    assert answers(said) == {"1": 1, "2": 1, "3": 1}


_ASK_TWICE = f"""
with socket.socket(type=socket.SOCK_DGRAM) as s:
    s.settimeout(10)
    for turn in 'ab':
        s.sendto(b'hello', ({VIP!r}, {PORT}))
        print(s.recvfrom(99)[0].decode(), flush=True)
        if turn == 'a':
            input()
"""


@pytest.mark.parametrize(("state", "moves"), [(DRAINING, False), (STOPPING, True), (GONE, True)])
def test_datagrams_leave_a_task_that_was_told_to_stop(
    web: Service, containers: Processes, state: int, moves: bool
) -> None:
    with containers.start(_ASK_TWICE) as asking:
        first = asking.line()
        web.state(first, state)
        web.choose(*(task for task in TASKS if task != first))
        asking.go_on()
        assert (asking.line() != first) is moves


def test_datagrams_after_a_long_silence_are_balanced_anew(
    own: Node, web: Service, containers: Processes
) -> None:
    with containers.start(_ASK_TWICE) as asking:
        first = asking.line()
        web.choose(*(task for task in TASKS if task != first))
        own.age("sock_choices", 200)
        asking.go_on()
        assert asking.line() != first


# --- what is told


def test_what_begins_is_told_once(own: Node, web: Service, containers: Processes) -> None:
    ring = Ring(own.module)
    ring.want(1, 60)
    try:
        for script, protocol in ((connect(), 6), (send(count=3), 17)):
            task = containers.run(script).split()[0]
            (event,) = ring.read(1000)
            assert (event.source, event.destination) == (CLIENT, VIP)
            assert (event.destination_port, event.protocol) == (PORT, protocol)
            assert (event.vni, event.backend) == (VNI, web.ids[task])
            assert list(Way)[event.path] is Way.SOCKET
    finally:
        ring.close()


# --- what is left to the programs at the link


either_way = pytest.mark.parametrize(
    "script",
    [connect(patience_s=QUICK_S), send(patience_s=QUICK_S)],
    ids=["connects", "sends"],
)


@either_way
def test_namespace_that_is_not_known(
    own: Node, web: Service, containers: Processes, script: str
) -> None:
    own.maps.delete_namespace(netns_cookie())
    assert containers.run(script) == NO_ANSWER
    assert own.counter("frontend", web.frontend).connections == 0


@either_way
@pytest.mark.usefixtures("web")
def test_vip_of_a_network_that_it_is_not_on(own: Node, containers: Processes, script: str) -> None:
    own.maps.put_namespace(netns_cookie(), [Membership(VNI + 1, CLIENT)])
    assert containers.run(script) == NO_ANSWER


@either_way
def test_service_that_counts_its_connections(
    web: Service, containers: Processes, script: str
) -> None:
    web.flagged(LEAST_CONN)
    assert containers.run(script) == NO_ANSWER


@either_way
def test_service_without_tasks(web: Service, containers: Processes, script: str) -> None:
    web.choose()
    assert containers.run(script) == NO_ANSWER


@either_way
def test_service_all_of_whose_tasks_have_gone(
    web: Service, containers: Processes, script: str
) -> None:
    for task in TASKS:
        web.state(task, GONE)
    assert containers.run(script) == NO_ANSWER


@either_way
@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("mode", [Mode.GIVING_BACK, Mode.MOVING])
def test_what_begins_while_nothing_may(
    own: Node, containers: Processes, script: str, mode: Mode
) -> None:
    settings = own.table("settings")
    settings[settings.Key(0)] = settings.Leaf(0, time.monotonic_ns(), int(mode), 0)
    assert containers.run(script) == NO_ANSWER


@pytest.mark.parametrize(
    "script",
    [
        connect(kind="SOCK_DGRAM", patience_s=QUICK_S),
        connect(before="s.bind(('0.0.0.0', 0))", patience_s=QUICK_S),
        connect(f"::ffff:{VIP}", family="AF_INET6", patience_s=QUICK_S),
        send(f"::ffff:{VIP}", family="AF_INET6", patience_s=QUICK_S),
    ],
    ids=["connected datagrams", "a port of its own", "mapped address", "mapped datagram"],
)
def test_sockets_that_the_programs_at_the_link_serve_better(
    own: Node, web: Service, containers: Processes, script: str
) -> None:
    assert containers.run(script) == NO_ANSWER
    assert own.counter("frontend", web.frontend).connections == 0


def test_task_that_is_asked_by_its_own_address(
    own: Node, web: Service, containers: Processes
) -> None:
    for script in (connect(TASKS[0]), send(TASKS[0])):
        assert containers.run(script) == f"{TASKS[0]} {TASKS[0]} {PORT}"
    assert own.counter("frontend", web.frontend).connections == 0


# --- attaching


@pytest.mark.usefixtures("web")
def test_later_agent_may_want_the_programs_or_not(
    programs: Object, sock_constants: dict[str, int], sock_pins: Path, containers: Processes
) -> None:
    for wanted in (HOST_PROGRAMS, SOCKET_PROGRAMS):
        later = Module(programs, sock_constants, sock_pins)
        attach_socket_programs(later, str(containers.cgroup), sock_pins, wanted)
        later.close()
        asks = connect(patience_s=QUICK_S if wanted is HOST_PROGRAMS else PATIENT_S)
        assert (containers.run(asks) == NO_ANSWER) is (wanted is HOST_PROGRAMS)
        pinned = {path.name for path in sock_pins.iterdir()}
        assert pinned & SOCKET_PROGRAMS.keys() == wanted.keys()


# --- whose sockets


def test_namespaces_are_read_back_and_may_be_removed_twice(own: Node) -> None:
    networks = (Membership(VNI, CLIENT), Membership(VNI + 1, "10.0.2.7"))
    own.maps.put_namespace(5, networks)
    assert own.maps.namespaces()[5] == networks
    own.maps.delete_namespace(5)
    own.maps.delete_namespace(5)
    assert 5 not in own.maps.namespaces()


def test_of_more_networks_than_there_is_room_for_the_first_ones_count(own: Node) -> None:
    many = [Membership(VNI + i, CLIENT) for i in range(20)]
    own.maps.put_namespace(5, many)
    assert own.maps.namespaces()[5] == tuple(many[:8])


def test_cookie_of_a_containers_namespace_is_found(own: Node) -> None:
    sandbox = look_at_sandbox("/proc/thread-self/ns/net", None)
    assert sandbox is not None
    assert sandbox.cookie == netns_cookie()
