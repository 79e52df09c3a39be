"""Prompts that endpoints were sent before, on the wire: who gets a request, and what is computed elsewhere."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from tests.conformance.conftest import StartPicker
from tests.conformance.picker import A, B, C, Picker
from tests.conformance.test_plugins import DECODE, PREFILL
from tests.conformance.wire import request_body, request_headers, std_body

LONG = "a prompt of many blocks " * 100
SCORERS = ("prefix-cache-scorer", "queue-scorer", "max-score-picker")


def one_profile(**parameters: Any) -> dict[str, Any]:
    plugins = [{"type": name} for name in SCORERS]
    plugins[0] = {"type": SCORERS[0], "parameters": parameters}  # type: ignore[dict-item]
    weights = {"prefix-cache-scorer": 3, "queue-scorer": 1}
    refs = [{"pluginRef": name, **({"weight": weights[name]} if name in weights else {})} for name in SCORERS]
    return {"document": {"plugins": plugins, "schedulingProfiles": [{"name": "default", "plugins": refs}]}}


async def target(picker: Picker, body: bytes, headers: Mapping[str, str] | None = None) -> str:
    return (await picker.route(request_headers(headers or {}), request_body(body))).target


@pytest.mark.parametrize("tokens", [16, 7], ids=["the engines' block size", "another one"])
async def test_a_prompt_goes_where_it_was_sent_before(start: StartPicker, tokens: int) -> None:
    picker = await start(A(0), B(3), C(3), config=one_profile(blockSizeTokens=tokens))
    first = await target(picker, std_body("m", LONG))
    picker.serve([A(9), B(0), C(0)])
    assert await target(picker, std_body("m", "another " + LONG)) != first
    assert await target(picker, std_body("m", LONG + "and more")) == first


async def test_a_compressed_prompt_is_the_same_prompt(start: StartPicker) -> None:
    picker = await start(A(0), B(3), C(3), config=one_profile())
    first = await target(picker, gzip.compress(std_body("m", LONG)), {"content-encoding": "gzip"})
    picker.serve([A(9), B(0), C(0)])
    assert await target(picker, std_body("m", LONG)) == first


def disaggregated() -> dict[str, Any]:
    plugins = [
        {"type": "disagg-profile-handler", "parameters": {"deciders": {"prefill": "prefix-based-pd-decider"}}},
        {"type": "prefix-based-pd-decider", "parameters": {"nonCachedTokens": 200}},
        *[{"type": name} for name in ("disagg-headers-handler", "prefill-filter", "decode-filter", *SCORERS)],
    ]
    profiles = [
        {"name": stage, "plugins": [{"pluginRef": name} for name in (f"{stage}-filter", *SCORERS)]}
        for stage in ("prefill", "decode")
    ]
    return {"document": {"plugins": plugins, "schedulingProfiles": profiles}}


async def test_only_what_is_not_cached_is_prefilled_elsewhere(start: StartPicker) -> None:
    """Prefix 17 and 108 together: both targets hold the prompt afterwards."""
    picker = await start(PREFILL, DECODE, config=disaggregated())

    async def prefills(text: str) -> bool:
        body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": text}]})
        headers = request_headers({":path": "/v1/chat/completions"})
        return "x-prefiller-host-port" in (await picker.route(headers, request_body(body))).headers.headers

    assert await prefills(LONG), "600 tokens that nobody has cached"
    assert not await prefills(LONG), "the decode endpoint holds them"
    assert not await prefills(LONG + "more " * 100), "125 tokens more"
    assert await prefills(LONG + "other " * 200), "300 tokens more"
    assert not await prefills("short")
