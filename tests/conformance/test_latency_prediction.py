"""Latency prediction on the wire: what it learns from, and that no request feels its failures."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import pytest

from epp.framework.candidates import Candidates
from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH
from epp.framework.types import InferenceRequest
from plugins.latency.forecaster import LatencyForecaster
from plugins.latency.regression import MIN_SAMPLES, Sample
from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import double
from tests.conformance.exchanges import USAGE, event, pass_chunks, routed
from tests.conformance.picker import A, B, Picker
from tests.conformance.wire import DUPLEX, FULL_DUPLEX, NONE, Modes, request_body, request_headers, response_headers

SCORER = "predicted-latency-scorer"
BODY = json.dumps({"model": "m", "prompt": "abcd" * 50, "stream": True, "max_tokens": 20}).encode()
CHUNKS = [event({"choices": [{"text": "one"}]}), event({"choices": [{"text": "two"}]}), event({"usage": USAGE})]
CONFIG: dict[str, Any] = {
    "document": {
        "plugins": [{"type": SCORER}, {"type": "max-score-picker"}, {"type": "noindex"}],
        "schedulingProfiles": [
            {"name": "default", "plugins": [{"pluginRef": SCORER, "weight": 2}, {"pluginRef": "max-score-picker"}]}
        ],
    }
}


class NoIndex:
    """A producer of prefix matches that finds none."""

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        request.data.set(PREFIX_CACHE_MATCH.by("noindex"), {})


NO_INDEX = dataclasses.replace(double(NoIndex(), Role.DATA_PRODUCER, every_chunk=False), produces=(PREFIX_CACHE_MATCH,))
OPTIONS: dict[str, Any] = {"config": CONFIG, "doubles": [NO_INDEX]}


def forecaster(picker: Picker) -> LatencyForecaster:
    """The plugin, which learns without a pause between batches."""
    plugin = picker.instances.by_name[SCORER]
    assert isinstance(plugin, LatencyForecaster)
    plugin._predictor._pause_s = 0
    return plugin


def state(picker: Picker) -> dict[str, Any]:
    found = forecaster(picker).debug_state()
    assert isinstance(found, dict)
    return found


async def learned(picker: Picker) -> dict[str, Any]:
    """The state once all that waits has been learned."""
    while tasks := [task for task in asyncio.all_tasks() if task.get_name() == "latency prediction"]:
        await asyncio.wait(tasks)
    return state(picker)


async def test_it_learns_from_streams_until_it_predicts(start: StartPicker) -> None:
    picker = await start(A(), B(), **OPTIONS)
    forecaster(picker)
    for _ in range(MIN_SAMPLES):
        await pass_chunks(await routed(picker, BODY), CHUNKS)
    found = await learned(picker)
    assert (found["learned"], found["failures"], found["requests"], found["dispatched"]) == (2 * MIN_SAMPLES, 0, 0, {})
    assert set(found["weights"]) == {"first_token/", "per_token/"}
    assert not picker.series("request_predicted_ttft_seconds", suffix="_count")
    await pass_chunks(await routed(picker, BODY), CHUNKS)
    await picker.settle()
    assert picker.series("request_predicted_ttft_seconds", suffix="_count") == {(SCORER, SCORER, "m", "m"): 1}
    assert picker.series("request_predicted_tpot_seconds", suffix="_count") == {(SCORER, SCORER, "m", "m"): 1}


async def test_a_bypassed_response_teaches_nothing(start: StartPicker) -> None:
    picker = await start(A(), **OPTIONS)
    stream = picker.stream(Modes(FULL_DUPLEX, NONE))
    await stream.send(request_headers(), request_body(BODY))
    await stream.routed()
    await stream.send(response_headers(content_type="text/event-stream"))
    await stream.answer("response_headers")
    await stream.closes()
    await picker.stop()  # by then the end has been told
    found = state(picker)
    assert (found["learned"], found["waiting"], found["requests"]) == (0, 0, 0)


async def test_no_request_feels_that_learning_fails(start: StartPicker, caplog: pytest.LogCaptureFixture) -> None:
    picker = await start(A(), **OPTIONS)

    class Breaks:
        def learn(self, batch: Sequence[Sample]) -> Any:
            raise ArithmeticError("broke down")

    forecaster(picker)._predictor._model = Breaks()
    for _ in range(3):
        await pass_chunks(await routed(picker, BODY), CHUNKS)
    found = await learned(picker)
    assert (found["failures"], found["learned"]) == (1, 0)
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.name for record in errors] == ["epp.process.runtime"]
    caplog.clear()


async def test_no_request_feels_that_predicting_fails(start: StartPicker, monkeypatch: pytest.MonkeyPatch) -> None:
    picker = await start(A(9, 0.9), B(0, 0.1), **OPTIONS)

    def breaks(*_: object) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(forecaster(picker)._predictor, "predict_ms", breaks)
    for _ in range(3):
        answer = await picker.route(request_headers(), request_body(BODY), modes=DUPLEX)
        assert answer.target
    assert picker.total("plugin_errors_total") == 3
