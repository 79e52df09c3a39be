"""The page in a real browser, from a real picker: it shows everything, complains of nothing, and fits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from epp.page.feed import Event, Feed
from epp.page.static_files import static_pages
from epp.telemetry.decision_record import AdmissionRecord, DecisionRecord, OutcomeRecord, PrefixRecord
from epp.transport.http_server import HttpServer, HttpSources, PageRequest
from tests.page.browser import Browser, Page
from tests.page.setting import ENDPOINTS, HOSTILE, Setting, setting, shadow_text
from tests.transport.http_client import LOCAL, sources

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

ROWS = "document.querySelectorAll('#{}-table tbody tr').length"
TEXT = "document.querySelector({!r}).textContent"
CONTRAST = """(() => {
  const luminance = (rgb) => rgb.map((part) => part / 255)
    .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const backOf = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const back = parse(getComputedStyle(at).backgroundColor);
      if (back.length === 3 || back[3] === 1) return back.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const poor = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.offsetParent || element.className === "skip") continue;
    const [front, back] = [parse(getComputedStyle(element).color).slice(0, 3), backOf(element)].map(luminance);
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < 4.5) poor.add(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
  }
  return [...poor];
})()"""
"""Texts with less contrast than WCAG 2.2 AA wants (1.4.3)."""
UNNAMED = """[...document.querySelectorAll("button, input, select, a, [role=region], [role=img], th[scope=col]")]
  .filter((element) => element.checkVisibility())
  .filter((element) => !(element.textContent.trim() || element.getAttribute("aria-label")
    || element.getAttribute("aria-labelledby") || element.labels?.length))
  .map((element) => element.outerHTML.slice(0, 200))"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with Browser(chromium) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[4, 100], ids="{}-endpoints".format)
async def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    """With some traffic behind it, a reload, refusals, a failure; keeps every decision."""
    async with setting(request.param, tmp_path_factory.mktemp("browser"), "--explain-share=1") as found:
        for _ in range(20):
            await found.exchange()
        await found.refused(HOSTILE.encode().decode("ascii", "ignore"), HOSTILE)
        await found.failed()
        found.reload(queue_weight=3)
        yield found


async def loaded(browser: Browser, url: str, *, width: int, dark: bool = False) -> Page:
    """A tab with all parts filled."""
    page = await browser.page()
    await page.open(f"{url}/", width=width, dark=dark)
    await page.until(f"{TEXT.format('#ready')} === 'ready' && {TEXT.format('#effective')} !== ''")
    await page.until("document.querySelector('svg .first')?.getAttribute('d')")
    return page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_it_shows_everything_without_a_complaint(
    browser: Browser, running: Setting, width: int, dark: bool, tmp_path: Path
) -> None:
    page = await loaded(browser, running.url, width=width, dark=dark)
    servers = len(running.pool.addresses)
    await page.until(f"{ROWS.format('endpoints')} === {servers} && {ROWS.format('decisions')} > 20")
    await page.until(f"{TEXT.format('#endpoints-count')} === '{servers} of {servers} ready'")
    await page.until(f"{TEXT.format('#config-about')}.includes('in use')")
    await page.until(f"{TEXT.format('#diff')}.includes('weight: 3.0')")
    assert await page.evaluate("document.querySelectorAll('#charts figure').length") == 8
    assert await page.evaluate("document.querySelector('#queues').hidden && document.querySelector('#shadow').hidden")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is wider than the screen"
    heights = "[...document.querySelectorAll('#endpoints-table tr, #decisions-table tr')].map(row => row.offsetHeight)"
    assert max(await page.evaluate(heights)) < 60, "a column is too narrow for its words"
    await page.evaluate("document.querySelector('#endpoints-table tbody button').click()")
    await page.evaluate("document.querySelector('#decisions-table tbody tr:last-child button').click()")
    await page.until("!document.querySelector('#decision').hidden")
    await page.evaluate("document.querySelector('details').open = true")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "details are wider than the screen"
    back = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, back[4:-1].split(", "))) < 150) is dark
    assert await page.evaluate(CONTRAST) == []
    assert await page.evaluate(UNNAMED) == []
    await page.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    assert page.problems == []
    await page.close()


async def test_an_endpoint_can_be_looked_for_sorted_and_opened(browser: Browser, running: Setting) -> None:
    page = await loaded(browser, running.url, width=1280)
    servers = len(running.pool.addresses)
    await page.until(f"{ROWS.format('endpoints')} === {servers}")
    wanted = running.pool.addresses[-1]
    filled = "(input => {{ input.value = {!r}; input.dispatchEvent(new Event('input')) }})(document.querySelector({!r}))"
    await page.evaluate(filled.format(wanted, "#endpoints-filter"))
    assert await page.evaluate(ROWS.format("endpoints")) == 1
    await page.evaluate("document.querySelector('#endpoints-table tbody button').click()")
    assert wanted in await page.evaluate("document.querySelector('#endpoints-table .detail').textContent")
    await page.evaluate(filled.format("", "#endpoints-filter"))
    sort = "[...document.querySelectorAll('#endpoints-table thead button')].find(b => b.textContent === 'Endpoint').click()"
    names = "[...document.querySelectorAll('#endpoints-table tbody th')].map(cell => cell.textContent)"
    await page.evaluate(sort)
    up = await page.evaluate(names)
    await page.evaluate(sort)
    assert await page.evaluate(names) == up[::-1]
    assert (
        await page.evaluate("document.querySelector('#endpoints-table [aria-sort]').getAttribute('aria-sort')") == "descending"
    )
    assert page.problems == []
    await page.close()


async def test_a_decision_is_explained(browser: Browser, running: Setting) -> None:
    page = await loaded(browser, running.url, width=1280)
    row = "[...document.querySelectorAll('#decisions-table tr')].find(row => row.innerText.includes('req-'))"
    await page.until(f"{ROWS.format('decisions')} > 20")
    await page.evaluate(f"{row}.querySelector('button').click()")
    await page.until("document.querySelector('#decision table')")
    shown = await page.evaluate("document.querySelector('#decision').innerText")
    for part in ("went to", "decided in", "queue-scorer ×", "Total", "picked", "tokens"):
        assert part in shown
    rows = await page.evaluate("document.querySelectorAll('#decision tbody tr').length")
    assert rows == len(running.pool.addresses)
    await page.evaluate("document.querySelector('#decision button').click()")
    assert await page.evaluate("document.querySelector('#decision').hidden")
    select = (
        "(list => { list.value = 'bad'; list.dispatchEvent(new Event('change')) })(document.querySelector('#decisions-filter'))"
    )
    await page.evaluate(select)
    assert await page.evaluate(ROWS.format("decisions")) == 2
    assert page.problems == []
    await page.close()


async def test_names_of_clients_stay_text(browser: Browser, running: Setting) -> None:
    page = await loaded(browser, running.url, width=1280)
    await page.until(f"{TEXT.format('#decisions-table')}.includes('<img src=x')")
    assert await page.evaluate("document.querySelectorAll('main img, main script').length") == 0
    assert page.problems == []
    await page.close()


# ── a second configuration ──


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shadowed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    """With a shadow that would send every request to the same server."""
    folder = tmp_path_factory.mktemp("shadow")
    (folder / "shadow.yaml").write_text(shadow_text(folder / ENDPOINTS))
    async with setting(2, folder, f"--shadow-config-file={folder / 'shadow.yaml'}", "--explain-share=1") as found:
        count = elsewhere = 0
        while elsewhere < 3:  # where equal servers are drawn from, a request may well go where the shadow wants it
            await found.exchange()
            count += 1
            elsewhere = (await found.compared(count))["verdicts"]["disagree"]
        yield found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_a_shadow_is_shown(browser: Browser, shadowed: Setting, width: int, dark: bool, tmp_path: Path) -> None:
    told = await shadowed.compared(3)
    page = await loaded(browser, shadowed.url, width=width, dark=dark)
    await page.until("!document.querySelector('#shadow').hidden")
    assert await page.evaluate("document.querySelectorAll('nav [data-for=shadow]:not([hidden])').length") == 1
    assert await page.evaluate("document.querySelector('#shadow-ended').hidden")
    facts = await page.evaluate(TEXT.format("#shadow-facts"))
    count, agree, elsewhere = told["compared"], told["verdicts"]["agree"], told["verdicts"]["disagree"]
    compared = f"{count}: {agree} agree, {elsewhere} elsewhere, 0 refused, 0 failed"
    for part in ("shadow.yaml", told["sha256"][:16], "100 % of the requests", compared):
        assert part in facts
    assert " % of the requests to the same endpoint" in await page.evaluate(TEXT.format("#shadow-about"))
    assert await page.evaluate(ROWS.format("shadow-recent")) == elsewhere
    assert "by-label" in await page.evaluate(TEXT.format("#shadow-reasons-table"))
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is wider than the screen"
    assert await page.evaluate(CONTRAST) == []
    assert await page.evaluate(UNNAMED) == []
    await page.picture(tmp_path / "page.png")
    assert page.problems == []
    await page.close()


async def test_a_page_says_why_there_is_no_shadow_any_more(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "shadow.yaml").write_text(shadow_text(tmp_path / ENDPOINTS))
    async with setting(2, tmp_path, f"--shadow-config-file={tmp_path / 'shadow.yaml'}") as served:
        await served.exchange()
        await served.compared(1)
        page = await loaded(browser, served.url, width=1280)
        await page.until("!document.querySelector('#shadow').hidden")
        served.reload_text(shadow_text(tmp_path / ENDPOINTS))
        await page.until("!document.querySelector('#shadow-ended').hidden")
        ended = await page.evaluate(TEXT.format("#shadow-ended"))
        assert ended.startswith("There is no shadow any more: taken over: it is the configuration in use, 20")
        facts = await page.evaluate(TEXT.format("#shadow-facts"))
        assert "until" in facts
        assert "1: " in facts, "what it was compared with stays"
        assert page.problems == []
        await page.close()


# ── what a real picker seldom shows ──

STATE: dict[str, Any] = {
    "at": 1_000_060.0,
    "startedAt": 1_000_000.0,
    "version": "9.9",
    "commit": "",
    "pod": HOSTILE,
    "pool": {"name": HOSTILE, "namespace": "ns"},
    "notReady": [f"plugins: {HOSTILE} not ready"],
    "staleAfterSeconds": 2.0,
    "inFlight": 0,
    "openStreams": 0,
    "bufferedBytes": 0,
    "explainShare": 0.01,
    "endpoints": {
        "endpoints": [
            {
                "id": f"ns/{name}",
                "name": name,
                "address": "10.0.0.1:8000",
                "labels": {HOSTILE: HOSTILE},
                "waitingQueue": None if age is None else 3,
                "runningRequests": None,
                "kvCacheUsage": None if age is None else 0.99,
                "activeModels": [HOSTILE],
                "waitingModels": [HOSTILE],
                "maxActiveModels": 1,
                "cacheBlockSize": None,
                "cacheNumBlocks": None,
                "ageSeconds": age,
                "attributes": {HOSTILE: {HOSTILE: [HOSTILE]}},
                "scraping": scraping,
            }
            for name, age, scraping in (
                (HOSTILE, 0.1, None),
                ("fresh", 0.1, {"source": "s", "failing": False, "failures": 0, "lastError": "", "missingValues": []}),
                ("stale", 60.0, {"source": "s", "failing": True, "failures": 9, "lastError": HOSTILE, "missingValues": []}),
                ("new", None, None),
                ("part", 0.1, {"source": "s", "failing": False, "failures": 0, "lastError": "", "missingValues": [HOSTILE]}),
            )
        ]
    },
    "queues": {
        "enabled": True,
        "saturation": {"effective": 0.87},
        "requests": 12,
        "bytes": 4096,
        "maxRequests": 100,
        "bands": [
            {
                "priority": priority,
                "requests": 6,
                "bytes": 2048,
                "maxRequests": 50,
                "oldestSeconds": 0.5,
                "servedPerSecond": 3.5,
                "retryAfterSeconds": 2,
                "flows": [{"id": HOSTILE, "requests": 6, "bytes": 2048}],
                "moreFlows": 4,
            }
            for priority in (-1, 10)
        ],
    },
    "decisions": {
        "kept": 1,
        "newest": [
            {
                "number": 1,
                "at_s": 1_000_050.0,
                "request_id": HOSTILE,
                "why": "refused",
                "model": HOSTILE * 50,
                "picked": [],
                "status": 503,
                "error": HOSTILE,
                "cause": "",
            }
        ],
        "bad": [
            {
                "number": 2,
                "at_s": 1_000_040.0,
                "request_id": HOSTILE,
                "why": "failed",
                "model": "m",
                "picked": ["10.0.0.1:8000"],
                "status": 500,
                "error": "",
                "cause": "natural",
            }
        ],
    },
}
HELD = DecisionRecord(
    request_id=HOSTILE,
    admission=AdmissionRecord("admitted", 1.5, ahead=3),
    candidates=["10.0.0.1:8000"],
    prefixes=[PrefixRecord("index", "10.0.0.1:8000", 4, 10, 16, matched={"10.0.0.1:8000": 4})],
    picked=["10.0.0.1:8000"],
    outcome=OutcomeRecord("natural", 500, "10.0.0.1:8000", 0.1, 0.5, 900, False, 160, 20, 48),
)
CONFIG: dict[str, Any] = {
    "loadedAt": "2026-01-02T03:04:05+00:00",
    "source": HOSTILE,
    "sha256": "ab" * 32,
    "effective": f"plugins: [{HOSTILE}]\n",
    "findings": [{"code": "WRN001", "severity": "warning", "path": HOSTILE, "message": HOSTILE, "fix": HOSTILE}],
    "isFile": True,
    "isWatched": True,
    "former": {"sha256": "cd" * 32, "loadedAt": 1.0, "diff": ["@@ -1 +1 @@", f"-{HOSTILE}", f"+{HOSTILE}", " "]},
    "reload": {"result": "restart_required", "at": "2026-01-02T03:04:05+00:00", "problems": [HOSTILE], "findings": []},
}
EFFECT = {"rated": 3, "mean_margin": -0.5, "max_margin": 2.0, "prefix_tokens_won": 4418560, "prefix_tokens_lost": 12}
DIFFERENCE = {"request_id": HOSTILE, "at_s": 1.0, "model": HOSTILE, "live": "10.0.0.1:8000", "verdict": "disagree"}
SHADOW: dict[str, Any] = {
    "enabled": True,
    "live": {"sha256": "ab" * 32},
    "source": HOSTILE,
    "sha256": "ef" * 32,
    "share": 0.1,
    "restart": [HOSTILE],
    "waiting": 3,
    "plugin_errors": {HOSTILE: 7},
    "since_s": 1_000_000.0,
    "compared": 9,
    "verdicts": {"agree": 3, "disagree": 4, "refused": 1, "failed": 1},
    "skipped": {"time": 12, "queue": 1},
    "disagreement": 4 / 7,
    "effect": EFFECT,
    "reasons": [{"reason": HOSTILE, "requests": 4, "examples": [], **EFFECT}],
    "recent": [
        DIFFERENCE | {"shadow": HOSTILE, "reason": HOSTILE, "margin": 0.5, "prefix_tokens": -12, "error": ""},
        DIFFERENCE | {"shadow": "", "reason": "", "margin": None, "prefix_tokens": None, "verdict": "failed", "error": HOSTILE},
    ],
}
HISTORY: dict[str, Any] = {"everySeconds": 5.0, "kept": 180, "columns": {"at_s": [1.0, 6.0, 11.0], "kv_mean": [0.1, None, 0.3]}}


@pytest_asyncio.fixture(loop_scope="module")
async def scripted() -> AsyncIterator[str]:
    """A server that sends these events; its address."""

    async def offload(function: Any) -> bytes:
        data: bytes = function()
        return data

    events = (("config", CONFIG), ("shadow", SHADOW), ("history", HISTORY), ("state", STATE))
    feed = Feed([Event(name, lambda data=data: data) for name, data in events], offload, every_s=0.2)  # type: ignore[misc]
    own = sources()

    async def decision(asked: PageRequest) -> object | None:
        return HELD.as_json() if asked.rest == "2" else None

    pages = {"/page/decisions/": decision}
    server = HttpServer(
        HttpSources(own.metrics, own.not_ready, pages, answers={**static_pages(), "/page/events": feed.page}), LOCAL
    )
    yield f"http://127.0.0.1:{await server.start()}"
    feed.close()
    await server.stop()


@pytest.mark.parametrize("width", [390, 1280])
async def test_what_is_wrong_is_said_and_hostile_names_stay_text(browser: Browser, scripted: str, width: int) -> None:
    page = await browser.page()
    await page.open(f"{scripted}/", width=width)
    await page.until(f"{TEXT.format('#ready')} === 'not ready'")
    await page.until(f"!document.querySelector('#queues').hidden && {ROWS.format('queues')} === 2")
    assert "saturation 87 %" in await page.evaluate(TEXT.format("#queues-about"))
    assert await page.evaluate("document.querySelector('#queues-table tbody th').textContent") == "10"
    states = "[...document.querySelectorAll('#endpoints-table tbody tr td:nth-child(2)')].map(cell => cell.textContent)"
    assert await page.evaluate(states) == ["stale", "not read yet", "incomplete", "ready", "ready"]
    assert "it takes a restart" in await page.evaluate(TEXT.format("#config-about"))
    facts = await page.evaluate(TEXT.format("#shadow-facts"))
    for part in (
        "10 % of the requests",
        "-0.500 above",
        "4.4 M prompt tokens more, 12 fewer",
        "12 for want of time",
        " 7 times",
    ):
        assert part in facts
    assert "failed" in await page.evaluate(TEXT.format("#shadow-recent-table"))
    for place in (
        "#shadow-facts",
        "#shadow-reasons-table",
        "#shadow-recent-table",
        "#reasons",
        "#config-problems",
        "#findings-table",
        "#diff",
        "#effective",
        "#pool",
        "#decisions-table",
    ):
        assert "<img src=x" in await page.evaluate(TEXT.format(place)), place
    await page.evaluate("document.querySelectorAll('#endpoints-table tbody button').forEach(button => button.click())")
    await page.until("document.querySelectorAll('#endpoints-table .detail').length === 5")
    assert await page.evaluate("document.querySelectorAll('main img, main script').length") == 0
    text = await page.evaluate("document.title + document.body.textContent")
    assert "\u202e" not in text, "a name turns the words behind it around"
    assert "\\u202e</script>" in text
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is wider than the screen"
    assert await page.evaluate(CONTRAST) == []
    assert page.problems == []
    await page.close()


async def test_a_decision_that_is_gone_is_said_to_be(browser: Browser, scripted: str) -> None:
    page = await browser.page()
    await page.open(f"{scripted}/", width=1280)
    await page.until(f"{ROWS.format('decisions')} === 1")
    await page.evaluate("document.querySelector('#decisions-table tbody button').click()")
    await page.until(f"{TEXT.format('#decision')}.includes('no longer kept')")
    await page.close()


async def test_a_decision_tells_of_its_wait_and_of_the_cache(browser: Browser, scripted: str) -> None:
    page = await browser.page()
    await page.open(f"{scripted}/", width=1280)
    await page.until(f"{ROWS.format('decisions')} === 1")
    select = (
        "(list => { list.value = 'bad'; list.dispatchEvent(new Event('change')) })(document.querySelector('#decisions-filter'))"
    )
    await page.evaluate(select)
    await page.evaluate("document.querySelector('#decisions-table tbody button').click()")
    await page.until("!document.querySelector('#decision').hidden")
    shown = await page.evaluate("document.querySelector('#decision').innerText")
    assert "admitted, held for 1.5 s behind 3 others" in shown
    assert "64 expected, 48 reported" in shown
    assert page.problems == []
    await page.close()


async def test_a_page_says_when_nothing_comes_any_more(browser: Browser, tmp_path: Path) -> None:
    async with setting(1, tmp_path) as alone:
        page = await loaded(browser, alone.url, width=1280)
        await alone.picker.stop()
        await page.until(f"{TEXT.format('#link')}.startsWith('no news for')")
        await page.close()
