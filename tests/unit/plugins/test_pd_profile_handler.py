"""pd-profile-handler: both generations of its decision, what runs, headers, ports, and what is counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from epp.errors import SchedulingError
from epp.framework.testing import make_context, make_plugin, make_request
from epp.framework.types import Api, InferenceRequest
from plugins.deciders import prefix_based
from plugins.profile_handlers import pd
from tests.unit.plugins.disaggregated import Says, Stage, cycle, endpoints, handler_context, matched

DECODE, PREFILL = Stage("decode", "a"), Stage("prefill", "bc")
DECISION = ("llm_d_epp_pd_decision_total", "pd-profile-handler", "pd-profile-handler", "t")
NO_PREFILL = {"mif-prefill-endpoint", "x-prefiller-host-port", "mif-encode-endpoints", "x-encoder-hosts-ports"}


def prompt(size: int) -> InferenceRequest:
    return make_request(document={"prompt": "x" * size}, target_model="t")


def test_h1_without_any_parameter_every_request_is_prefilled_elsewhere() -> None:
    run = cycle(pd.PLUGIN, None, DECODE, PREFILL, request=make_request(document={"prompt": ""}, target_model="t"))
    assert run.order == ["decode", "prefill"]
    assert run.picked() == {"decode": ["a"], "prefill": ["b"]}
    assert run.result.target.name == "a"
    assert run.metrics.counts == {(*DECISION, "prefill-decode"): 1}
    assert run.edits.values == {"mif-prefill-endpoint": "192.168.1.2:8000", "x-prefiller-host-port": "192.168.1.2:8000"}


def test_prefix_103_a_threshold_of_0_prefills_even_what_is_cached() -> None:
    request = prompt(640)
    matched(request, {"a": 10})
    assert cycle(pd.PLUGIN, {"threshold": 0}, DECODE, PREFILL, request=request).order == ["decode", "prefill"]


@pytest.mark.parametrize(
    ("size", "threshold", "blocks", "prefills"),
    [
        pytest.param(4096, 1000, 33, True, id="H2, prefix 104: 1984 bytes are not cached"),
        pytest.param(4096, 1000, 60, False, id="H3, prefix 104: 256 bytes are not cached"),
        pytest.param(4096, 5000, 0, False, id="H4: the prompt is shorter than the threshold"),
        pytest.param(4096, 1000, None, True, id="prefix 105: no match, long prompt"),
        pytest.param(900, 1000, None, False, id="prefix 105: no match, short prompt"),
        pytest.param(0, 1, None, False, id="an empty prompt"),
        pytest.param(1000, 1000, 0, True, id="exactly the threshold"),
        pytest.param(640, 1, 10, False, id="all is cached"),
        pytest.param(640, 1, 99, False, id="the match is longer than the prompt"),
    ],
)
def test_decision_by_bytes(size: int, threshold: int, blocks: int | None, prefills: bool) -> None:
    request = prompt(size)
    if blocks is not None:
        matched(request, {"a": blocks, "b": 99})
    run = cycle(pd.PLUGIN, {"threshold": threshold, "hashBlockSize": 64}, DECODE, PREFILL, request=request)
    assert run.order == (["decode", "prefill"] if prefills else ["decode"])
    assert run.decisions == ["prefill-decode" if prefills else "decode-only"]


@pytest.mark.parametrize(
    ("block_size_tokens", "prefills"), [(0, False), (16, False), (8, True)], ids=["unknown", "16 tokens", "8 tokens"]
)
def test_the_block_size_of_the_match_wins_over_the_parameter(block_size_tokens: int, prefills: bool) -> None:
    request = prompt(4096)
    matched(request, {"a": 60}, block_size_tokens=block_size_tokens)
    run = cycle(pd.PLUGIN, {"threshold": 1000, "hashBlockSize": 64}, DECODE, PREFILL, request=request)
    assert run.order == (["decode", "prefill"] if prefills else ["decode"])


NESTED: list[Any] = json.loads("[" * 900 + "]" * 900)


@pytest.mark.parametrize(
    ("api", "document", "size"),
    [
        pytest.param(Api.COMPLETIONS, {"prompt": "häuser"}, 7, id="a text, in UTF-8"),
        pytest.param(Api.COMPLETIONS, {"prompt": ["ab", "c"]}, 4, id="texts, joined by a blank"),
        pytest.param(Api.COMPLETIONS, {"prompt": [1, 22]}, len("[1,22]"), id="token ids, as JSON"),
        pytest.param(Api.CHAT, {"messages": [{"role": "user"}]}, len('[{"role":"user"}]'), id="messages, as JSON"),
        pytest.param(Api.RESPONSES, {"input": "abc"}, 3, id="a text as input"),
        pytest.param(Api.RESPONSES, {"input": [{}]}, len("[{}]"), id="items as input"),
        pytest.param(Api.RAW, {}, 77, id="a body that nobody read"),
        pytest.param(Api.CHAT, {"messages": [{"x": NESTED}]}, 77, id="deeper than JSON is written"),
    ],
)
def test_length_of_prompts(api: Api, document: dict[str, Any], size: int) -> None:
    request = make_request(api=api, document=document or None)
    request.size_bytes = 77
    assert pd.prompt_bytes(request) == size


def test_h5_the_primary_port() -> None:
    candidates = endpoints(("10.0.0.5", 8000), ("fd00::5", 8001), ("10.0.0.7", 8000))
    stages = (Stage("decode", "ab", count=2), Stage("prefill", "c"))
    run = cycle(pd.PLUGIN, {"primaryPort": 8200}, *stages, candidates=candidates)
    assert run.edits.values["x-data-parallel-host-port"] == "10.0.0.5:8000"
    assert [e.host_port for e in run.result.targets] == ["10.0.0.5:8200", "[fd00::5]:8200"]
    assert [e.host_port for e in candidates] == ["10.0.0.5:8000", "[fd00::5]:8001", "10.0.0.7:8000"], "as they were"
    assert [e.id for e in run.result.targets] == [e.id for e in candidates][:2]
    assert run.edits.values["x-prefiller-host-port"] == "10.0.0.7:8000", "prefill is not behind that port"


def test_prefix_115_the_rank_is_named_in_the_header() -> None:
    candidates = endpoints(("10.0.0.1", 8003))
    run = cycle(pd.PLUGIN, {"primaryPort": 8000}, Stage("decode", "a"), PREFILL, candidates=candidates)
    assert run.edits.values == {"x-data-parallel-host-port": "10.0.0.1:8003"}
    assert run.result.target.host_port == "10.0.0.1:8000"
    assert candidates[0].host_port == "10.0.0.1:8003"


def test_without_a_primary_port_the_header_is_not_written() -> None:
    run = cycle(pd.PLUGIN, {"primaryPort": 0}, DECODE, PREFILL)
    assert "x-data-parallel-host-port" not in run.edits.values
    assert run.result.target.port == 8000


GENERATIONS = [
    pytest.param({}, True, "decider", id="H6: a plugin of the default name is declared"),
    pytest.param({}, False, "always", id="nothing is declared"),
    pytest.param({"threshold": 0}, True, "always", id="a threshold wins over the default name"),
    pytest.param({"hashBlockSize": 64}, True, "always", id="a block size wins over the default name"),
    pytest.param({"deciderPluginName": "prefix-based-pd-decider"}, True, "decider", id="a decider is named"),
    pytest.param({"deciderPluginName": "prefix-based-pd-decider", "threshold": 0}, True, "decider", id="with threshold 0"),
    pytest.param(
        {"deciderPluginName": "prefix-based-pd-decider", "hashBlockSize": 32}, True, "decider", id="with a block size"
    ),
    pytest.param({"deciderPluginName": ""}, True, "always", id="an empty name: no decider"),
]


@pytest.mark.parametrize(("parameters", "is_declared", "mode"), GENERATIONS)
def test_which_generation_decides(parameters: dict[str, Any], is_declared: bool, mode: str) -> None:
    decider = Says(False)
    plugins = {"prefix-based-pd-decider": decider} if is_declared else {}
    run = cycle(pd.PLUGIN, parameters, DECODE, PREFILL, context=handler_context(pd.PLUGIN, **plugins))
    assert run.order == (["decode"] if mode == "decider" else ["decode", "prefill"])
    assert decider.asked == (["a"] if mode == "decider" else [])


def test_h6_the_decider_s_own_default_is_never() -> None:
    decider = make_plugin(prefix_based.PLUGIN)
    context = handler_context(pd.PLUGIN, **{"prefix-based-pd-decider": decider})
    run = cycle(pd.PLUGIN, {}, DECODE, PREFILL, request=prompt(10_000), context=context)
    assert (run.order, run.decisions, run.edits.removed) == (["decode"], ["decode-only"], NO_PREFILL)


def test_a_decider_and_a_threshold_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="exclude each other"):
        pd.PLUGIN.params.decode({"deciderPluginName": "d", "threshold": 1})


def test_s16_prefix_114_a_prefill_that_finds_nobody_is_no_error() -> None:
    run = cycle(pd.PLUGIN, None, DECODE, Stage("prefill", ""))
    assert run.order == ["decode", "prefill"]
    assert (run.picked(), run.decisions) == ({"decode": ["a"]}, ["decode-only"])
    assert (run.edits.values, run.edits.removed) == ({}, NO_PREFILL)


def test_s17_without_a_decode_endpoint_the_request_fails() -> None:
    context = handler_context(pd.PLUGIN)
    with pytest.raises(SchedulingError, match=r"^failed to find available decode workers"):
        cycle(pd.PLUGIN, None, Stage("decode", ""), PREFILL, context=context)
    assert context.metrics.counts == {}  # type: ignore[attr-defined]


def test_s18_a_third_profile_never_runs() -> None:
    assert cycle(pd.PLUGIN, None, Stage("other", "a"), DECODE, PREFILL).order == ["decode", "prefill"]


def test_h18_a_prefill_on_the_decode_endpoint_is_none() -> None:
    run = cycle(pd.PLUGIN, None, DECODE, Stage("prefill", "a"))
    assert (run.picked(), run.decisions, run.edits.values) == ({"decode": ["a"]}, ["decode-only"], {})


def test_other_names_of_profiles() -> None:
    run = cycle(pd.PLUGIN, {"decodeProfile": "d", "prefillProfile": "p"}, Stage("d", "a"), Stage("p", "b"))
    assert (run.result.primary, run.result.prefill, run.order) == ("d", "p", ["d", "p"])
    assert run.decisions == ["prefill-decode"]


def test_without_a_prefill_profile_only_decode_runs() -> None:
    assert cycle(pd.PLUGIN, None, DECODE).order == ["decode"]


def test_one_profile_cannot_be_both() -> None:
    with pytest.raises(ValueError, match="both 'x'"):
        make_plugin(pd.PLUGIN, {"decodeProfile": "x", "prefillProfile": "x"})


def test_a_headers_handler_writes_the_headers_instead() -> None:
    context = handler_context(pd.PLUGIN, declared={"headers": "disagg-headers-handler"})
    run = cycle(pd.PLUGIN, None, DECODE, PREFILL, context=context)
    assert (run.edits.values, run.edits.removed) == ({}, set())


def test_requests_without_a_model_are_counted_as_unknown() -> None:
    run = cycle(pd.PLUGIN, None, DECODE, PREFILL, request=make_request(target_model=""))
    assert [key[3] for key in run.metrics.counts] == ["unknown"]


PREFIX_PLUGINS = [
    pytest.param({}, {"prefix-cache-scorer": "prefix-cache-scorer"}, "prefix-cache-scorer", id="the default name"),
    pytest.param({}, {"mine": "prefix-cache-scorer"}, "mine", id="the default type under another name"),
    pytest.param({"prefixPluginName": "p"}, {"p": "x", "prefix-cache-scorer": "prefix-cache-scorer"}, "p", id="by name"),
    pytest.param({"prefixPluginType": "x"}, {"p": "x", "prefix-cache-scorer": "prefix-cache-scorer"}, "p", id="by type"),
    pytest.param({"prefixMatchInfoProducerName": "p"}, {"p": "x"}, "p", id="by the newer parameter"),
    pytest.param({}, {"precise": "precise-prefix-cache-scorer"}, "precise", id="whoever writes it"),
]


@pytest.mark.parametrize(("parameters", "declared", "producer"), PREFIX_PLUGINS)
def test_whose_match_is_read(parameters: dict[str, Any], declared: dict[str, str], producer: str) -> None:
    context = handler_context(pd.PLUGIN, declared=declared)
    context.writers = {"PrefixCacheMatchInfo": "precise"} if "precise" in declared else {}
    request = prompt(640)
    matched(request, {"a": 10}, producer=producer)
    run = cycle(pd.PLUGIN, {"threshold": 1, **parameters}, DECODE, PREFILL, request=request, context=context)
    assert run.order == ["decode"], "all of it is cached"
    assert context.warnings == []


def test_a_threshold_without_any_prefix_plugin_is_warned_about() -> None:
    context = make_context()
    make_plugin(pd.PLUGIN, {"threshold": 10}, context)
    ((parameter, sentence),) = context.warnings
    assert parameter == "threshold"
    assert "no plugin says what is cached" in sentence
