# SPDX-License-Identifier: Apache-2.0
"""The page of an agent, in a browser: served by the agent's own HTTP server, of a made-up Swarm."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from ebpfmesh.agent.answers import Answers
from ebpfmesh.agent.http import serve_metrics

from .browser import Browser, a_browser
from .swarm import SERVICES, FakeAgent

LOOPBACK = "127.0.0.1"
SCREENS = {"desktop": (1280, 900), "tablet": (820, 1180), "phone": (390, 844), "small": (320, 568)}
SCHEMES = ("light", "dark")
PICTURES = os.environ.get("PICTURES", "")

EVIL = (
    "<script>alerted = 1</script><img src=http://192.0.2.1/x onerror='alerted = 2'>"
    "\"' onmouseover=alerted=3 x='</style></svg>\x1b[2J" + "wide" * 40
)

# Of each element with text of its own: how its colour stands out from what is behind it (WCAG 2).
CONTRASTS = """
(() => {
  const part = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = numbers(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
  };
  const texts = [...document.querySelectorAll("body *")].filter((one) =>
    one.checkVisibility() && [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  return texts.map((one) => {
    const colours = [numbers(getComputedStyle(one).color), behind(one)];
    const pair = colours.map(light).sort((a, b) => b - a);
    return [(pair[0] + 0.05) / (pair[1] + 0.05), one.outerHTML.slice(0, 80)];
  });
})()
"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CUT_OFF = """
[...document.querySelectorAll("th, td, summary > *, .tile b")].filter((one) =>
  one.checkVisibility() && one.scrollWidth > one.clientWidth + 1 &&
  getComputedStyle(one).display !== "inline"
).map((one) => one.outerHTML.slice(0, 80))
"""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with a_browser() as browser:
        yield browser


@asynccontextmanager
async def served(agent: FakeAgent, port: int = 0) -> AsyncIterator[str]:
    face = await serve_metrics(cast(Answers, agent), LOOPBACK, port, page=True)
    try:
        yield "http://{}:{}/".format(*face.address)
    finally:
        await face.cleanup()


async def test_it_is_readable_on_every_screen(browser: Browser, tmp_path: Path) -> None:
    pictures = Path(PICTURES) if PICTURES else tmp_path
    grounds = set()
    async with served(FakeAgent()) as url:
        for screen, size in SCREENS.items():
            for scheme in SCHEMES:
                await browser.look(*size, scheme)
                await browser.open(url)
                await browser.until("document.querySelector('.tile b').textContent != '0'")
                assert await browser.value(OVERFLOW) == 0, screen
                assert await browser.value(CUT_OFF) == [], screen
                low = [pair for pair in await browser.value(CONTRASTS) if pair[0] < 4.5]
                assert low == [], (screen, scheme)
                grounds.add(await browser.value("getComputedStyle(document.body).backgroundColor"))
                file = pictures / f"page-{screen}-{scheme}.png"
                await browser.picture(file)
                assert file.stat().st_size > 10_000
    assert len(grounds) == len(SCHEMES)
    assert browser.complaints == []


async def test_it_shows_what_the_agent_tells(browser: Browser) -> None:
    async with served(FakeAgent()) as url:
        await browser.look(*SCREENS["desktop"])
        await browser.open(url)
        assert await browser.value("document.title") == "node1: ebpfmesh"
        assert await browser.value("document.querySelectorAll('details').length") == len(SERVICES)
        text = await browser.value("document.body.innerText")
        for wanted in (
            "degraded",
            "tcp:443",
            "10.0.1.21",
            "node1 (here)",
            "not_allowed",
            "draining",
        ):
            assert wanted in text


async def test_it_goes_on_by_itself(browser: Browser) -> None:
    async with served(FakeAgent()) as url:
        await browser.look(*SCREENS["desktop"])
        await browser.open(url)
        await browser.value("document.querySelector('details').open = false")
        await browser.value("before = document.querySelector('.tiles').textContent")
        await browser.until("document.querySelector('.tiles').textContent != before")
        assert await browser.value("document.querySelector('details').open") is False
        assert await browser.value("document.querySelectorAll('details')[2].open") is True
        assert (
            await browser.value("getComputedStyle(document.getElementById('lost')).display")
            == "none"
        )
    assert browser.complaints == []


async def test_it_says_when_the_agent_has_gone_and_when_it_is_back(browser: Browser) -> None:
    shown = "getComputedStyle(document.getElementById('lost')).display == 'block'"
    async with served(FakeAgent()) as url:
        await browser.look(*SCREENS["phone"])
        await browser.open(url)
    await browser.until(shown)
    assert "node1" in await browser.value("document.body.innerText")
    agent = FakeAgent()
    agent.problems = ("no hub for 9 s",)
    async with served(agent, int(url.rstrip("/").rsplit(":", 1)[1])):
        await browser.until(f"!({shown})")
        await browser.until("document.body.innerText.includes('no hub for 9 s')")


async def test_names_run_nothing_load_nothing_and_fit(browser: Browser) -> None:
    async with served(FakeAgent(EVIL)) as url:
        for screen in SCREENS.values():
            await browser.look(*screen)
            await browser.open(url)
            await browser.value("before = document.querySelector('.tiles').textContent")
            await browser.until("document.querySelector('.tiles').textContent != before")
            assert "<script>alerted" in await browser.value("document.body.innerText")
            assert await browser.value("typeof alerted") == "undefined"
            assert await browser.value(OVERFLOW) == 0
        assert {
            asked.rsplit("/", 1)[0] + "/" for asked in browser.asked if "data:" not in asked
        } == {url}
    assert browser.complaints == []


async def test_it_needs_no_script(browser: Browser) -> None:
    async with served(FakeAgent()) as url:
        await browser.tell("Emulation.setScriptExecutionDisabled", value=True)
        await browser.look(*SCREENS["phone"])
        await browser.open(url)
        document = await browser.tell("DOM.getDocument", depth=-1)
        assert "shop_web" in str(document)
