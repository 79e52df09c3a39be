"""p2p-source-producer: whence the KV cache of a prompt can be fetched."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from epp.framework.candidates import Candidates
from epp.framework.keys import PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import RecordedEdits, make_candidates, make_plugin, make_request
from epp.framework.types import EndpointMetrics
from plugins.producers import p2p_source
from plugins.producers.p2p_source import HEADER

CANDIDATES = make_candidates(3)
ADDRESSES = {endpoint.name: endpoint.host_port for endpoint in CANDIDATES}


def of(blocks: int, **tiers: int) -> PrefixMatch:
    return PrefixMatch(blocks, 100, 16, blocks_by_tier=tiers)


def source(
    matches: dict[str, PrefixMatch] | None,
    to: str,
    prefill: str = "",
    *,
    candidates: Candidates = CANDIDATES,
    profile: str = "prefill",
    handler: str = "prefill",
    request_id: str = "r",
    **parameters: Any,
) -> str:
    """The endpoint that is named; "" for none."""
    plugin = make_plugin(p2p_source.PLUGIN, parameters)
    request = make_request(request_id=request_id)
    if matches is not None:
        request.data.set(PREFIX_CACHE_MATCH, {e.id: matches[e.name] for e in candidates if e.name in matches})
    plugin.produce(request, candidates)
    picked = {"decode": to, profile: prefill}
    runs = {
        name: ProfileRunResult(tuple(e for e in candidates if e.name == at), candidates, ())
        for name, at in picked.items()
        if at
    }
    edits = RecordedEdits()
    edits.set(HEADER, "a client's own")
    targets = tuple(endpoint.at_port(1) for endpoint in runs["decode"].targets)
    plugin.pre_request(request, SchedulingResult("decode", {**runs}, targets, prefill=handler), edits)
    named = edits.values.get(HEADER, "")
    return next((name for name, address in ADDRESSES.items() if address == named), named)


@pytest.mark.parametrize(
    ("matches", "to", "prefill", "named"),
    [
        pytest.param({"a": of(10)}, "b", "", "a", id="another endpoint holds more"),
        pytest.param({"a": of(10)}, "a", "", "", id="the one that computes holds it"),
        pytest.param({"a": of(10), "b": of(10)}, "b", "", "", id="the one that computes holds as much"),
        pytest.param({"a": of(10), "b": of(9), "c": of(3)}, "c", "", "b", id="one block less is as good; drawn by the request"),
        pytest.param({"a": of(10), "b": of(8)}, "b", "", "a", id="two blocks less is not"),
        pytest.param({"a": of(10)}, "a", "b", "a", id="the prefill target computes"),
        pytest.param({"a": of(10)}, "b", "a", "", id="the prefill target holds it"),
        pytest.param({"a": of(10, gpu=10), "b": of(5, cpu=4)}, "c", "", "b", id="fetched from the memory of the CPU"),
        pytest.param({"a": of(10, gpu=10)}, "b", "", "", id="nothing there"),
        pytest.param({"a": of(8, cpu=8), "b": of(8, gpu=8)}, "b", "", "", id="what the computing one holds needs no tier"),
        pytest.param({"a": of(0)}, "b", "", "", id="nothing held"),
        pytest.param({}, "b", "", "", id="nobody"),
        pytest.param(None, "b", "", "", id="no match"),
    ],
)
def test_source(matches: dict[str, PrefixMatch] | None, to: str, prefill: str, named: str) -> None:
    assert source(matches, to, prefill) == named


@pytest.mark.parametrize(("delta", "named"), [(1, "a"), (32, "a"), (33, "")])
def test_it_must_be_worth_it(delta: int, named: str) -> None:
    assert source({"a": of(10), "b": of(8)}, "b", minCachedTokenDelta=delta) == named


@pytest.mark.parametrize(
    ("parameters", "handler", "named"),
    [
        pytest.param({}, "pf", "a", id="as the profile handler calls it"),
        pytest.param({"prefillProfileName": "pf"}, "prefill", "a", id="as the parameter calls it"),
        pytest.param({"prefillProfileName": "prefill"}, "pf", "", id="the parameter wins"),
    ],
)
def test_the_prefill_profile_may_have_another_name(parameters: dict[str, str], handler: str, named: str) -> None:
    assert source({"a": of(10)}, "a", "b", profile="pf", handler=handler, **parameters) == named


def test_sources_are_drawn_by_request_and_queue() -> None:
    """Equal for the same request; over many, by one over one more than the queue: 1 to 1/4."""
    busy = make_candidates([EndpointMetrics(waiting_queue=0), EndpointMetrics(waiting_queue=3), EndpointMetrics()])
    matches = {"a": of(10), "b": of(10)}
    drawn = [source(matches, "c", candidates=busy, request_id=f"request-{n}") for n in range(1000)]
    assert drawn == [source(matches, "c", candidates=busy, request_id=f"request-{n}") for n in range(1000)]
    assert Counter(drawn)["a"] == pytest.approx(800, abs=60)


@pytest.mark.parametrize(("text", "digest"), [("", 0x811C9DC5), ("a", 0xE40C292C), ("foobar", 0xBF9CF968)])
def test_the_lot_is_that_of_other_pickers(text: str, digest: int) -> None:
    assert p2p_source._fnv1a(text.encode()) == digest
