# SPDX-License-Identifier: Apache-2.0
"""Which networks and which kinds of services and clients are served."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from ebpfmesh.lab import images
from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.processes import wait_until

from .traffic import CLIENT
from .world import Task, World, on

TIMEOUT_S = 60


def test_a_dnsrr_service_is_left_to_dns(world: World) -> None:
    network = world.network("overlay1")
    client = world.idle("client", network, "node1")
    world.service("vote", replicas=2, networks=[network], options=["--endpoint-mode=dnsrr"])
    world.lab.wait_for_replicas("vote", 2)
    addresses = {task.addresses[network] for task in world.tasks("vote")}

    def found() -> set[str]:
        dig = ["dig", "+short", "vote"]
        return set(world.lab.container_run(client.node, client.container, dig).stdout.split())

    assert wait_until(lambda: found() == addresses, TIMEOUT_S, 0.2), (
        "Docker's gossip takes its time"
    )
    row = world.agents.service("node1", "vote", network)
    assert row is not None
    assert (row.state, row.mode, row.frontends, row.backends) == ("dnsrr", "dnsrr", (), ())
    for address in addresses:
        world.load.http(client.place, f"{address}:80", count=20).assert_none_failed()


def test_other_networks_cannot_reach_a_vip(world: World) -> None:
    first, second = world.network("overlay1"), world.network("overlay2")
    stranger = world.idle("stranger", second, "node1")
    friend = world.idle("friend", first, "node1")
    world.service("vote", replicas=1, networks=[first], options=on("node1"))
    target = f"{world.vip('vote', first)}:80"
    world.load.http(friend.place, target, count=5).assert_none_failed()
    assert world.load.http(stranger.place, target, count=1).ok == 0


def test_a_plain_container_on_an_attachable_network(world: World) -> None:
    network = world.network("eg1", "--attachable")
    world.service("http", replicas=2, networks=[network], options=on("node1", "node2"))
    client = world.container("node3", "plain", f"--network={network}")
    world.agents.wait_ready("http", network, 2, ["node3"])
    curl = ["curl", "--silent", "--fail", "http://http/"]
    world.lab.container_run("node3", client.container, curl)
    target = f"{world.vip('http', network)}:80"
    seen = world.load.http(client.place, target, count=200).assert_none_failed()
    assert seen.host.keys() == {task.host for task in world.tasks("http")}


def test_a_vip_is_served_from_the_first_packet_of_a_new_task(world: World) -> None:
    """Of a task that is the first one of its network on its node, too."""
    network = world.network("overlay1")
    world.service("vote", replicas=2, networks=[network], options=on("node1"))
    vip = world.vip("vote", network)
    ask = rf"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 10 {vip} 80 | grep -c '\"host\"'"
    loop = f"for i in $(seq 20); do echo $({ask}; {SENT_AGAIN}) >>/asked; done; sleep infinity"
    world.service(
        "eager",
        *("sh", "-c", loop),
        image=images.BUSYBOX,
        replicas=4,
        networks=[network],
        options=[*on("node2", "node3"), "--endpoint-mode=dnsrr", "--stop-signal=KILL"],
        wait=False,
    )
    world.lab.wait_for_replicas("eager", 4)
    for task in world.tasks("eager"):

        def done(task: Task = task) -> bool:
            return len(asked(world, task)) == 20

        assert wait_until(done, TIMEOUT_S, 0.2)
        assert asked(world, task) == ["1 0"] * 20, "answers, SYNs sent again until then"


# Prints how many SYNs a container has sent again. A SYN waits a second for its answer. What else
# TCP sends again tells nothing: a tail loss probe waits for a few milliseconds, which a busy
# machine takes without losing a packet.
SENT_AGAIN = """awk '
/^TcpExt/ { if (n) print $n; for (i = 1; i <= NF; i++) if ($i == "TCPSynRetrans") n = i }
' /proc/net/netstat"""


def asked(world: World, task: Task) -> list[str]:
    read = ("sh", "-c", "cat /asked 2>/dev/null || true")  # nobody has been asked yet
    return world.lab.docker(task.node, "exec", task.container, *read).splitlines()


ONE_SHOTS = 10


def test_one_shot_containers_lose_no_first_packet(world: World) -> None:
    """Each asks the VIP first of all, and ends."""
    network = world.network("eg1", "--attachable")
    world.service("vote", replicas=2, networks=[network], options=on("node1"))
    for node in ("node2", "node3"):
        world.container(node, "other", f"--network={network}")
    world.wait_ready("vote", 2, *world.agents.nodes)
    vip = world.vip("vote", network)
    ask = rf"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 10 {vip} 80; echo; {SENT_AGAIN}"

    def one_shots(node: str) -> list[str]:
        return [one_shot(world, node, network, ask) for _ in range(ONE_SHOTS)]

    with ThreadPoolExecutor() as executor:
        outputs = list(executor.map(one_shots, world.agents.nodes))
    for output in chain.from_iterable(outputs):
        assert '"host"' in output, output
        assert output.splitlines()[-1] == "0", output


def test_a_network_comes_back_at_once(world: World) -> None:
    """With its last container a node's part of a network goes; somebody who kept something of
    it would be in dockerd's way."""
    network = world.network("eg1", "--attachable")
    for _ in range(5):
        one_shot(world, "node3", network, "true")


def test_a_network_leaves_a_node_and_comes_back_under_traffic(world: World) -> None:
    """With its last task; it has a new namespace then, and nobody who asks notices."""
    network = world.network("overlay1")
    client = world.idle("client", network, "node1")
    options = [*on("node2", "node3"), "--replicas-max-per-node=1"]
    world.service("vote", replicas=2, networks=[network], publish=["8080:80"], options=options)
    world.wait_ready("vote", 2, "node1")
    target, load = f"{world.vip('vote', network)}:80", world.load
    both = {task.node: task for task in world.tasks("vote")}
    mesh = world.every_node(8080)
    with (
        load.background(client.place, target) as inside,
        load.background(CLIENT, *mesh) as outside,
    ):
        load.http(client.place, target, count=50).assert_none_failed()
        world.scale("vote", 1)
        world.wait_ready("vote", 1, "node1")
        (stays,) = world.tasks("vote")
        (away,) = both.keys() - {stays.node}
        world.wait_network_left(network, away)
        assert not has_namespace(world, away, network)
        world.scale("vote", 2)
        world.wait_ready("vote", 2, "node1")
        (back,) = [task for task in world.tasks("vote") if task.node == away]
        for place in (client.place, back.place):
            load.http(place, target, count=50).assert_none_failed()
        found = [each.stop().assert_none_failed() for each in (inside, outside)]
    assert has_namespace(world, away, network)
    everybody = {each.host for each in (stays, both[away], back)}
    assert [each.host.keys() for each in found] == [everybody] * 2


def has_namespace(world: World, node: str, network: str) -> bool:
    """Whether a network has one there. dockerd leaves its file behind for a minute."""
    beginning = str(world.inspect("network", "inspect", network)["Id"])[:10]
    files = f"/var/run/docker/netns/*-{beginning}"
    enter = f"for file in {files}; do nsenter --net=$file true && exit; done; exit 1"
    return world.lab.run(node, ["sh", "-c", enter], check=False).returncode == 0


def one_shot(world: World, node: str, network: str, command: str) -> str:
    run = ("run", "--rm", f"--network={network}", images.BUSYBOX, "sh", "-c", command)
    return world.lab.docker(node, *run)


def test_an_encrypted_network(world: World) -> None:
    if not _has_esp(world):
        pytest.skip("this kernel has no ESP: no overlay network can be encrypted")
    network = world.network("secret", "--opt=encrypted")
    client = world.idle("client", network, "node3")
    world.service("vote", replicas=2, networks=[network], options=on("node1", "node2"))
    world.wait_ready("vote", 2, "node3")
    target = f"{world.vip('vote', network)}:80"
    seen = world.load.http(client.place, target, count=200).assert_none_failed()
    assert seen.host.keys() == {task.host for task in world.tasks("vote")}
    assert seen.peer == {client.addresses[network]: 200}


def _has_esp(world: World) -> bool:
    """Ask the kernel for a security association, where it is in nobody's way."""
    which = ("src", "198.51.100.1", "dst", "198.51.100.2", "proto", "esp", "spi", "0x1234")
    key = ("enc", "cipher_null", "", "auth", "digest_null", "")
    try:
        world.lab.run("lan", ["ip", "xfrm", "state", "add", *which, *key])
    except LabError:
        return False
    world.lab.run("lan", ["ip", "xfrm", "state", "delete", *which])
    return True
