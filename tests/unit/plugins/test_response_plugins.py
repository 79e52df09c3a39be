"""Plugins on the response side: response-header-handler, the verifier of served endpoints, request-attribute-reporter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import FakeHeaders, RecordedEdits, make_candidates, make_plugin, make_request
from epp.framework.types import Cause, Completion, Endpoint, ResponseInfo, Usage
from plugins.response import request_attribute_reporter, response_header, served_endpoint_verifier
from plugins.response.expression import EvaluationError
from tests.unit.plugins.disaggregated import endpoints

A, B, P, V6 = endpoints(("10.0.0.1", 8000), ("10.0.0.2", 8000), ("10.0.0.3", 8001), ("fd00::1", 8000))


def decided(*targets: Endpoint, prefill: Endpoint | None = None, name: str = "prefill") -> SchedulingResult:
    empty = make_candidates(0)
    runs: dict[str, ProfileRunResult | None] = {"decode": ProfileRunResult(targets, empty, [])}
    if prefill is not None:
        runs[name] = ProfileRunResult((prefill,), empty, [])
    return SchedulingResult("decode", runs, targets, prefill=name)


def response(served: Endpoint, metadata: Mapping[str, Mapping[str, object]] | None = None) -> ResponseInfo:
    return ResponseInfo(200, FakeHeaders({"x-prefiller-host-port": "server:1"}), served, metadata or {}, 0.0)


def edits_of(plugin: Any, result: SchedulingResult, info: ResponseInfo) -> RecordedEdits:
    edits = RecordedEdits()
    plugin.response_received(make_request(), result, info, edits)
    return edits


@pytest.mark.parametrize(
    ("result", "served", "decoder", "prefiller"),
    [
        pytest.param(decided(A), A, "10.0.0.1:8000", None, id="H19: no prefill"),
        pytest.param(decided(A, prefill=P), A, "10.0.0.1:8000", "10.0.0.3:8001", id="H20: prefill"),
        pytest.param(decided(A, B), B, "10.0.0.2:8000", None, id="a fallback answered"),
        pytest.param(decided(A, prefill=P, name="p"), A, "10.0.0.1:8000", "10.0.0.3:8001", id="another prefill profile"),
        pytest.param(decided(V6, prefill=V6), V6, "[fd00::1]:8000", "[fd00::1]:8000", id="IPv6"),
        pytest.param(decided(A.at_port(8200)), A.at_port(8200), "10.0.0.1:8200", None, id="behind the primary port"),
        pytest.param(decided(A, name="decode"), A, "10.0.0.1:8000", None, id="the only profile is called like prefill"),
    ],
)
def test_response_headers(result: SchedulingResult, served: Endpoint, decoder: str, prefiller: str | None) -> None:
    edits = edits_of(make_plugin(response_header.PLUGIN), result, response(served))
    expected = {"x-decoder-host-port": decoder} | ({"x-prefiller-host-port": prefiller} if prefiller else {})
    assert edits.values == expected
    assert edits.removed == (set() if prefiller else {"x-prefiller-host-port"}), "what the server wrote does not stay"


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        pytest.param({"envoy.lb": {"x-gateway-destination-endpoint-served": "10.0.0.2:8000"}}, "10.0.0.2:8000", id="named"),
        pytest.param({"envoy.lb": {"x-gateway-destination-endpoint-served": "odd"}}, "odd", id="named, whatever it is"),
        pytest.param({}, "fail: missing envoy lb metadata", id="no metadata"),
        pytest.param({"other": {}}, "fail: missing envoy lb metadata", id="another namespace"),
        pytest.param({"envoy.lb": {}}, "fail: missing destination endpoint served metadata", id="no such key"),
        pytest.param(
            {"envoy.lb": {"x-gateway-destination-endpoint-served": 5}},
            "fail: missing destination endpoint served metadata",
            id="no text",
        ),
    ],
)
def test_verifier(metadata: Mapping[str, Mapping[str, object]], text: str) -> None:
    edits = edits_of(make_plugin(served_endpoint_verifier.PLUGIN), decided(A), response(A, metadata))
    assert edits.values == {"x-conformance-test-served-endpoint": text}


SEEN = Usage(prompt_tokens=7, completion_tokens=10, total_tokens=17, cached_tokens=4, found=True)


def reported(usage: Usage, expression: str, condition: str = "", **key: str) -> dict[str, dict[str, object]]:
    attribute = {"key": {"name": "cost", **key}, "expression": expression, "condition": condition}
    reporter = make_plugin(request_attribute_reporter.PLUGIN, {"attributes": [attribute]})
    end = Completion(Cause.NATURAL, 200, A, usage, True, None, 1.0, 10, False)
    reporter.response_complete(make_request(), decided(A), end)
    return end.metadata


@pytest.mark.parametrize(
    ("expression", "condition", "number"),
    [
        pytest.param("usage.completion_tokens", "has(usage.completion_tokens)", 10, id="a member"),
        pytest.param("usage.prompt_tokens + 2 * usage.completion_tokens", "", 27, id="a sum"),
        pytest.param("usage.total_tokens / 2", "", 8, id="the fraction is cut off"),
        pytest.param("usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens", "", 3, id="cached tokens"),
        pytest.param("0 - usage.prompt_tokens", "", -7, id="negative"),
        pytest.param("usage.completion_tokens", "usage.completion_tokens > 10", None, id="the condition does not hold"),
        pytest.param("usage.completion_tokens", "usage.completion_tokens", None, id="the condition is no truth value"),
        pytest.param("usage.completion_tokens", "usage.other > 1", None, id="the condition has no value"),
        pytest.param("usage.other", "", None, id="a missing member"),
        pytest.param("0", "", None, id="zero"),
        pytest.param("-1", "", None, id="minus one"),
        pytest.param("0.5", "", None, id="a fraction of zero"),
    ],
)
def test_reported_number(expression: str, condition: str, number: int | None) -> None:
    assert reported(SEEN, expression, condition) == ({} if number is None else {"envoy.lb": {"cost": number}})


def test_nothing_is_reported_without_a_usage() -> None:
    assert reported(Usage(), "usage.completion_tokens") == {}
    assert reported(Usage(), "5", "has(usage.prompt_tokens)") == {}


def test_cached_tokens_that_the_server_does_not_tell_are_missing() -> None:
    assert reported(SEEN._replace(cached_tokens=None), "usage.prompt_tokens_details.cached_tokens") == {}


def test_another_namespace() -> None:
    assert reported(SEEN, "usage.total_tokens", namespace="billing") == {"billing": {"cost": 17.0}}


@pytest.mark.parametrize("expression", ["usage.prompt_tokens > 1", "'text'", "1 / 0", "1e308 * 10"])
def test_what_is_no_number_is_a_defect(expression: str) -> None:
    with pytest.raises(EvaluationError):
        reported(SEEN, expression)


ATTRIBUTE = {"key": {"name": "cost"}, "expression": "usage.total_tokens"}


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        pytest.param({}, "attributes", id="no parameters at all"),
        pytest.param({"attributes": []}, "at least 1 item", id="no attribute"),
        pytest.param({"attributes": [ATTRIBUTE, ATTRIBUTE]}, "at most 1 item", id="two attributes"),
        pytest.param({"attributes": [ATTRIBUTE | {"key": {}}]}, "name", id="no name"),
        pytest.param({"attributes": [ATTRIBUTE | {"expression": ""}]}, "at least 1 character", id="no expression"),
        pytest.param({"attributes": [ATTRIBUTE | {"expression": "usage."}]}, "unexpected end at character 7", id="no CEL"),
        pytest.param({"attributes": [ATTRIBUTE | {"condition": "x > 1"}]}, "nothing called 'x'", id="no condition"),
    ],
)
def test_refused_attributes(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        request_attribute_reporter.PLUGIN.params.decode(parameters)
