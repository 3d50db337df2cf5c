# SPDX-License-Identifier: Apache-2.0
"""A Swarm of three nodes, a service asked in every way there is, and all of it gone again.

What is shown is also checked: a request that is not answered, or answered by one replica alone,
ends the demo with an error.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import msgspec

from ebpfmesh.lab import Lab, LabError
from ebpfmesh.lab.images import BUSYBOX
from ebpfmesh.lab.plan import CLIENT_ADDRESS, Place
from ebpfmesh.lab.unix_http import get_json

NETWORK = "demo"
SERVICE = "echo"
CLIENT = "client"
PUBLISHED, TARGET = 8080, 80
NODES, REPLICAS, REQUESTS = 3, 3, 12

_CONVERGE_S = 20.0
_POLL_S = 0.2
_CURL_S = 2

Say = Callable[[str], None]


class DemoError(Exception):
    """Something did not answer as it should."""


class Answer(msgspec.Struct, frozen=True):
    """What the echo service says: which container answered, and whom it saw as its peer."""

    host: str
    peer: str


def run(say: Say) -> None:
    """Show everything; whatever happens, take it down. Raises DemoError, LabError."""
    with _term_like_interrupt():
        say(f"a Swarm of {NODES} nodes, with an agent on each")
        lab = Lab.up(NODES, agents=True, progress=lambda step: say(f"  {step}"))
        try:
            _show(lab, say)
        finally:
            with _undisturbed():
                say("taking everything down")
                lab.down()


def _show(lab: Lab, say: Say) -> None:
    deploy(lab, say)
    say(f"\nthrough the VIP, from a container: {REQUESTS} times http://{SERVICE}/")
    vip_requests(lab, say)
    for node in lab.nodes:
        url = f"http://{node.address}:{PUBLISHED}/"
        say(f"\nthrough the published port of {node.name}, from outside ({CLIENT_ADDRESS}): {url}")
        answers = requests(ask_from(lab, Place.CLIENT, url))
        show_answers(answers, say)
        _expect_client_address(answers)
    for node in lab.nodes:
        url = f"http://localhost:{PUBLISHED}/"
        say(f"\nfrom {node.name} itself: {url}")
        show_answers(requests(ask_from(lab, node.name, url)), say)
    name = lab.manager().name
    say(f"\nebpfmesh status, on {name}\n")
    say(lab.run(name, ["ebpfmesh", "status"], check=False).stdout.rstrip() + "\n")


# --- services -----------------------------------------------------------------------------


def deploy(lab: Lab, say: Say) -> None:
    """An overlay network, the sample service on it and on every node's port, and a client."""
    manager = lab.manager().name
    say(f"\nnetwork {NETWORK}, service {SERVICE} ({REPLICAS} replicas, port {PUBLISHED}), a client")
    lab.docker(manager, "network", "create", "--driver", "overlay", NETWORK)
    lab.deploy(
        SERVICE,
        replicas=REPLICAS,
        networks=[NETWORK],
        publish=[f"{PUBLISHED}:{TARGET}"],
    )
    lab.deploy(CLIENT, image=BUSYBOX, networks=[NETWORK])
    lab.wait_for_replicas(SERVICE, REPLICAS)
    lab.wait_for_replicas(CLIENT, 1)
    for task in lab.task_containers(SERVICE):
        say(f"  {task.container_id[:12]} on {task.node}, {task.addresses.get(NETWORK, '?')}")
    wait_until_balanced(lab)


def wait_until_balanced(lab: Lab) -> None:
    """A task is listed as running a moment before every node has heard of it."""
    for node in lab.nodes:
        _wait_until(
            partial(_is_balanced, node.agent_socket),
            f"{node.name} has not all replicas in its maps",
        )


def _wait_until(reached: Callable[[], bool], otherwise: str) -> None:
    deadline_s = time.monotonic() + _CONVERGE_S
    while not reached():
        if time.monotonic() > deadline_s:
            raise DemoError(f"{otherwise} after {_CONVERGE_S:g} s")
        time.sleep(_POLL_S)


def _is_balanced(agent: Path) -> bool:
    rows = [row for row in get_json(agent, "/status")["services"] if row["name"] == SERVICE]
    here = [row for row in rows if row["state"] != "elsewhere"]
    return bool(here) and all(row["ready"] == REPLICAS for row in here)


def vip_requests(lab: Lab, say: Say) -> None:
    """Ask the service by its name, and check that its tasks see the client's own address."""
    client = lab.task_containers(CLIENT)[0]
    ask = ask_from_container(lab, client.node, client.container_id, f"http://{SERVICE}/")
    answers = requests(ask)
    show_answers(answers, say)
    own = client.addresses[NETWORK]
    if others := {answer.peer for answer in answers} - {own}:
        raise DemoError(f"the client is {own}, but the service saw {', '.join(sorted(others))}")


def _expect_client_address(answers: Iterable[Answer]) -> None:
    if others := {answer.peer for answer in answers} - {CLIENT_ADDRESS}:
        raise DemoError(
            f"the client is {CLIENT_ADDRESS}, but the service saw {', '.join(sorted(others))}"
        )


# --- requests -----------------------------------------------------------------------------

Ask = Callable[[], subprocess.CompletedProcess[str]]


def curl(url: str) -> list[str]:
    """The command that asks once, over a connection of its own."""
    return ["curl", "--silent", "--show-error", "--fail", "--max-time", str(_CURL_S), url]


def ask_from(lab: Lab, where: str, url: str) -> Ask:
    """Ask from a node or from the client outside."""
    return lambda: lab.run(where, curl(url), check=False)


def ask_from_container(lab: Lab, node: str, container_id: str, url: str) -> Ask:
    """Ask from within a container's network."""
    return lambda: lab.container_run(node, container_id, curl(url), check=False)


def requests(ask: Ask, count: int = REQUESTS) -> list[Answer]:
    """Ask `count` times; each must succeed, and more than one replica answer."""
    answers = [_answer(ask()) for _ in range(count)]
    if len({answer.host for answer in answers}) == 1:
        raise DemoError(f"all of {count} requests were answered by {answers[0].host}")
    return answers


def _answer(done: subprocess.CompletedProcess[str]) -> Answer:
    if done.returncode:
        raise DemoError(f"a request failed: {done.stderr.strip()}")
    try:
        return msgspec.convert(json.loads(done.stdout), Answer)
    except ValueError as error:
        raise DemoError(f"not an answer of the echo service: {done.stdout[:80]!r}") from error


def show_answers(answers: Sequence[Answer], say: Say) -> None:
    """Say who answered how often, and whom they saw."""
    seen = ", ".join(sorted({answer.peer for answer in answers}))
    for host, count in sorted(Counter(answer.host for answer in answers).items()):
        say(f"  {count:3} answered by {host}")
    say(f"      which saw as its peer: {seen}")


# --- signals --------------------------------------------------------------------------------


@contextmanager
def _term_like_interrupt() -> Iterator[None]:
    """SIGTERM, too, must unwind: the lab would stay behind otherwise."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """An impatient second Ctrl-C must not leave half a lab behind."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


__all__ = [
    "Answer",
    "DemoError",
    "LabError",
    "ask_from",
    "ask_from_container",
    "curl",
    "deploy",
    "requests",
    "run",
    "show_answers",
    "wait_until_balanced",
]
