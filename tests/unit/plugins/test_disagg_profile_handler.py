"""disagg-profile-handler: stages in both orders, deciders, headers, decisions."""

from __future__ import annotations

from typing import Any

import pytest

from epp.errors import SchedulingError
from epp.framework.keys import PEER_ENDPOINT
from epp.framework.testing import make_plugin
from plugins.profile_handlers import disagg
from tests.unit.plugins.disaggregated import Run, Says, Stage, cycle, handler_context

DECODE, PREFILL, ENCODE = Stage("decode", "a"), Stage("prefill", "bc", count=2), Stage("encode", "de", count=2)
ALL = (DECODE, PREFILL, ENCODE)
PREFILL_FIRST = {"stageOrder": "prefill-first"}


def run(*stages: Stage, encode: Says | None = None, prefill: Says | None = None, **parameters: Any) -> Run:
    """A cycle with these deciders."""
    deciders = {name: decider for name, decider in (("encode", encode), ("prefill", prefill)) if decider is not None}
    context = handler_context(disagg.PLUGIN, **{f"{name}-decider": decider for name, decider in deciders.items()})
    nested = {"deciders": {name: f"{name}-decider" for name in deciders}} if deciders else {}
    return cycle(disagg.PLUGIN, {**nested, **parameters}, *stages, context=context)


def test_h12_all_stages() -> None:
    encode, prefill = Says(True), Says(True)
    done = run(*ALL, encode=encode, prefill=prefill)
    assert done.order == ["decode", "encode", "prefill"]
    assert list(done.result.profiles) == ["decode", "encode", "prefill"]
    assert (encode.asked, prefill.asked) == (["a"], ["a"])
    name = "disagg-profile-handler"
    assert done.metrics.counts == {("llm_d_epp_disagg_decision_total", name, name, "t", "encode-prefill-decode"): 1}
    assert done.edits.values == {
        "mif-prefill-endpoint": "192.168.1.2:8000",
        "x-prefiller-host-port": "192.168.1.2:8000",
        "mif-encode-endpoints": "192.168.1.4:8000,192.168.1.5:8000",
        "x-encoder-hosts-ports": "192.168.1.4:8000,192.168.1.5:8000",
    }


def test_h13_an_encode_stage_that_fails_is_left_out() -> None:
    done = run(DECODE, PREFILL, Stage("encode", ""), encode=Says(True), prefill=Says(True))
    assert done.order == ["decode", "encode", "prefill"]
    assert (done.picked(), done.decisions) == ({"decode": ["a"], "prefill": ["b", "c"]}, ["prefill-decode"])
    assert {"mif-encode-endpoints", "x-encoder-hosts-ports"} <= done.edits.removed


@pytest.mark.parametrize(
    ("encode", "prefill", "order", "decision"),
    [
        (None, None, ["decode"], "decode-only"),
        (False, False, ["decode"], "decode-only"),
        (True, None, ["decode", "encode"], "encode-decode"),
        (True, False, ["decode", "encode"], "encode-decode"),
        (None, True, ["decode", "prefill"], "prefill-decode"),
        (False, True, ["decode", "prefill"], "prefill-decode"),
    ],
)
def test_decisions(encode: bool | None, prefill: bool | None, order: list[str], decision: str) -> None:
    deciders = {name: Says(answer) for name, answer in (("encode", encode), ("prefill", prefill)) if answer is not None}
    done = run(*ALL, **deciders)
    assert (done.order, done.decisions) == (order, [decision])
    assert all(decider.asked == ["a"] for decider in deciders.values()), "once each"


def test_a_stage_without_its_profile_never_runs() -> None:
    encode, prefill = Says(True), Says(True)
    done = run(DECODE, encode=encode, prefill=prefill)
    assert (done.order, encode.asked, prefill.asked) == (["decode"], [], [])


def test_h14_prefill_first() -> None:
    encode = Says(True)
    done = run(*ALL, encode=encode, **PREFILL_FIRST)
    assert done.order == ["prefill", "encode", "decode"]
    assert encode.asked == [None], "no endpoint is chosen yet"
    assert done.peers == {"decode": "b"}
    assert done.decisions == ["encode-prefill-decode"]


def test_decode_first_publishes_the_decode_endpoint() -> None:
    assert run(*ALL, prefill=Says(True)).peers == {"prefill": "a"}
    assert run(*ALL, prefill=Says(False)).peers == {}


@pytest.mark.parametrize("order", [{"prefill": Says(True)}, PREFILL_FIRST], ids=["decode first", "prefill first"])
def test_scheduling_writes_nothing_to_the_request(order: dict[str, Any]) -> None:
    assert run(*ALL, **order).request.data.get(PEER_ENDPOINT) is None


@pytest.mark.parametrize("prefill", [Stage("prefill", ""), None], ids=["it fails", "there is no profile"])
def test_prefill_first_without_a_prefill_still_decodes(prefill: Stage | None) -> None:
    done = run(*[stage for stage in (DECODE, prefill) if stage is not None], **PREFILL_FIRST)
    assert done.order[-1] == "decode"
    assert (done.picked(), done.decisions) == ({"decode": ["a"]}, ["decode-only"])
    assert done.peers == {}


@pytest.mark.parametrize("order", ["decode-first", "prefill-first"])
def test_without_a_decode_endpoint_the_request_fails(order: str) -> None:
    context = handler_context(disagg.PLUGIN)
    with pytest.raises(SchedulingError, match=r"^failed to find available decode workers"):
        cycle(disagg.PLUGIN, {"stageOrder": order}, Stage("decode", ""), PREFILL, context=context)
    assert context.metrics.counts == {}  # type: ignore[attr-defined]


def test_decode_failing_asks_no_decider() -> None:
    prefill = Says(True)
    with pytest.raises(SchedulingError):
        run(Stage("decode", ""), PREFILL, prefill=prefill)
    assert prefill.asked == []


def test_without_the_decode_profile_nothing_runs() -> None:
    with pytest.raises(SchedulingError, match="failed to run any scheduler profile"):
        run(Stage("other", "a"))


@pytest.mark.parametrize("first", [{}, PREFILL_FIRST], ids=["decode first", "prefill first"])
def test_prefix_113_prefill_on_the_decode_endpoint_counts_as_decode_only(first: dict[str, str]) -> None:
    done = run(DECODE, Stage("prefill", "a"), prefill=None if first else Says(True), **first)
    assert (done.picked(), done.decisions) == ({"decode": ["a"]}, ["decode-only"])
    assert "x-prefiller-host-port" in done.edits.removed


@pytest.mark.parametrize(
    "parameters",
    [
        {"profiles": {"decode": "d", "prefill": "p"}, "deciders": {"prefill": "x"}},
        {"decodeProfile": "d", "prefillProfile": "p", "prefillDeciderPluginName": "x"},
        {"decodeProfile": "d", "prefillProfile": "p", "deciderPluginName": "x"},
        {"decodeProfile": "d", "prefillProfile": "p", "deciderPluginName": "y", "prefillDeciderPluginName": "x"},
    ],
    ids=["nested", "flat", "oldest", "oldest beside flat"],
)
def test_forms_of_the_parameters(parameters: dict[str, Any]) -> None:
    context = handler_context(disagg.PLUGIN, x=Says(True), y=Says(False))
    done = cycle(disagg.PLUGIN, parameters, Stage("d", "a"), Stage("p", "b"), context=context)
    assert (done.order, done.result.primary, done.result.prefill) == (["d", "p"], "d", "p")


def test_the_flat_form_of_encode() -> None:
    parameters = {"encodeProfile": "e", "encodeDeciderPluginName": "x"}
    context = handler_context(disagg.PLUGIN, x=Says(True))
    done = cycle(disagg.PLUGIN, parameters, DECODE, Stage("e", "b"), context=context)
    assert (done.order, done.result.encode, done.decisions) == (["decode", "e"], "e", ["encode-decode"])


@pytest.mark.parametrize("order", ["", "decode", "Decode_First", "decodefirst"])
def test_spellings_of_decode_first(order: str) -> None:
    assert run(*ALL, stageOrder=order).order == ["decode"]


@pytest.mark.parametrize("order", ["prefill", "PREFILL-FIRST", "prefillfirst"])
def test_spellings_of_prefill_first(order: str) -> None:
    assert run(*ALL, stageOrder=order).order == ["prefill", "decode"]


def test_empty_names_are_the_defaults() -> None:
    parameters = {"profiles": {"decode": "", "prefill": "", "encode": ""}}
    assert cycle(disagg.PLUGIN, parameters, *ALL).order == ["decode"]


def test_a_headers_handler_writes_the_headers_instead() -> None:
    context = handler_context(disagg.PLUGIN, declared={"headers": "disagg-headers-handler"}, x=Says(True))
    done = cycle(disagg.PLUGIN, {"deciders": {"prefill": "x"}}, *ALL, context=context)
    assert (done.edits.values, done.edits.removed) == ({}, set())


def test_stages_need_profiles_of_their_own() -> None:
    with pytest.raises(ValueError, match="a profile of its own"):
        make_plugin(disagg.PLUGIN, {"profiles": {"decode": "x", "prefill": "x"}})


def test_without_its_decode_profile_it_is_refused() -> None:
    with pytest.raises(ValueError, match="no profile 'decode'"):
        make_plugin(disagg.PLUGIN, None, handler_context(disagg.PLUGIN, profiles=("prefill",)))
