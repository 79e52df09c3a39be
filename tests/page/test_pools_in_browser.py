"""The list of pools and the pages below their names, in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from grpc import aio

from epp.demo.picker import PickerProcess
from tests.conformance.test_many_pools import CHAT_POOL, CODE_POOL, FLAGS, OWN_POOL, Folder
from tests.conformance.wire import Stream, request_body, request_headers, respond, response_body, response_headers, std_body
from tests.page.browser import Browser
from tests.page.test_browser import CONTRAST, ROWS, TEXT, UNNAMED

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with Browser(chromium) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Of a picker of three pools, one of which is not loaded; ``chat`` has had a request."""
    folder = Folder(tmp_path_factory.mktemp("pools"))
    folder.write("code.yaml", "kind: [")
    folder.pools(CHAT_POOL, CODE_POOL, OWN_POOL)
    async with PickerProcess([f"--pools-file={folder.pools_file}", *FLAGS, "--explain-share=1"]) as picker:
        async with aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
            stream = Stream(channel)
            await stream.send(request_headers({":authority": "chat.example.com"}), request_body(std_body("m", "p")))
            await stream.routed()
            await respond(stream, response_headers(), response_body(b"{}"))
            await stream.closes()
        yield f"http://127.0.0.1:{picker.metrics_port}"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_the_list_fits_and_can_be_read(browser: Browser, url: str, width: int, dark: bool, tmp_path: Path) -> None:
    page = await browser.page()
    await page.open(f"{url}/", width=width, dark=dark)
    assert await page.evaluate("document.querySelectorAll('tbody tr').length") == 3
    assert "CFG005" in await page.evaluate("document.body.innerText")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is wider than the screen"
    assert await page.evaluate(CONTRAST) == []
    assert await page.evaluate(UNNAMED) == []
    await page.picture(tmp_path / "pools.png")
    assert page.problems == []
    await page.close()


async def test_a_link_leads_to_the_page_of_a_pool_which_follows_that_pool(browser: Browser, url: str) -> None:
    page = await browser.page()
    await page.open(f"{url}/", width=1280)
    await page.evaluate("document.querySelector('tbody a').click()")
    await page.until(f"location.href === '{url}/pools/chat/' && document.querySelector('#ready')?.textContent === 'ready'")
    await page.until(f"{TEXT.format('#pool')} === 'default/chat' && {TEXT.format('#effective')} !== ''")
    await page.until(f"{ROWS.format('decisions')} === 1")
    await page.evaluate("document.querySelector('#decisions-table tbody button').click()")
    await page.until("!document.querySelector('#decision').hidden")
    assert "127.0.0.1:7" in await page.evaluate(TEXT.format("#decision"))
    links = await page.evaluate("[...document.querySelectorAll('footer a')].map((link) => link.href)")
    assert all(link.startswith(f"{url}/pools/chat/") for link in links)
    assert page.problems == []
    await page.close()


async def test_a_pool_that_is_not_loaded_says_why(browser: Browser, url: str) -> None:
    page = await browser.page()
    await page.open(f"{url}/pools/code/", width=390)
    assert "CFG005" in await page.evaluate("document.body.innerText")
    assert await page.evaluate("document.querySelector('tbody a').href") == f"{url}/pools/code/"
    assert page.problems == []
    await page.close()
