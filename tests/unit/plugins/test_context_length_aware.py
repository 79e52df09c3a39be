"""context-length-aware: scores by range, filtering, and how the length of a prompt is found."""

from __future__ import annotations

from typing import Any

import pytest

from epp.framework.keys import TOKENIZED_PROMPT, TokenizedPrompt
from epp.framework.testing import make_candidates, make_plugin, make_request
from epp.framework.types import Api, InferenceRequest
from plugins.scorers import context_length_aware
from plugins.scorers.context_length_aware import HEIMDALL_LABEL, LLM_D_LABEL


def request_of(tokens: int) -> InferenceRequest:
    """A prompt that was tokenized to this length, or is empty."""
    request = make_request(document={"prompt": ""})
    if tokens:
        request.data.set(TOKENIZED_PROMPT, TokenizedPrompt((7,) * tokens, is_exact=True))
    return request


def score(request: InferenceRequest, *ranges: str | None, label: str = HEIMDALL_LABEL, **parameters: Any) -> list[float]:
    labels = [{} if text is None else {label: text} for text in ranges]
    candidates = make_candidates(len(ranges), labels)
    return list(make_plugin(context_length_aware.PLUGIN, parameters).score(request, candidates))


@pytest.mark.parametrize(
    ("tokens", "text", "expected"),
    [
        pytest.param(1000, "0-2048", 0.814167, id="C32 0-2048"),
        pytest.param(1000, "0-8192", 0.753714, id="C32 0-8192"),
        (5000, "2048-8192", 0.712620),
        pytest.param(9000, "2048-8192", 0.165929, id="C33 2048-8192"),
        pytest.param(9000, "0-2048", 0.037726, id="C33 0-2048"),
        (100, "2048-8192", 0.101764),
        (2048, "0-2048", 0.706707),
        (2048, "2048-8192", 0.813518),
        (0, "0-2048", 0.916707),
        (100_000, "0-131072", 0.384517),
        pytest.param(500, "500-500", 1.0, id="C36 one length"),
        (1000, "0-1000", 0.745455),
        pytest.param(9000, "0-2048_8192-16384", 0.758636, id="C34 in one of two"),
        pytest.param(3000, "0-2048_8192-16384", 0.153689, id="C34 between two"),
        (9000, "0-2048,8192-16384", 0.758636),
        (1000, " 0 - 2048 ", 0.814167),
    ],
)
def test_score(tokens: int, text: str, expected: float) -> None:
    assert score(request_of(tokens), text) == pytest.approx([expected], abs=1e-6)


@pytest.mark.parametrize("text", ["abc", "5-2", "1-2-3", "-5-10", "", "0-", "0-10_x", "1.5-2", "0-10__20-30"])
def test_a_label_that_cannot_be_read_scores_0(text: str) -> None:
    assert score(request_of(1), text) == [0.0], "C32: no range; C36: the wrong way round"


def test_an_endpoint_without_the_label_is_neutral_and_beats_a_wide_range() -> None:
    assert score(request_of(100_000), None, "0-131072") == pytest.approx([0.5, 0.384517], abs=1e-6)


def test_several_endpoints_are_judged_alone() -> None:
    found = score(request_of(1000), "0-2048", "0-8192", None, "abc", "0-2048")
    assert found == pytest.approx([0.814167, 0.753714, 0.5, 0.0, 0.814167], abs=1e-6)


def test_no_candidates() -> None:
    assert score(request_of(1)) == []


@pytest.mark.parametrize(
    ("document", "api", "tokens"),
    [
        pytest.param({"prompt": "x" * 4001}, Api.COMPLETIONS, 1000, id="C35 a quarter of the bytes"),
        pytest.param({"messages": [{"content": "x" * 2000}, {"content": "x" * 2000}]}, Api.CHAT, 1000, id="all messages"),
        pytest.param({"messages": [{"content": [{"type": "text", "text": "x" * 3999}]}]}, Api.CHAT, 1000, id="text blocks"),
        pytest.param({}, Api.RAW, 0, id="a body that was not read"),
    ],
)
def test_a_prompt_that_nobody_tokenized_is_estimated(document: dict[str, object], api: Api, tokens: int) -> None:
    request = make_request(document=document, api=api)
    assert score(request, "0-1000") == pytest.approx(score(request_of(tokens), "0-1000"))


def test_both_usual_labels_are_read_and_heimdalls_wins() -> None:
    assert score(request_of(500), "500-500", label=LLM_D_LABEL) == [1.0]
    candidates = make_candidates(1, [{HEIMDALL_LABEL: "500-500", LLM_D_LABEL: "junk"}])
    assert list(make_plugin(context_length_aware.PLUGIN).score(request_of(500), candidates)) == [1.0]


@pytest.mark.parametrize("name", [HEIMDALL_LABEL, "my/range"])
def test_a_given_label_is_the_only_one(name: str) -> None:
    plugin = make_plugin(context_length_aware.PLUGIN, {"label": name})
    candidates = make_candidates(2, [{name: "500-500"}, {LLM_D_LABEL: "500-500"}])
    assert list(plugin.score(request_of(500), candidates)) == [1.0, 0.5]


@pytest.mark.parametrize(
    ("tokens", "ranges", "kept"),
    [
        pytest.param(2048, ["0-2048", "2048-4096", "2049-4096"], [0, 1], id="F12 both ends belong to a range"),
        pytest.param(5, ["junk", None], [1], id="F13 unreadable is dropped, unlabelled is kept"),
        pytest.param(3000, ["0-2048_2900-3100", "0-2048"], [0], id="any of several ranges"),
        pytest.param(9000, ["0-2048", "2048-4096"], [], id="none left"),
    ],
)
def test_filter(tokens: int, ranges: list[str | None], kept: list[int]) -> None:
    candidates = make_candidates(len(ranges), [{} if text is None else {HEIMDALL_LABEL: text} for text in ranges])
    plugin = make_plugin(context_length_aware.PLUGIN, {"enableFiltering": True})
    assert list(plugin.filter(request_of(tokens), candidates)) == [candidates[position] for position in kept]


def test_nothing_is_filtered_unless_asked_for() -> None:
    candidates = make_candidates(1, [{HEIMDALL_LABEL: "junk"}])
    assert make_plugin(context_length_aware.PLUGIN).filter(request_of(1), candidates) is candidates
