# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium, spoken to by its own protocol (Chrome DevTools Protocol)."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PATIENCE_S = 60.0
NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
)


class Browser:
    """One tab. What the page logs, and what it asks for, is kept."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []
        self.asked: list[str] = []

    async def listen(self) -> None:
        """Take answers and events until the socket is closed."""
        async for message in self._socket:
            heard = message.json()
            if "id" in heard:
                self._waiting.pop(heard["id"]).set_result(heard)
            else:
                self._notice(heard["method"], heard["params"])

    def _notice(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Log.entryAdded":
                self.complaints.append(params["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"]))
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])

    async def tell(self, method: str, **params: Any) -> dict[str, Any]:
        """One command; returns its result."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE_S):
            heard = await answer
        assert "error" not in heard, heard
        result: dict[str, Any] = heard["result"]
        return result

    async def open(self, url: str) -> None:
        """Go there, and wait until it is loaded."""
        self._loaded.clear()
        await self.tell("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE_S):
            await self._loaded.wait()

    async def look(self, width: int, height: int, scheme: str = "light") -> None:
        """A screen of that many pixels; `scheme`: light or dark."""
        mobile = width < height
        await self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self.tell("Emulation.setEmulatedMedia", features=[feature])

    async def value(self, expression: str) -> Any:
        """What a piece of script gives."""
        answer = await self.tell(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until a piece of script gives something true."""
        async with asyncio.timeout(PATIENCE_S):
            while not await self.value(expression):
                await asyncio.sleep(0.05)

    async def picture(self, file: Path) -> None:
        """All of the page, as a PNG."""
        size = (await self.tell("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = await self.tell("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        await asyncio.to_thread(file.write_bytes, base64.b64decode(answer["data"]))


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    """Run one with a profile of its own; nothing of it stays."""
    home = Path(tempfile.mkdtemp(prefix="ebpfmesh-chromium-"))
    process = await _start(home)
    try:
        port = await _port(process, home / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.put(f"http://127.0.0.1:{port}/json/new") as answer:
                target = (await answer.json(content_type=None))["webSocketDebuggerUrl"]
            async with session.ws_connect(target, max_msg_size=0) as socket:
                browser = Browser(socket)
                listening = asyncio.create_task(browser.listen())
                for domain in ("Page", "Log", "Runtime", "Network"):
                    await browser.tell(f"{domain}.enable")
                yield browser
                listening.cancel()
    finally:
        process.terminate()
        await process.wait()
        shutil.rmtree(home, ignore_errors=True)


async def _start(home: Path) -> asyncio.subprocess.Process:
    program = next(found for name in NAMES if (found := shutil.which(name)))
    # Chromium's own sandbox refuses to be root's.
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    return await asyncio.create_subprocess_exec(
        program,
        *OPTIONS,
        *root,
        f"--user-data-dir={home}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def _port(process: asyncio.subprocess.Process, file: Path) -> int:
    """Chromium writes it down once it listens."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            assert process.returncode is None, "chromium has ended"
            if port := await asyncio.to_thread(_written, file):
                return port
            await asyncio.sleep(0.05)


def _written(file: Path) -> int:
    text = file.read_text() if file.exists() else ""
    return int(text.split()[0]) if "\n" in text else 0
