# SPDX-License-Identifier: Apache-2.0
"""What a browser shows of an agent's page: ``python -m tests.page.look URL PICTURES``.

A process of its own, as the browser has to be where the page can be reached: in the lab that is
the client's network. Prints a `Sight`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from .browser import Browser, a_browser

SCREENS = {
    "desktop": (1280, 900, "light"),
    "night": (1280, 900, "dark"),
    "phone": (390, 844, "light"),
}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
TILES = "document.querySelector('.tiles').textContent"


class Sight(msgspec.Struct, frozen=True):
    """`overflow`: pixels, by screen. `asked`: every URL that was loaded."""

    title: str
    text: str
    overflow: dict[str, int]
    asked: tuple[str, ...]
    complaints: tuple[str, ...]


async def look(browser: Browser, url: str, pictures: Path) -> Sight:
    """Wait until the page shows flows, and has gone on by itself."""
    overflow = {}
    await browser.look(*SCREENS["desktop"])
    await browser.open(url)
    await browser.until("document.querySelector('.tile b').textContent != '0'")
    await browser.value(f"before = {TILES}")
    await browser.until(f"{TILES} != before")
    for name, screen in SCREENS.items():
        await browser.look(*screen)
        overflow[name] = await browser.value(OVERFLOW)
        await browser.picture(pictures / f"lab-{name}.png")
    return Sight(
        title=await browser.value("document.title"),
        text=await browser.value("document.body.innerText"),
        overflow=overflow,
        asked=tuple(browser.asked),
        complaints=tuple(browser.complaints),
    )


async def _main(url: str, pictures: Path) -> None:
    async with a_browser() as browser:
        sys.stdout.buffer.write(msgspec.json.encode(await look(browser, url, pictures)))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2])))
