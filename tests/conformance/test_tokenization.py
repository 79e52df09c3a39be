"""Tokenization on the wire: its count decides, and no request feels its failures."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson
import pytest

from epp.plugin_calls import step
from tests.conformance.conftest import StartPicker
from tests.conformance.picker import A_ADDRESS, B_ADDRESS, A, B, Server
from tests.conformance.wire import request_body, request_headers, std_body
from tests.unit.datalayer.servers import Respond, answer, hang, reset, serving

LABEL = "mif.moreh.io/context-length-range"


def with_range(made: Server, text: str) -> Server:
    """The server, meant for prompts of these lengths."""
    return Server(dataclasses.replace(made.endpoint, labels={LABEL: text}), made.metrics)


SHORT, LONG = with_range(A(), "0-100"), with_range(B(), "101-9999")


def configuration(producer: dict[str, Any]) -> dict[str, Any]:
    """Candidates are filtered by the length of the prompt."""
    plugins: list[dict[str, Any]] = [
        producer,
        {"type": "context-length-aware", "parameters": {"enableFiltering": True}},
        {"type": "max-score-picker"},
    ]
    refs = [{"pluginRef": plugin["type"]} for plugin in plugins[1:]]
    return {"document": {"plugins": plugins, "schedulingProfiles": [{"name": "default", "plugins": refs}]}}


def by_service(port: int) -> dict[str, Any]:
    return {"type": "token-producer", "parameters": {"modelName": "m", "vllm": {"url": f"http://127.0.0.1:{port}"}}}


async def target(start: StartPicker, producer: dict[str, Any], prompt: str) -> str:
    """Where a prompt goes."""
    picker = await start(SHORT, LONG, config=configuration(producer))
    routed = await picker.route(request_headers(), request_body(std_body("m", prompt)))
    for plugin in picker.instances.by_name.values():
        if hasattr(plugin, "stop"):
            await plugin.stop()
    return routed.target


@pytest.mark.parametrize(("prompt", "expected"), [("x" * 400, A_ADDRESS), ("x" * 404, B_ADDRESS)], ids=["100", "101"])
async def test_estimated_tokens_decide(start: StartPicker, prompt: str, expected: str) -> None:
    assert await target(start, {"type": "token-producer"}, prompt) == expected


async def test_counted_tokens_decide(start: StartPicker) -> None:
    async with serving(answer(orjson.dumps([{"token_ids": [7] * 101}]))) as server:
        assert await target(start, by_service(server.port), "a few letters") == B_ADDRESS


@pytest.mark.parametrize("respond", [answer("", 500), answer("[]"), reset, hang], ids=["500", "no tokens", "reset", "hangs"])
async def test_a_service_that_fails_leaves_the_estimate(
    start: StartPicker, respond: Respond, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "HOOK_DEADLINE_S", 0.1)
    async with serving(respond) as server:
        assert await target(start, by_service(server.port), "a few letters") == A_ADDRESS
