# SPDX-License-Identifier: Apache-2.0
"""Which nodes a hub holds to be silent, and when it says nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from ebpfmesh.hub.hearing import Hearing, answers
from ebpfmesh.hub.silence import Patience, Silence

P = Patience()
STEP_S = 0.2


class Hub:
    """A hub on n1 with agents on the others; `talking` answer its pings twice a second."""

    def __init__(self, *nodes: str) -> None:
        self.silence = Silence("n1", P)
        self.talking = {"n1", *nodes}
        self.kernels: set[str] = set()
        self.in_touch = True
        self.down: set[str] = set()
        self.now_s = 100.0
        self.said: list[tuple[float, set[str]]] = []
        self.turn = 0
        for node in self.talking:
            self.silence.heard(node, self.now_s)

    def go(self, seconds: float) -> set[str]:
        """Looks for so long; returns who is silent then."""
        silent: set[str] = set()
        for _ in range(round(seconds / STEP_S)):
            self.now_s += STEP_S
            for number, node in enumerate(sorted(self.talking)):
                # Everybody at another moment, each in less than a ping and a bit.
                if (self.turn + number) % 3 == 0:
                    self.silence.heard(node, self.now_s)
            self.turn += 1
            for node in self.silence.suspects(self.now_s):
                if node in self.kernels:
                    self.silence.answered(node, self.now_s)
            silent = set(
                self.silence.look(
                    self.now_s, in_touch=self.in_touch, is_up=lambda node: node not in self.down
                )
            )
            if not self.said or self.said[-1][1] != silent:
                self.said.append((self.now_s, silent))
        return silent

    def cut(self, *nodes: str) -> None:
        self.talking -= set(nodes)


def test_a_node_that_is_cut_off_is_silent_within_two_seconds_and_a_half() -> None:
    hub = Hub("n2", "n3", "n4")
    assert hub.go(10) == set()
    hub.cut("n4")
    assert hub.go(2.4) == {"n4"}


def test_it_is_not_silent_any_more_once_it_is_heard() -> None:
    hub = Hub("n2", "n3", "n4")
    hub.cut("n4")
    hub.go(5)
    hub.silence.heard("n4", hub.now_s + 0.1)
    assert hub.go(STEP_S) == set()


def test_a_pause_of_a_second_is_none() -> None:
    hub = Hub("n2", "n3", "n4")
    for _ in range(5):
        hub.cut("n4")
        hub.go(1.2)
        hub.talking.add("n4")
        hub.go(1.2)
    assert {frozenset(silent) for _, silent in hub.said} == {frozenset()}


def test_an_agent_that_ends_or_is_killed_is_not_silent() -> None:
    hub = Hub("n2", "n3", "n4")
    hub.cut("n4")
    hub.silence.left("n4")
    assert hub.go(10) == set()


def test_a_connection_that_ends_while_its_node_is_silent_says_that_it_lives() -> None:
    hub = Hub("n2", "n3", "n4")
    hub.cut("n4")
    assert hub.go(3) == {"n4"}
    hub.silence.left("n4")
    assert hub.go(STEP_S) == set()


def test_a_node_whose_kernel_answers_is_there() -> None:
    hub = Hub("n2", "n3", "n4")
    hub.kernels = {"n4"}
    hub.cut("n4")
    assert hub.go(30) == set()
    hub.kernels = set()
    assert hub.go(3) == {"n4"}
    hub.kernels = {"n4"}
    assert hub.go(STEP_S) == set()


def test_a_hub_that_is_cut_off_itself_says_nothing() -> None:
    hub = Hub("n2", "n3", "n4")
    hub.go(3)
    hub.cut("n2", "n3", "n4")
    hub.go(30)
    assert {frozenset(silent) for _, silent in hub.said} == {frozenset()}


def test_with_one_other_node_it_cannot_tell_who_is_cut_off() -> None:
    hub = Hub("n2")
    hub.cut("n2")
    assert hub.go(30) == set()


def test_who_was_cut_off_before_does_not_count_as_one_of_many() -> None:
    hub = Hub("n2", "n3", "n4")
    hub.cut("n4")
    hub.go(5)
    hub.cut("n3")
    assert hub.go(3) == {"n3", "n4"}


def test_a_hub_that_the_swarm_does_not_answer_says_nothing_new() -> None:
    hub = Hub("n2", "n3", "n4", "n5")
    hub.cut("n4")
    assert hub.go(3) == {"n4"}
    hub.in_touch = False
    hub.cut("n5")
    assert hub.go(5) == {"n4"}
    hub.in_touch = True
    assert hub.go(1) == {"n4", "n5"}


def test_a_hub_that_has_paused_blames_nobody() -> None:
    hub = Hub("n2", "n3", "n4")
    hub.go(1)
    hub.now_s += 30
    for node in ("n2", "n3"):  # n4's words are read a moment later
        hub.silence.heard(node, hub.now_s)
    assert hub.silence.look(hub.now_s, in_touch=True, is_up=lambda _: True) == {}
    assert hub.go(1) == set()


def test_who_pauses_often_gets_more_time_until_it_has_not_for_a_while() -> None:
    hub = Hub("n2", "n3", "n4")

    def patience_s() -> float:
        hub.cut("n4")
        began_s = hub.now_s
        while not hub.go(STEP_S):
            assert hub.now_s - began_s < 2 * P.longest_s
        took_s = hub.now_s - began_s
        hub.talking.add("n4")
        hub.go(1)
        return took_s

    first, second, third, fourth = (patience_s() for _ in range(4))
    assert first < 2.5 < second < 4.5 < third
    assert abs(third - fourth) < 1.0
    hub.go(P.calm_s)
    assert patience_s() < 2.5


def test_a_long_silence_was_no_pause() -> None:
    hub = Hub("n2", "n3", "n4")
    for _ in range(3):
        hub.cut("n4")
        assert hub.go(2.6) == {"n4"}
        hub.go(P.pause_s)
        hub.talking.add("n4")
        assert hub.go(1) == set()


def test_the_swarm_is_believed_in_the_end() -> None:
    hub = Hub("n2", "n3", "n4")
    hub.cut("n4")
    assert hub.go(P.trust_s - 5) == {"n4"}
    assert hub.go(10) == set()
    hub.talking.add("n4")
    hub.go(1)
    hub.cut("n4")
    hub.down.add("n4")
    assert hub.go(2 * P.trust_s) == {"n4"}


def test_its_own_node_is_heard_whatever_happens() -> None:
    hub = Hub("n2", "n3")
    hub.cut("n1", "n2", "n3")
    hub.silence.heard("n1", hub.now_s)
    assert hub.go(10) == set()


def test_who_is_there_is_heard_or_answers_whether_it_runs_an_agent_or_not() -> None:
    hub = Hub("n2", "n3", "n4")
    hub.cut("n3", "n4")
    for node in ("n3", "n4"):
        hub.silence.left(node)
    hub.kernels = {"n4"}
    hub.go(1)
    assert hub.silence.there(hub.now_s) == {"n1", "n2", "n3", "n4"}
    hub.go(20)
    assert hub.silence.there(hub.now_s) == {"n1", "n2", "n4"}
    hub.kernels = set()
    hub.go(P.there_s + 1)
    assert hub.silence.there(hub.now_s) == {"n1", "n2"}


def test_who_is_silent_is_not_there() -> None:
    hub = Hub("n2", "n3", "n4")
    hub.cut("n4")
    assert hub.go(2.4) == {"n4"}
    assert hub.silence.there(hub.now_s) == {"n1", "n2", "n3"}


def test_who_has_left_for_long_is_not_asked_any_more() -> None:
    hub = Hub("n2", "n3", "n4")
    hub.cut("n4")
    hub.silence.left("n4")
    hub.go(10)
    assert hub.silence.suspects(hub.now_s) == ["n4"]
    hub.go(P.forget_s)
    assert hub.silence.suspects(hub.now_s) == []


# --- the kernel's answer ----------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_port_that_is_open_and_one_that_is_closed_are_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert await answers("127.0.0.1", port, 5.0)
    assert await answers("127.0.0.1", port, 5.0)


@pytest.mark.asyncio
async def test_no_answer_in_time_is_none() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        full = [socket.socket() for _ in range(4)]
        for one in full:
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(address)
        # Its queue is full: the kernel answers no SYN.
        assert not await answers("127.0.0.1", address[1], 0.2)
        for one in full:
            one.close()


# --- the ear ----------------------------------------------------------------------------

QUICK = Patience(ask_after_s=0.5, silence_s=1.0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_one_line_for_each_change(monkeypatch: pytest.MonkeyPatch) -> None:
    there = False

    async def asked(host: str, port: int, within_s: float) -> bool:
        return there and (host, port) == ("192.0.2.14", 7380)

    monkeypatch.setattr("ebpfmesh.hub.hearing.answers", asked)
    said: list[set[str]] = []

    def hear(silent: Mapping[str, int], there: frozenset[str]) -> None:
        assert there.isdisjoint(silent)
        if not said or said[-1] != set(silent):
            said.append(set(silent))

    ear = Hearing(
        "n1",
        age_s=lambda: 0.0,
        is_up=lambda _: True,
        port=lambda: 7380,
        on_hearing=hear,
        patience=QUICK,
    )

    def n2_talks() -> bool:
        ear.came("n2", "192.0.2.12")
        return True

    ear.came("n4", "192.0.2.14")
    listening = asyncio.create_task(ear.run())
    with capture_logs() as lines:
        await until(lambda: n2_talks() and {"n4"} in said)
        there = True
        await until(lambda: n2_talks() and len(said) == 3)
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening
    assert said == [set(), {"n4"}, set()]
    told = [(line["event"], line["node_id"]) for line in lines]
    assert told == [("hub.node_silent", "n4"), ("hub.node_heard", "n4")]
