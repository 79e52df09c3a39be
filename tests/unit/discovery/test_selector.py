"""Label selectors in the syntax of Kubernetes."""

from __future__ import annotations

import pytest

from epp.discovery.selector import check_selector


@pytest.mark.parametrize(
    "text",
    [
        "app",
        "!app",
        "app=x",
        "app==x",
        "app!=x",
        "app=",
        " app = x , tier != y ",
        "app in (x)",
        "app in (x, y),tier notin (a,b)",
        "app in(x)",
        "app in (x,)",
        "example.com/app=x",
        "mif.moreh.io/role in (decode,prefill),!canary",
        "gpus>2",
        "gpus < 8",
        "a-b_c.d=1.2-3_4",
    ],
)
def test_selectors(text: str) -> None:
    assert check_selector(text) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("app in (x", ["'app in (x'"]),
        ("app in x", ["'app in x'"]),
        ("app=x,", ["''"]),
        (",", ["''", "''"]),
        ("=x", ["'=x'"]),
        ("app=x y", ["'app=x y'"]),
        ("app=-x", ["'app=-x'"]),
        ("app=x;tier=y", ["'app=x;tier=y'"]),
        ("-app", ["'-app'"]),
        ("Example.com/app", ["'Example.com/app'"]),
        ("app>x", ["'app>x'"]),
        (f"app={'x' * 64}", [f"'app={'x' * 64}'"]),
        ("app=x,b c,!", ["'b c'", "'!'"]),
    ],
)
def test_what_is_no_selector(text: str, wrong: list[str]) -> None:
    found = check_selector(text)
    assert [problem.split(" is not")[0] for problem in found] == wrong


def test_long_nonsense_is_refused_fast() -> None:
    assert check_selector("a" * 50_000 + "(")
    assert check_selector("a.-" * 20_000 + "/")
