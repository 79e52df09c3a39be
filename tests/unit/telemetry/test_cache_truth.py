"""Cached prefixes as they were predicted, beside what servers report."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.framework.interfaces import CacheMismatch
from epp.framework.keys import PrefixMatch
from epp.framework.testing import make_candidates
from epp.framework.types import Endpoint, EndpointChange, EndpointId, Usage
from epp.telemetry.cache_truth import ENOUGH, MEMORY, CacheTruth, Prediction
from epp.telemetry.metrics import Metrics
from tests.unit.telemetry.scrape import value

A, B, C = ENDPOINTS = tuple(make_candidates(3))
WRONG = "cached prefixes are predicted wrongly"
AGAIN = "cached prefixes are predicted rightly again"


@dataclass
class Explains:
    """A producer that knows a cause of one mismatch."""

    asked: list[tuple[EndpointId, CacheMismatch]] = field(default_factory=list)
    fails: bool = False

    def explain_mismatch(self, endpoint_id: EndpointId, mismatch: CacheMismatch) -> str:
        self.asked.append((endpoint_id, mismatch))
        if self.fails:
            raise ZeroDivisionError
        return "a gap in the events" if mismatch is CacheMismatch.TOO_MANY else ""


class Truth:
    """Three endpoints, whose prompts have 1,000 tokens."""

    def __init__(self, producer: object = None, engine_block_tokens: int = 16) -> None:
        self.metrics = Metrics()
        self.truth = CacheTruth(self.metrics, {"p": producer}.get, lambda _: engine_block_tokens)
        self.truth.endpoints_changed(EndpointChange(added=ENDPOINTS))

    def answer(
        self,
        predicted: int | None,
        reported: int,
        times: int = ENOUGH,
        endpoint: Endpoint = A,
        *,
        chats: bool = False,
        block: int = 10,
    ) -> None:
        """Responses with so many tokens, of which the first were predicted in whole blocks."""
        match = PrefixMatch(predicted // block, 1000 // block, block) if predicted is not None else None
        for _ in range(times):
            self.truth.observe("p", endpoint, match, Usage(1000, 1, 1001, reported), is_chat=chats)

    def state(self, endpoint: Endpoint = A) -> tuple[object, str]:
        [shown] = self.truth.page(endpoint.id)
        return shown["mismatch"], str(shown["likelyCause"])


@pytest.mark.parametrize(
    ("match", "prompt_tokens", "expected"),
    [
        pytest.param(None, 100, Prediction(0, 0.0, 0.0), id="no match"),
        pytest.param(PrefixMatch(0, 10, 16), 160, Prediction(0, 0.0, 0.0), id="nothing held"),
        pytest.param(PrefixMatch(5, 10, 16), 160, Prediction(80, 0.5, 0.5), id="half"),
        pytest.param(PrefixMatch(5, 10, 16), 200, Prediction(80, 0.4, 0.5), id="tokens shorter than four bytes"),
        pytest.param(PrefixMatch(5, 10, 16), 100, Prediction(80, 0.5, 0.8), id="tokens longer than four bytes"),
        pytest.param(PrefixMatch(10, 10, 16), 100, Prediction(100, 1.0, 1.0), id="no more than the prompt"),
        pytest.param(
            PrefixMatch(256, 256, 16), 40960, Prediction(4096, 0.1, 1.0), id="all that was looked up of a long prompt"
        ),
    ],
)
def test_a_prediction_is_a_range(match: PrefixMatch | None, prompt_tokens: int, expected: Prediction) -> None:
    assert Prediction.of(match, prompt_tokens) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predicted", "reported", "mismatch"),
    [
        pytest.param(600, 600, None, id="as predicted"),
        pytest.param(600, 450, None, id="nearly"),
        pytest.param(1000, 1000, None, id="all"),
        pytest.param(0, 0, None, id="new prompts"),
        pytest.param(600, 0, CacheMismatch.NO_HITS, id="no hits"),
        pytest.param(None, 600, CacheMismatch.UNFORESEEN, id="nothing was known"),
        pytest.param(0, 600, CacheMismatch.UNFORESEEN, id="nothing was matched"),
        pytest.param(900, 400, CacheMismatch.TOO_MANY, id="fewer"),
        pytest.param(300, 800, CacheMismatch.TOO_FEW, id="more"),
    ],
)
def test_what_lasts_is_a_mismatch(
    predicted: int | None, reported: int, mismatch: CacheMismatch | None, caplog: pytest.LogCaptureFixture
) -> None:
    truth = Truth()
    truth.answer(predicted, reported, ENOUGH - 1)
    assert truth.state() == (None, ""), "not enough yet"
    truth.answer(predicted, reported, 100)
    assert truth.state()[0] is mismatch
    assert bool(truth.state()[1]) == (mismatch is not None)
    assert [record.message for record in caplog.records] == [WRONG] * (mismatch is not None), "once"


def test_a_mismatch_ends(caplog: pytest.LogCaptureFixture) -> None:
    truth = Truth()
    with caplog.at_level(logging.DEBUG):
        truth.answer(600, 0)
        truth.answer(600, 600, 3)
        assert truth.state()[0] is CacheMismatch.TOO_MANY, "some hits: another mismatch, and not over so soon"
        truth.answer(600, 600, 4 * MEMORY)
        assert truth.state() == (None, "")
    assert [record.message for record in caplog.records] == [WRONG, WRONG, AGAIN]


def test_prompts_that_are_new_do_not_hide_a_mismatch() -> None:
    truth = Truth()
    for _ in range(ENOUGH):
        truth.answer(0, 0, 50)
        truth.answer(600, 0, 1)
    assert truth.state()[0] is CacheMismatch.NO_HITS


@pytest.mark.parametrize(
    ("mismatch", "elsewhere", "cause"),
    [
        pytest.param((600, 0), (600, 600), "cache disabled: this server", id="only here"),
        pytest.param((600, 0), (600, 0), "cache disabled: no server", id="everywhere"),
        pytest.param((600, 0), None, "cache disabled: no server", id="others are not known"),
        pytest.param((None, 600), (600, 600), "wrong topic or lost events", id="unforeseen only here"),
        pytest.param((None, 600), (None, 600), "hash seed or algorithm", id="unforeseen everywhere"),
        pytest.param((900, 400), (600, 600), "lost events, or a smaller cache", id="forgotten only here"),
        pytest.param((300, 800), (600, 600), "lost events: a part", id="a part only here"),
        pytest.param((300, 800), (300, 800), "block size or lost events", id="a part everywhere"),
    ],
)
def test_the_likely_cause(mismatch: tuple[int | None, int], elsewhere: tuple[int | None, int] | None, cause: str) -> None:
    truth = Truth(engine_block_tokens=0)
    if elsewhere is not None:
        truth.answer(*elsewhere, endpoint=B)
        truth.answer(*elsewhere, endpoint=C)
    truth.answer(*mismatch)
    assert truth.state()[1].startswith(cause)


def test_chats_alone_point_at_the_template() -> None:
    truth = Truth()
    truth.answer(600, 600)
    truth.answer(600, 0, chats=True)
    assert truth.state() == (CacheMismatch.NO_HITS, truth.state()[1])
    assert truth.state()[1].startswith("chat template")
    other = Truth()
    other.answer(600, 0, chats=True)
    assert not other.state()[1].startswith("chat template"), "nothing is known of other prompts"


@pytest.mark.parametrize(("index", "engine", "named"), [(10, 64, True), (10, 20, False), (10, 10, False), (10, 0, False)])
def test_another_block_size_is_named(index: int, engine: int, named: bool) -> None:
    truth = Truth(engine_block_tokens=engine)
    truth.answer(600, 0, block=index)
    assert truth.state()[1].startswith("block size") == named


@pytest.mark.parametrize("fails", [False, True])
def test_a_producer_may_know_more(fails: bool, caplog: pytest.LogCaptureFixture) -> None:
    producer = Explains(fails=fails)
    truth = Truth(producer)
    truth.answer(900, 400, 60)
    assert producer.asked == [(A.id, CacheMismatch.TOO_MANY)], "asked once"
    assert (truth.state()[1] == "a gap in the events") == (not fails)
    assert truth.state()[1]
    assert ("cannot explain" in caplog.text) == fails


def test_metrics() -> None:
    truth = Truth()
    truth.answer(600, 500, ENOUGH)
    truth.answer(600, 0, 4 * MEMORY)
    labels = {"endpoint_name": "a", "namespace": "default", "plugin_name": "p"}
    count = ENOUGH + 4 * MEMORY
    assert value(truth.metrics, "llm_d_epp_prefix_cache_predicted_tokens_total", **labels) == 600 * count
    assert value(truth.metrics, "llm_d_epp_prefix_cache_reported_tokens_total", **labels) == 500 * ENOUGH
    assert value(truth.metrics, "llm_d_epp_prefix_cache_mismatch", **labels) == 1
    assert value(truth.metrics, "llm_d_epp_prefix_cache_prediction_error_ratio_count", plugin_name="p") == count
    assert value(truth.metrics, "llm_d_epp_prefix_cache_prediction_error_ratio_sum", plugin_name="p") == pytest.approx(
        0.1 * ENOUGH + 0.6 * 4 * MEMORY
    )


def test_nothing_is_kept_of_endpoints_that_left() -> None:
    truth = Truth()
    truth.answer(600, 0)
    truth.truth.endpoints_changed(EndpointChange(removed=(A,)))
    truth.answer(600, 0)
    assert truth.truth.page(A.id) == []
    truth.truth.endpoints_changed(EndpointChange(added=(A,)))
    truth.answer(600, 600, 1)
    assert truth.state() == (None, ""), "it begins anew"


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 1000), st.booleans()), max_size=80))
def test_a_report_within_the_range_is_never_wrong(answers: list[tuple[int, int, bool]]) -> None:
    truth = Truth()
    for blocks, surplus, is_chat in answers:
        match = PrefixMatch(blocks, 100, 10)
        reported = 10 * blocks if blocks < 100 else max(1000 - surplus, 1000)
        truth.truth.observe("p", A, match, Usage(1000, 1, 1001, reported), is_chat=is_chat)
    assert all(shown["mismatch"] is None for shown in truth.truth.page(A.id))
