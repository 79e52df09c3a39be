"""A headless Chromium that is told what to do over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp

START_S = 60.0
PATIENCE_S = 30.0
"""For what a page is waited for; machines that run tests are slow."""
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers; only our own pages are loaded
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)


class Browser:
    """The process, as an async context manager.

    Args:
        program: path of Chromium.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._profile = tempfile.TemporaryDirectory(prefix="page-browser-", ignore_cleanup_errors=True)
        self._process: asyncio.subprocess.Process
        self._session: aiohttp.ClientSession
        self._socket: aiohttp.ClientWebSocketResponse
        self._reader: asyncio.Task[None]
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._count = 0

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            self._program,
            *_FLAGS,
            f"--user-data-dir={self._profile.name}",
            "about:blank",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._session = aiohttp.ClientSession()
        try:
            async with asyncio.timeout(START_S):
                address = await self._address()
                self._socket = await self._session.ws_connect(address, max_msg_size=0)
        except BaseException:
            await self._end()
            raise
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._reader.cancel()
        await self._socket.close()
        await self._end()

    async def page(self) -> Page:
        """A new, empty tab."""
        target = await self.call("Target.createTarget", {"url": "about:blank"})
        attached = await self.call("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"], target["targetId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.call(f"{domain}.enable")
        return page

    async def call(self, method: str, parameters: Mapping[str, Any] | None = None, session: str = "") -> dict[str, Any]:
        """One command.

        Raises:
            RuntimeError: the browser refuses it.
        """
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters or {}} | (
            {"sessionId": session} if session else {}
        )
        answer = self._answers[self._count] = asyncio.get_running_loop().create_future()
        await self._socket.send_str(json.dumps(message))
        async with asyncio.timeout(PATIENCE_S):
            found = await answer
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']}")
        result: dict[str, Any] = found["result"]
        return result

    async def _address(self) -> str:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            if found := re.search(rb"DevTools listening on (ws://\S+)", line):
                return found[1].decode()
        raise RuntimeError(f"{self._program} ended with status {await self._process.wait()} before it listened")

    async def _read(self) -> None:
        async for message in self._socket:
            event = json.loads(message.data)
            if "id" in event:
                self._answers.pop(event["id"]).set_result(event)
            elif page := self._pages.get(event.get("sessionId", "")):
                page.heard(event["method"], event["params"])

    async def _end(self) -> None:
        await self._session.close()
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.communicate()
        self._profile.cleanup()


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser = browser
        self._session = session
        self._target = target
        self.problems: list[str] = []
        """Errors and warnings of the console, exceptions, refused and failed requests."""

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command to the tab."""
        return await self._browser.call(method, parameters, self._session)

    async def open(self, url: str, *, width: int, dark: bool = False, height: int = 900) -> None:
        """Load a page."""
        await self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call("Page.navigate", url=url)
        await self.until(f"location.href === {url!r} && document.readyState === 'complete'")

    async def resize(self, width: int, height: int) -> None:
        """To so many CSS pixels; up to 600 it is a phone."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width <= 600
        )

    async def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression, awaited.

        Raises:
            RuntimeError: it throws.
        """
        found = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true.

        Raises:
            TimeoutError: it stays false; tells what the page shows.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await self.evaluate(f"Boolean({condition})"):  # noqa: ASYNC110 — the browser has no event for it
                    await asyncio.sleep(0.1)
        except TimeoutError:
            text = await self.evaluate("document.body.innerText.slice(0, 2000)")
            raise TimeoutError(f"{condition} stays false; problems: {self.problems}; the page shows:\n{text}") from None

    async def picture(self, path: Path, *, height: int = 0) -> None:
        """Write a PNG of the whole page, or of its first ``height`` pixels."""
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))

    async def close(self) -> None:
        """Close the tab."""
        await self._browser.call("Target.closeTarget", {"targetId": self._target})

    def heard(self, event: str, what: dict[str, Any]) -> None:
        """The tab tells something."""
        if event == "Runtime.exceptionThrown":
            self.problems.append(str(what["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.problems.append(str(what["args"]))
        elif event == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.problems.append(str(what["entry"]))
        elif event == "Network.loadingFailed" and not what.get("canceled"):
            self.problems.append(str(what))
