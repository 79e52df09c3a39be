"""Plugins around the decision: disagg-headers-handler, agent-identity, probabilistic-admitter."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import ValidationError

from epp.framework.keys import AGENT_IDENTITY
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import FakeHeaders, RecordedEdits, make_candidates, make_context, make_plugin, make_request
from epp.framework.types import Endpoint, EndpointMetrics
from plugins.admitters import probabilistic
from plugins.prerequest import disagg_headers
from plugins.request_headers import agent_identity
from tests.unit.plugins.disaggregated import endpoints

PREFILL = ("mif-prefill-endpoint", "x-prefiller-host-port")
ENCODE = ("mif-encode-endpoints", "x-encoder-hosts-ports")
A, B, C, V6 = endpoints(("10.0.0.1", 8000), ("10.0.0.2", 8000), ("10.0.0.3", 8001), ("fd00::1", 8000))


def decided(**profiles: tuple[Endpoint, ...] | None) -> SchedulingResult:
    runs = {
        name: None if targets is None else ProfileRunResult(targets, make_candidates(0), [])
        for name, targets in profiles.items()
    }
    primary = runs["decode"]
    assert primary is not None
    return SchedulingResult("decode", dict(runs), primary.targets)


def headers(result: SchedulingResult, parameters: dict[str, str] | None = None) -> RecordedEdits:
    edits = RecordedEdits()
    make_plugin(disagg_headers.PLUGIN, parameters).pre_request(make_request(), result, edits)
    return edits


@pytest.mark.parametrize(
    ("result", "parameters", "prefill", "encode"),
    [
        pytest.param(decided(decode=(A,), prefill=(B, C)), {}, "10.0.0.2:8000", None, id="H15: the first prefill target"),
        pytest.param(
            decided(decode=(A,), encode=(C, B)),
            {},
            None,
            "10.0.0.3:8001,10.0.0.2:8000",
            id="H15, prefix 112: all encode targets in order",
        ),
        pytest.param(decided(decode=(A,), prefill=(B,), encode=(C,)), {}, "10.0.0.2:8000", "10.0.0.3:8001", id="both"),
        pytest.param(decided(decode=(A,)), {}, None, None, id="H16: neither"),
        pytest.param(decided(decode=(A,), prefill=None, encode=None), {}, None, None, id="both failed"),
        pytest.param(decided(decode=(A,), prefill=(V6,)), {}, "[fd00::1]:8000", None, id="H17, prefix 111: IPv6"),
        pytest.param(decided(decode=(A,), prefill=(A,)), {}, None, None, id="H18: prefill is decode"),
        pytest.param(decided(decode=(A.at_port(1),), prefill=(A,)), {}, None, None, id="H18: behind another port"),
        pytest.param(
            decided(decode=(A,), p=(B,), e=(C,)),
            {"prefillProfile": "p", "encodeProfile": "e"},
            "10.0.0.2:8000",
            "10.0.0.3:8001",
            id="other profiles",
        ),
    ],
)
def test_disagg_headers(result: SchedulingResult, parameters: dict[str, str], prefill: str | None, encode: str | None) -> None:
    edits = headers(result, parameters)
    expected = {name: value for names, value in ((PREFILL, prefill), (ENCODE, encode)) if value for name in names}
    assert edits.values == expected
    assert edits.removed == {*PREFILL, *ENCODE} - expected.keys(), "what is not set is removed"


def test_its_headers_are_taken_from_clients() -> None:
    assert disagg_headers.PLUGIN.header_strip == {*PREFILL, *ENCODE}


@pytest.mark.parametrize(
    ("sent", "additional", "identity"),
    [
        pytest.param({"x-claude-code-session-id": "c"}, [], "c", id="Claude Code"),
        pytest.param({"x-session-affinity": "o"}, [], "o", id="OpenCode"),
        pytest.param({"session-id": "n"}, [], "n", id="Codex"),
        pytest.param({"session_id": "o"}, [], "o", id="older Codex"),
        pytest.param({"session_id": "4", "session-id": "3", "x-session-affinity": "2"}, [], "2", id="the order of the names"),
        pytest.param({"x-claude-code-session-id": "", "session-id": "n"}, [], "n", id="an empty value is none"),
        pytest.param({"x-mine": "m", "x-claude-code-session-id": "c"}, ["X-Mine"], "m", id="own names come first"),
        pytest.param({"x-claude-code-session-id": "c"}, ["X-Mine", " "], "c", id="own names do not replace the known ones"),
        pytest.param({"other": "x"}, [], None, id="nothing"),
    ],
)
def test_agent_identity(sent: dict[str, str], additional: list[str], identity: str | None) -> None:
    request = make_request(headers=sent)
    edits = RecordedEdits()
    make_plugin(agent_identity.PLUGIN, {"additionalSessionHeaders": additional}).process_request(request, edits)
    assert request.data.get(AGENT_IDENTITY) == identity
    assert (edits.values, edits.removed) == ({}, set()), "the headers go on"


def test_of_several_instances_the_first_that_finds_something_counts() -> None:
    request = make_request(headers={"session-id": "n", "x-mine": "m"})
    for additional in (["x-absent"], ["x-mine"]):
        plugin = make_plugin(agent_identity.PLUGIN, {"additionalSessionHeaders": additional}, make_context("named"))
        plugin.process_request(request, RecordedEdits())
    assert request.data.get(AGENT_IDENTITY) == "n"


def test_the_last_of_doubled_headers_counts() -> None:
    request = make_request()
    request.headers = FakeHeaders([("session-id", "1"), ("session-id", "2")])
    make_plugin(agent_identity.PLUGIN).process_request(request, RecordedEdits())
    assert request.data.get(AGENT_IDENTITY) == "2"


def busy(waiting: int | None, usage: float | None) -> EndpointMetrics:
    return EndpointMetrics(waiting_queue=waiting, kv_cache_usage=usage)


@pytest.mark.parametrize(
    ("pool", "parameters", "saturation", "probability"),
    [
        pytest.param([(1, 0.2), (2, 0.1)], {}, 0.325, 1.0, id="H23: full"),
        pytest.param([(0, 0.08), (0, 0.16)], {}, 0.15, 0.0227812, id="H23: some load"),
        pytest.param([(0, 0.0)], {}, 0.0, 0.0, id="idle"),
        pytest.param([(None, None)], {}, 1.0, 1.0, id="never scraped"),
        pytest.param([(None, 0.4)], {"k": 1, "power": 1}, 0.5, 0.5, id="only one value"),
        pytest.param([(5, None)], {"k": 1, "power": 1, "queueDepthThreshold": 10}, 0.5, 0.5, id="another depth"),
        pytest.param([(0, 0.25)], {"k": 1, "power": 1, "kvCacheUtilThreshold": 0.5}, 0.5, 0.5, id="another usage"),
        pytest.param([(10**9, 0.0)], {"power": 500}, 2e8, 1.0, id="a power beyond all floats"),
        pytest.param([(1, 0.0)], {"power": 10_000}, 0.2, 0.0, id="a power below all floats"),
        pytest.param([], {}, 0.0, 0.0, id="flow 92: no candidates"),
    ],
)
def test_refusal_probability(
    pool: list[tuple[int | None, float | None]], parameters: dict[str, Any], saturation: float, probability: float
) -> None:
    admitter = make_plugin(probabilistic.PLUGIN, parameters)
    candidates = make_candidates([busy(*values) for values in pool])
    assert admitter.saturation(candidates) == pytest.approx(saturation)
    assert admitter.refusal_probability(candidates) == pytest.approx(probability, abs=1e-7)


@pytest.mark.parametrize(
    ("priority", "refused"), [(-1, 1000), (0, 0), (5, 0)], ids=["sheddable", "flow 92: priority 0", "flow 92: above"]
)
def test_only_sheddable_requests_are_refused(priority: int, refused: int) -> None:
    admitter = make_plugin(probabilistic.PLUGIN)
    full = make_candidates([busy(9, 1.0)])
    answers = [admitter.admit(make_request(priority=priority), full) for _ in range(1000)]
    assert sum(answer is not None for answer in answers) == refused


class Draws(random.Random):
    """A source of chance that draws one number."""

    def __init__(self, number: float) -> None:
        super().__init__(0)
        self._number = number

    def random(self) -> float:
        return self._number


@pytest.mark.parametrize(
    ("drawn", "refused"), [(0.05, True), (0.2, False)], ids=["flow 91: below 0.096", "flow 91: above 0.096"]
)
def test_a_draw_decides(drawn: float, refused: bool) -> None:
    context = make_context()
    context.rng = Draws(drawn)
    admitter = make_plugin(probabilistic.PLUGIN, {}, context)
    assert (admitter.admit(make_request(priority=-1), make_candidates([busy(1, 0.1)])) is not None) is refused


def test_refusals_are_drawn_with_their_probability() -> None:
    admitter = make_plugin(probabilistic.PLUGIN, {"k": 1, "power": 1}, make_context(seed=3))
    half = make_candidates([busy(0, 0.4)])
    refused = sum(admitter.admit(make_request(priority=-1), half) is not None for _ in range(4000))
    assert 1800 < refused < 2200


@pytest.mark.parametrize("name", ["queueDepthThreshold", "kvCacheUtilThreshold", "power", "k"])
def test_parameters_are_positive(name: str) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        probabilistic.PLUGIN.params.decode({name: 0})
