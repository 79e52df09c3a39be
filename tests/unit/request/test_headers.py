"""Header names are complete and consistent, and read by the protocol's rules."""

from __future__ import annotations

import pytest

from epp.request import headers
from tests.unit.extproc.heads import PlainHeaders

SET_BY_US_ONLY = [
    "mif-encode-endpoints",
    "mif-prefill-endpoint",
    "x-data-parallel-host-port",
    "x-encoder-hosts-ports",
    "x-gateway-destination-endpoint",
    "x-gateway-destination-endpoint-served",
    "x-gateway-destination-endpoint-subset",
    "x-kv-cache-source-host-port",
    "x-prefiller-host-port",
]
CONTROL = [
    "x-epp-explain",
    "x-gateway-inference-fairness-id",
    "x-gateway-inference-objective",
    "x-gateway-model-name-rewrite",
    "x-llm-d-inference-fairness-id",
    "x-llm-d-inference-objective",
    "x-llm-d-inference-ttl",
    "x-llm-d-model-name-rewrite",
    "x-llm-d-slo-tpot-ms",
    "x-llm-d-slo-ttft-ms",
    "x-llm-d-video-duration-seconds",
    "x-llm-d-video-fps",
    "x-llm-d-video-resolution",
    "x-slo-tpot-ms",
    "x-slo-ttft-ms",
]
CLIENTS_OWN = [
    "x-session-token",
    "x-session-id",
    "session-id",
    "x-request-id",
    "traceparent",
    "cookie",
    "prefer",
    "x-gateway-model-name",
]


def test_request_strip() -> None:
    assert sorted(headers.REQUEST_STRIP) == sorted(SET_BY_US_ONLY + CONTROL)


def test_control() -> None:
    assert sorted(headers.CONTROL) == CONTROL


def test_response_strip() -> None:
    assert sorted(headers.RESPONSE_STRIP) == [
        "x-epp-explain",
        "x-gateway-destination-endpoint",
        "x-gateway-destination-endpoint-served",
        "x-gateway-destination-endpoint-subset",
        "x-llm-d-request-dropped-reason",
    ]


@pytest.mark.parametrize(
    "name", [*CONTROL, "x-gateway-destination-endpoint", "x-llm-d-request-dropped-reason", "content-length"]
)
def test_plugins_may_not_set(name: str) -> None:
    assert name in headers.SYSTEM_OWNED


@pytest.mark.parametrize(
    "name", ["x-prefiller-host-port", "mif-prefill-endpoint", "x-session-token", "x-decoder-host-port", "k"]
)
def test_plugins_may_set(name: str) -> None:
    assert name not in headers.SYSTEM_OWNED


@pytest.mark.parametrize("name", CLIENTS_OWN)
def test_headers_of_clients_stay(name: str) -> None:
    assert name not in headers.REQUEST_STRIP
    assert name not in headers.SYSTEM_OWNED


def test_all_names_are_lower_case() -> None:
    names = [value for name, value in vars(headers).items() if name.isupper() and isinstance(value, str)]
    names += [one for value in vars(headers).values() if isinstance(value, headers.Aliased) for one in value]
    assert len(names) > 30
    assert names == [name.lower() for name in names]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        pytest.param([], None, id="none"),
        pytest.param([("x-gateway-inference-objective", "old")], "old", id="old name only"),
        pytest.param([("x-llm-d-inference-objective", "new")], "new", id="new name only"),
        pytest.param([("x-llm-d-inference-objective", "new"), ("x-gateway-inference-objective", "old")], "new", id="C21 both"),
        pytest.param([("x-gateway-inference-objective", "old"), ("x-llm-d-inference-objective", "")], "", id="new name, empty"),
    ],
)
def test_lookup(pairs: list[tuple[str, str]], expected: str | None) -> None:
    assert headers.lookup(PlainHeaders(*pairs), *headers.OBJECTIVE) == expected


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        pytest.param([(":path", "/v1/chat/completions")], "/v1/chat/completions", id="path"),
        pytest.param([(":path", "/v1/chat/completions/?x=1?y")], "/v1/chat/completions/", id="C51 query cut"),
        pytest.param([("x-forwarded-path", "/c"), ("x-original-path", "/b"), (":path", "/a")], "/a", id="path first"),
        pytest.param([("x-forwarded-path", "/c"), ("x-original-path", "/b?q")], "/b", id="then the original path"),
        pytest.param([("x-forwarded-path", "/c?q")], "/c", id="then the forwarded path"),
        pytest.param([(":path", ""), ("x-forwarded-path", "/c")], "/c", id="an empty path is none"),
        pytest.param([], "/v1/completions", id="no path at all"),
    ],
)
def test_request_path(pairs: list[tuple[str, str]], expected: str) -> None:
    assert headers.request_path(PlainHeaders(*pairs)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", True), ("a b\t", True), ("ümläut\udcff", True), ("a\rb", False), ("a\nb", False), ("a\0", False)],
)
def test_clean_value(value: str, expected: bool) -> None:
    assert headers.clean_value(value) is expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], False),
        ([""], False),
        (["if-available"], True),
        ([" IF-Available "], True),
        (["respond-async, if-available"], True),
        (["if-available;wait=10"], True),
        (["if-available", "respond-async"], True),
        (["respond-async"], False),
        (["if-available-soon"], False),
        (["respond-async;if-available"], False),
    ],
)
def test_preferences(values: list[str], expected: bool) -> None:
    assert headers.prefers_available(PlainHeaders(*(("prefer", value) for value in values))) is expected
