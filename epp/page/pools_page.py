"""The list of all pools as a page of its own: plain HTML, which needs no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

AGAIN_S = 5
"""Seconds until a browser asks again."""
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="{again}">
<title>{title}</title>
<link rel="icon" href="page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="page/page.css">
</head>
<body>
<header>
  <h1>Endpoint picker</h1>
  <p class="state {mood}">{ready}</p>
  <p class="quiet">{about}</p>
</header>
<main id="main">
"""
_FOOT = """</main>
<footer>
  <a href="metrics">metrics</a> <a href="debug/pools">pools as JSON</a> <a href="readyz">readiness</a>
</footer>
</body>
</html>
"""


class ShownPool(NamedTuple):
    """One row."""

    name: str
    path: str
    """Of its page, relative; "" = it has none."""
    state: str
    is_good: bool
    requests: str
    """Which ones are for it."""
    endpoints: str
    in_flight: str
    reload: str
    """What became of its configuration, and when."""
    problems: Sequence[str] = ()


def pools_page(pools: Sequence[ShownPool], not_ready: Sequence[str], about: str, problems: Sequence[str] = ()) -> bytes:
    """The page.

    Args:
        not_ready: reasons of the process; empty = it is ready.
        about: a line about the process.
        problems: of the pools file.
    """
    title = "Endpoint picker" if not not_ready else "not ready: Endpoint picker"
    ready, mood = ("ready", "good") if not not_ready else ("not ready", "bad")
    parts = [_HEAD.format(again=AGAIN_S, title=title, ready=ready, mood=mood, about=escape(about))]
    parts.append(_notice([*not_ready, *problems]))
    columns = ("Pool", "State", "Requests", "Endpoints", "In flight", "Configuration")
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    rows = "".join(_row(pool) for pool in pools)
    parts.append(
        '<section aria-labelledby="pools-title"><h2 id="pools-title">Pools</h2>\n'
        '<div class="scroll" role="region" aria-labelledby="pools-title" tabindex="0">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div></section>\n"
    )
    parts += [f"<section><h2>{escape(pool.name)}</h2>\n{_notice(pool.problems)}</section>\n" for pool in pools if pool.problems]
    return "".join([*parts, _FOOT]).encode("utf-8", "replace")


def _row(pool: ShownPool) -> str:
    name = escape(pool.name)
    link = f'<a href="{escape(pool.path, quote=True)}">{name}</a>' if pool.path else name
    state = f'<span class="state {"good" if pool.is_good else "bad"}">{escape(pool.state)}</span>'
    cells = "".join(f"<td>{escape(text)}</td>" for text in (pool.requests, pool.endpoints, pool.in_flight, pool.reload))
    return f'<tr><th scope="row">{link}</th><td>{state}</td>{cells}</tr>\n'


def _notice(problems: Sequence[str]) -> str:
    if not problems:
        return ""
    return f'<ul class="notice bad">{"".join(f"<li>{escape(problem)}</li>" for problem in problems)}</ul>\n'
