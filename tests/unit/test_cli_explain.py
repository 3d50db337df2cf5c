from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ebpfmesh.explanation import (
    BadQuestion,
    Candidate,
    Choice,
    Explanation,
    Outcome,
    Question,
    Step,
    question,
)
from ebpfmesh.model import Protocol
from tests.unit.fake_agent import FakeAgent, a_place, an_agent, invoke

ASKED = ("192.0.2.100:5000", "192.0.2.11:8080")
TARGET = "/explain?client=192.0.2.100%3A5000&frontend=192.0.2.11%3A8080%2Ftcp&network="
ONE = Candidate(3, "t" * 25, "10.0.0.5", "node2", "192.0.2.12", False, "ready", 0.6)
ANSWER = Explanation(
    version=1,
    client=ASKED[0],
    frontend="192.0.2.11:8080/tcp",
    outcome=Outcome.BACKEND,
    choice=Choice.SLOT,
    service="web",
    hash=1,
    slot=7,
    slots=16381,
    backends=(ONE,),
    steps=(Step("choice", "slot 7 of 16381 in the Maglev table"), Step("return", "(tunnel)")),
)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from a_place(monkeypatch)


@pytest.fixture
def agent(place: Path) -> Iterator[FakeAgent]:
    for agent in an_agent(place):
        agent.answers[TARGET] = msgspec.json.encode(ANSWER)
        yield agent


def says(agent: FakeAgent, **changes: object) -> None:
    agent.answers[TARGET] = msgspec.json.encode(msgspec.structs.replace(ANSWER, **changes))


def test_the_answer_comes_first_and_then_why(agent: FakeAgent) -> None:
    code, out, err = invoke("explain", *ASKED)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "192.0.2.100:5000 -> 192.0.2.11:8080/tcp: 10.0.0.5 on node2",
        "  choice    slot 7 of 16381 in the Maglev table",
        "  return    (tunnel)",
    ]


def test_an_arrow_and_a_protocol_are_fine(agent: FakeAgent) -> None:
    assert invoke("explain", ASKED[0], "->", ASKED[1] + "/tcp")[0] == 0


def test_candidates_are_listed_where_chance_decides(agent: FakeAgent) -> None:
    other = msgspec.structs.replace(ONE, address="10.0.0.6", node="", local=True, share=0.4)
    says(agent, outcome=Outcome.ANY, backends=(ONE, other))
    out = invoke("explain", *ASKED)[1].splitlines()
    assert out[0].endswith(": one of 2 backends")
    assert out[-2].split() == [ONE.task, "10.0.0.5", "node2", "ready", "60.0%"]
    assert out[-1].split() == [ONE.task, "10.0.0.6", "192.0.2.12", "(here)", "ready", "40.0%"]


@pytest.mark.parametrize(
    ("outcome", "words"),
    [(Outcome.KERNEL, "left to the kernel"), (Outcome.DROPPED, "dropped")],
)
def test_what_is_not_balanced_has_its_reason(
    agent: FakeAgent, outcome: Outcome, words: str
) -> None:
    says(agent, outcome=outcome, reason="giving_back", backends=())
    assert invoke("explain", *ASKED)[1].splitlines()[0].endswith(f": {words} (giving_back)")


def test_json_is_what_the_agent_says(agent: FakeAgent) -> None:
    out = invoke("explain", *ASKED, "-o", "json")[1]
    assert json.loads(out)["version"] == 1
    assert msgspec.json.decode(out, type=Explanation) == ANSWER


def test_names_cannot_speak_to_the_terminal(agent: FakeAgent) -> None:
    evil = "e\x1b[2Jvil\x07\u202e[red]x[/red]"
    steps = (Step(evil, evil),)
    backend = msgspec.structs.replace(ONE, node=evil, task=evil)
    says(agent, steps=steps, backends=(backend, backend), outcome=Outcome.ANY)
    out = invoke("explain", *ASKED)[1]
    assert out.count("e[2Jvil[red]x[/red]") == 6
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("192.0.2.100:5000",), "a client and a frontend"),
        (("192.0.2.100:5000", "-"), "shell has taken"),
        (("192.0.2.100:5000", "10.0.1.2"), "is no frontend"),
        (("192.0.2.100:5000", "10.0.1.2:80/icmp"), "'icmp' is not balanced"),
        (("192.0.2.300", "10.0.1.2:80"), "is no IPv4 address"),
        (("[2001:db8::1]:5000", "10.0.1.2:80"), "is no client"),
        (("192.0.2.100:0", "10.0.1.2:80"), "0 is no port"),
        (("192.0.2.100:1", "10.0.1.2:65536"), "65536 is no port"),
    ],
)
def test_what_cannot_be_read_is_exit_2(place: Path, words: tuple[str, ...], message: str) -> None:
    code, out, err = invoke("explain", *words)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err


def test_no_agent_is_exit_3(place: Path) -> None:
    assert invoke("explain", *ASKED)[0] == 3


def test_a_question() -> None:
    read = question("192.0.2.100", "10.0.1.2:80/UDP", "shop")
    assert read == Question("192.0.2.100", 0, "10.0.1.2", 80, Protocol.UDP, "shop")
    assert (read.client_text, read.frontend_text) == ("192.0.2.100", "10.0.1.2:80/udp")
    with pytest.raises(BadQuestion):
        question("192.0.2.100:\u0665", "10.0.1.2:80")
