from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import Any, cast

import aiohttp
import msgspec

from ebpfmesh.agent.answers import Answers
from ebpfmesh.agent.http import serve_metrics
from ebpfmesh.agent.onlooker import Onlooker
from ebpfmesh.changes import Change
from ebpfmesh.page import HEADERS, View, document, live
from ebpfmesh.page.html import Html, element, join
from ebpfmesh.rates import between
from ebpfmesh.status import NoteStatus, Status, Traffic
from tests.unit.fake_agent import BACKENDS, STATUS, VIP, a_service

EVIL = "<script>alert(1)</script>\"'&\x1b[2J\u202e</style><img src=x onerror=y>"
VOID = {"meta", "link"}
CHANGES = (
    Change("backend.state", {"service": "echo", "state": "draining"}, 1.7e9, "links", 0.012),
    Change("hub.following", {"hub": "192.0.2.11:7380"}, 1.7e9 - 1),
)


class Page(HTMLParser):
    """The tree of a page, as a list of elements with their attributes and texts."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.assets: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(markup)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("style", "script"):
            self.assets[self._open[-1]] = data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def a_view(status: Status = STATUS, changes: tuple[Change, ...] = CHANGES) -> View:
    return View(status, between(status, status), changes)


def whole(view: View) -> str:
    return document("node1: ebpfmesh", live(view))


def changed(**fields: Any) -> Status:
    return msgspec.structs.replace(STATUS, **fields)


# --- what it shows


def test_everything_is_there() -> None:
    page = Page(whole(a_view()))
    for wanted in ("node1", "healthy", "echo", "10.0.1.2", "tcp:8080", "10.0.0.5", "degraded"):
        assert wanted in page.texts
    for wanted in ("node1 (here)", "66.7%", "backend.state", "service echo, state draining"):
        assert wanted in page.texts
    assert "22:13:20 UTC" in page.texts
    assert "12 ms" in page.texts
    assert "no_backend" in page.texts
    assert "too_big" not in page.texts
    assert "warning: echo: a task has no docker_gwbridge endpoint" in page.texts


def test_rates_are_shown() -> None:
    node = msgspec.structs.replace(STATUS.node, uptime_s=STATUS.node.uptime_s + 2)
    traffic = msgspec.structs.replace(VIP.traffic, connections=VIP.traffic.connections + 24)
    backend = msgspec.structs.replace(
        BACKENDS[1], traffic=Traffic(packets_to_backend=6000, bytes_to_client=4096)
    )
    frontend = msgspec.structs.replace(VIP, traffic=traffic)
    after = a_service("echo", "demo", frontends=(frontend,), backends=(BACKENDS[0], backend))
    before = changed(services=(a_service("echo", "demo"),))
    later = changed(services=(after,), node=node)
    page = Page(whole(View(later, between(before, later))))
    assert "3 flows, 12 new/s, 0 packets/s" in page.texts
    assert "3.0k" in page.texts
    assert "2.0KiB" in page.texts


def test_problems_come_first() -> None:
    page = Page(whole(a_view(changed(problems=("no hub for 9 s",)))))
    assert "degraded" in page.texts
    assert page.text.index("no hub for 9 s") < page.text.index("Services")


def test_a_node_without_anything() -> None:
    page = Page(whole(a_view(changed(services=(), drops={}, notes=()), ())))
    assert "None is known." in page.texts
    assert "None since the agent was started." in page.texts
    assert "Dropped" not in page.texts


def test_backends_of_many_services_are_folded() -> None:
    many = tuple(a_service(f"s{number}", "demo") for number in range(21))
    folded = [
        given
        for name, given in Page(whole(a_view(changed(services=many)))).elements
        if name == "details"
    ]
    assert len(folded) == 21
    assert not any("open" in given for given in folded)
    few = Page(whole(a_view(changed(services=many[:3]))))
    assert all("open" in given for name, given in few.elements if name == "details")


# --- what it cannot be made to do


def test_names_are_only_text() -> None:
    backend = msgspec.structs.replace(BACKENDS[0], task=EVIL, node=EVIL, address=EVIL, state=EVIL)
    frontend = msgspec.structs.replace(VIP, name=EVIL)
    service = a_service(
        EVIL, EVIL, id=EVIL, mode=EVIL, state=EVIL, frontends=(frontend,), backends=(backend,)
    )
    node = msgspec.structs.replace(
        STATUS.node, hostname=EVIL, vtep=EVIL, agent_version=EVIL, engine_version=EVIL
    )
    status = changed(
        services=(service,),
        node=node,
        problems=(EVIL,),
        notes=(NoteStatus(EVIL, EVIL, EVIL),),
        drops={EVIL: 1},
        handbacks={EVIL: 1},
        datapath=msgspec.structs.replace(STATUS.datapath, device=EVIL, xdp=EVIL),
        hub=msgspec.structs.replace(STATUS.hub, address=EVIL),
    )
    changes = (Change(EVIL, {EVIL: EVIL}, 1.7e9, EVIL),)
    markup = document(EVIL, live(a_view(status, changes)))
    page = Page(markup)
    assert page.count("script") == page.count("style") == 1
    assert page.count("img") == 0
    assert not {"\x1b", "\u202e"} & set(markup)
    assert not [name for _, given in page.elements for name in given if name.startswith("on")]
    shown = EVIL.replace("\x1b", "").replace("\u202e", "")
    assert page.text.count(shown) >= 15


def test_nothing_comes_from_elsewhere() -> None:
    markup = whole(a_view())
    assert "//" not in re.sub(r"^// .*$", "", markup, flags=re.MULTILINE)
    assert "url(" not in markup
    assert "@import" not in markup


def test_the_policy_allows_the_pages_own_style_and_script_alone() -> None:
    page = Page(whole(a_view()))
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    for asset in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.assets[asset].encode()).digest()).decode()
        assert policy[f"{asset}-src"] == f"'sha256-{digest}'"
    assert not [given for _, given in page.elements if "style" in given]


def test_the_script_is_not_in_what_is_put_in_place() -> None:
    assert not Page(live(a_view())).assets


def test_markup_comes_only_from_elements() -> None:
    assert join("<b>", Html("<i>"), None) == "&lt;b&gt;<i>"
    made = element("a", "x", href='"><b>', data_x="1", class_="", open=True, hidden=False)
    assert made == '<a href="&quot;&gt;&lt;b&gt;" data-x="1" open>x</a>'


# --- how it is looked at and served


class FakeAnswers:
    """As `Answers`, with a status that grows older by itself."""

    def __init__(self) -> None:
        self.looks = 0

    def is_ready(self) -> bool:
        return True

    def changes(self) -> tuple[Change, ...]:
        return CHANGES

    async def status(self) -> Status:
        self.looks += 1
        await asyncio.sleep(0)
        return changed(node=msgspec.structs.replace(STATUS.node, uptime_s=float(self.looks)))


async def test_many_onlookers_cost_one_look() -> None:
    answers, now = FakeAnswers(), [10.0]
    onlooker = Onlooker(answers.status, answers.changes, lambda: now[0])
    await asyncio.gather(*(onlooker.look() for _ in range(20)))
    assert answers.looks == 1
    now[0] += 0.9
    assert (await onlooker.look()).rates.seconds == 0.0
    assert answers.looks == 1
    now[0] += 0.2
    assert (await onlooker.look()).rates.seconds == 1.0
    assert answers.looks == 2


@asynccontextmanager
async def served(*, page: bool) -> AsyncIterator[str]:
    answers = cast(Answers, FakeAnswers())
    face = await serve_metrics(answers, "127.0.0.1", 0, page=page)
    try:
        host, port = face.address
        yield f"http://{host}:{port}"
    finally:
        await face.cleanup()


async def test_it_is_served_beside_the_metrics() -> None:
    async with served(page=True) as base, aiohttp.ClientSession() as client:
        for path in ("/", "/live"):
            async with client.get(base + path) as answer:
                assert answer.status == 200
                assert answer.content_type == "text/html"
                assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)
                assert ("<!doctype html>" in await answer.text()) == (path == "/")
        async with client.get(f"{base}/healthz") as answer:
            assert answer.status == 200


async def test_it_only_shows() -> None:
    async with served(page=True) as base, aiohttp.ClientSession() as client:
        for method in ("POST", "PUT", "DELETE"):
            async with client.request(method, f"{base}/") as answer:
                assert answer.status == 405
        for path in ("/flows", "/explain", "/changes", "/status"):
            async with client.get(base + path) as answer:
                assert answer.status == 404


async def test_it_can_be_switched_off() -> None:
    async with served(page=False) as base, aiohttp.ClientSession() as client:
        for path in ("/", "/live"):
            async with client.get(base + path) as answer:
                assert answer.status == 404
        async with client.get(f"{base}/healthz") as answer:
            assert answer.status == 200
