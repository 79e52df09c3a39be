"""The list of pools: markup of ours alone, whatever names and problems say."""

from __future__ import annotations

from html.parser import HTMLParser

from epp.page.pools_page import ShownPool, pools_page
from tests.page.setting import HOSTILE


class Seen(HTMLParser):
    """Tags, links and text of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(name: str, *problems: str, is_good: bool = True) -> ShownPool:
    return ShownPool(name, f"pools/{name}/", "ready", is_good, "a.example", "3", "0", "success at 12:00:00 UTC", problems)


def test_each_pool_has_a_row_that_leads_to_its_page() -> None:
    seen = Seen(pools_page([shown("chat"), shown("code", "CFG031: unknown field", is_good=False)], [], "version 1"))
    assert {"pools/chat/", "pools/code/", "debug/pools", "page/page.css"} <= set(seen.links)
    assert not any(link.startswith("/") for link in seen.links), "also below another path"
    for text in ("chat", "code", "ready", "a.example", "CFG031: unknown field", "version 1"):
        assert text in seen.text
    assert seen.tags.count("tr") == 3


def test_it_needs_no_script_and_what_is_hostile_is_text() -> None:
    page = pools_page([shown(HOSTILE, HOSTILE)._replace(requests=HOSTILE, reload=HOSTILE)], [HOSTILE], HOSTILE, [HOSTILE])
    seen = Seen(page)
    assert "img" not in seen.tags
    assert "script" not in seen.tags
    assert seen.text.count(HOSTILE) == 8
    assert "not ready" in seen.text
