"""Which requests a pool is for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.framework.testing import FakeHeaders
from epp.pools.match import Match, authority_of, covers, is_authority, split

HOSTS = st.lists(st.text("abz09-", min_size=1, max_size=4).filter(lambda t: t.strip("-") == t), min_size=1, max_size=3).map(
    ".".join
)
PORTS = st.sampled_from(["", ":1", ":443", ":65535"])


@pytest.mark.parametrize(
    ("headers", "authority"),
    [
        ({":authority": "chat.example.com"}, "chat.example.com"),
        ({":authority": "Chat.Example.COM:8443"}, "chat.example.com:8443"),
        ({":authority": "chat.example.com."}, "chat.example.com"),
        ({":authority": "chat.example.com.:80"}, "chat.example.com:80"),
        ({"host": "a"}, "a"),
        ({":authority": "a", "host": "b"}, "a"),
        ({":authority": "[::1]:80"}, "[::1]:80"),
        ({}, ""),
    ],
)
def test_the_authority_of_a_request(headers: dict[str, str], authority: str) -> None:
    assert authority_of(FakeHeaders(headers)) == authority


@pytest.mark.parametrize(
    ("wanted", "authority", "fits"),
    [
        ("chat.example.com", "chat.example.com", True),
        ("chat.example.com", "chat.example.com:8443", True),
        ("chat.example.com:8443", "chat.example.com:8443", True),
        ("chat.example.com:8443", "chat.example.com", False),
        ("chat.example.com:8443", "chat.example.com:80", False),
        ("*.example.com", "chat.example.com", True),
        ("*.example.com", "a.b.example.com:1", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
        ("*.example.com", "notexample.com", False),
        ("*.example.com:1", "a.example.com:1", True),
        ("*.example.com:1", "a.example.com", False),
        ("[::1]", "[::1]:80", True),
        ("[::1]", "[::1]", True),
        ("chat.example.com", "", False),
    ],
)
def test_authorities(wanted: str, authority: str, fits: bool) -> None:
    assert covers(wanted, authority) is fits


def test_all_that_is_given_must_fit() -> None:
    match = Match(("a", "*.b"), (("x-pool", "p"), ("x-tier", "gold")))
    both = FakeHeaders({"x-pool": "p", "x-tier": "gold"})
    assert match.fits("a", both)
    assert match.fits("c.b", both)
    assert not match.fits("c", both)
    assert not match.fits("a", FakeHeaders({"x-pool": "p"}))
    assert not match.fits("a", FakeHeaders({"x-pool": "p", "x-tier": "Gold"}))
    assert Match((), (("x-pool", "p"),)).fits("", both)
    assert Match(("a",)).fits("a", FakeHeaders())


def test_what_asks_for_nothing_fits_nothing() -> None:
    assert not Match().fits("a", FakeHeaders({"x": "y"}))


@given(HOSTS, PORTS)
def test_a_host_and_its_port_are_told_apart(host: str, port: str) -> None:
    assert split(host + port) == (host, port)
    assert covers(host, host + port)
    assert covers(host + port, host + port)
    assert covers(f"*.{host}", f"x.{host}{port}")
    assert not covers(f"*.{host}", host)
    assert is_authority(host + port)


@given(HOSTS, HOSTS, PORTS)
def test_what_covers_a_form_covers_what_it_covers(wide: str, narrow: str, port: str) -> None:
    for outer in (wide, f"*.{wide}"):
        for inner in (narrow, f"*.{narrow}", f"*.{narrow}.{wide}"):
            request = inner.replace("*", "x") + port
            if covers(outer, inner):
                assert covers(inner, request) <= covers(outer, request)


@pytest.mark.parametrize("text", ["", "*", "*.", "a b", "a/", "http://a", "a:", "a:x", ".a", "a..b", "**.a", "a.*"])
def test_what_no_request_asks_for(text: str) -> None:
    assert not is_authority(text)
