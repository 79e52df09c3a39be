"""Filters by labels: values, selectors, roles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from epp.framework.registry import PluginType
from epp.framework.testing import make_candidates, make_plugin, make_request
from plugins.filters import by_label, by_label_selector, role

Labels = Mapping[str, str]


def kept(plugin_type: PluginType, parameters: Mapping[str, Any], labels: list[Labels]) -> str:
    """Names of the endpoints (a, b, c, ...) that pass."""
    candidates = make_candidates(len(labels), labels)
    return "".join(endpoint.name for endpoint in make_plugin(plugin_type, parameters).filter(make_request(), candidates))


TIERS: list[Labels] = [{"tier": "gold"}, {"tier": "silver"}, {}, {"tier": ""}]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        pytest.param({"label": "tier", "validValues": ["gold"]}, "a", id="F1 one value"),
        pytest.param({"label": "tier", "validValues": ["gold", "silver"]}, "ab", id="several values"),
        pytest.param({"label": "tier", "validValues": ["Gold"]}, "", id="case matters"),
        pytest.param({"label": "tier", "validValues": ["gold"], "allowsNoLabel": True}, "ac", id="F2 or no label"),
        pytest.param({"label": "tier", "allowsNoLabel": True}, "c", id="only those without"),
        pytest.param({"label": "tier", "validValues": [""]}, "cd", id="F3 an absent label reads as empty"),
    ],
)
def test_by_label(parameters: dict[str, Any], expected: str) -> None:
    assert kept(by_label.PLUGIN, parameters, TIERS) == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        pytest.param({}, "Field required", id="no label"),
        pytest.param({"label": "", "validValues": ["a"]}, "at least 1 character", id="empty label"),
        pytest.param({"label": "x"}, "validValues is empty and allowsNoLabel is false", id="nothing would pass"),
        pytest.param({"label": "x", "validValues": [True]}, "valid string", id="a value that is no string"),
    ],
)
def test_by_label_refuses(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_plugin(by_label.PLUGIN, parameters)


def expression(operator: str, *values: str, key: str = "b") -> dict[str, object]:
    return {"key": key, "operator": operator, "values": list(values)}


PODS: list[Labels] = [{"a": "1"}, {"a": "1", "b": "x"}, {"a": "1", "b": "y"}, {"b": "x"}, {"b": ""}, {}]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        pytest.param({}, "abcdef", id="F5 an empty selector matches all"),
        pytest.param({"matchLabels": {"a": "1"}}, "abc", id="label equals"),
        pytest.param({"matchLabels": {"a": "1", "b": "x"}}, "b", id="labels are ANDed"),
        pytest.param({"matchExpressions": [expression("In", "x", "z")]}, "bd", id="In"),
        pytest.param({"matchExpressions": [expression("NotIn", "x")]}, "acef", id="NotIn matches an absent label"),
        pytest.param({"matchExpressions": [expression("Exists")]}, "bcde", id="Exists, also empty"),
        pytest.param({"matchExpressions": [expression("DoesNotExist")]}, "af", id="F6 DoesNotExist"),
        pytest.param({"matchLabels": {"a": "1"}, "matchExpressions": [expression("NotIn", "x")]}, "ac", id="F4 both kinds"),
        pytest.param({"matchExpressions": [expression("Exists"), expression("NotIn", "y")]}, "bde", id="expressions are ANDed"),
    ],
)
def test_by_label_selector(parameters: dict[str, Any], expected: str) -> None:
    assert kept(by_label_selector.PLUGIN, parameters, PODS) == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        pytest.param({"matchExpressions": [expression("Like", "b")]}, "'In', 'NotIn', 'Exists' or", id="operator"),
        pytest.param({"matchExpressions": [expression("Exists", "b")]}, "Exists takes no values", id="Exists with value"),
        pytest.param({"matchExpressions": [expression("DoesNotExist", "b")]}, "takes no values", id="DoesNotExist with value"),
        pytest.param({"matchExpressions": [expression("In")]}, "operator In needs at least one", id="In without values"),
        pytest.param({"matchExpressions": [expression("NotIn")]}, "NotIn needs at least one", id="NotIn without values"),
        pytest.param({"matchLabels": {"a b": "1"}}, "'a b' is not a label key", id="blank in a key"),
        pytest.param({"matchLabels": {"/a": "1"}}, "'/a' is not a label key", id="key with an empty prefix"),
        pytest.param({"matchLabels": {"a": "x" * 64}}, "is not a label value", id="value of 64 characters"),
        pytest.param({"matchLabels": {"a": "-x"}}, "'-x' is not a label value", id="value that begins with a dash"),
    ],
)
def test_by_label_selector_refuses(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_plugin(by_label_selector.PLUGIN, parameters)


@pytest.mark.parametrize("key", ["a", "example.com/tier", "mif.moreh.io/role", "A_b.c-d"])
@pytest.mark.parametrize("value", ["", "x", "x" * 63, "A_b.c-d"])
def test_by_label_selector_accepts_what_kubernetes_does(key: str, value: str) -> None:
    assert kept(by_label_selector.PLUGIN, {"matchLabels": {key: value}}, [{key: value}, {}]) == "a"


HEIMDALL, LLM_D = "mif.moreh.io/role", "llm-d.ai/role"
ROLES = ("prefill", "decode", "encode", "both", "encode-prefill", "prefill-decode", "encode-prefill-decode", "other", "")


@pytest.mark.parametrize(
    ("plugin_type", "label", "expected"),
    [
        pytest.param(
            role.PREFILL_FILTER,
            HEIMDALL,
            {"prefill", "encode-prefill", "prefill-decode", "encode-prefill-decode"},
            id="F7 prefill, Heimdall: not both",
        ),
        pytest.param(
            role.PREFILL_FILTER,
            LLM_D,
            {"prefill", "encode-prefill", "prefill-decode", "encode-prefill-decode", "both"},
            id="F9 prefill, llm-d: also both",
        ),
        pytest.param(
            role.DECODE_FILTER,
            HEIMDALL,
            {"decode", "both", "prefill-decode", "encode-prefill-decode"},
            id="F8 decode, Heimdall",
        ),
        pytest.param(
            role.DECODE_FILTER, LLM_D, {"decode", "both", "prefill-decode", "encode-prefill-decode"}, id="decode, llm-d"
        ),
        pytest.param(
            role.ENCODE_FILTER, HEIMDALL, {"encode", "encode-prefill", "encode-prefill-decode"}, id="F11 encode, Heimdall"
        ),
        pytest.param(role.ENCODE_FILTER, LLM_D, {"encode", "encode-prefill", "encode-prefill-decode"}, id="encode, llm-d"),
    ],
)
def test_roles(plugin_type: PluginType, label: str, expected: set[str]) -> None:
    assert {name for name in ROLES if kept(plugin_type, {}, [{label: name}])} == expected


@pytest.mark.parametrize(
    ("plugin_type", "expected"),
    [
        pytest.param(role.PREFILL_FILTER, "", id="prefill"),
        pytest.param(role.DECODE_FILTER, "a", id="decode"),
        pytest.param(role.ENCODE_FILTER, "", id="encode"),
    ],
)
def test_an_endpoint_without_role_can_only_decode(plugin_type: PluginType, expected: str) -> None:
    assert kept(plugin_type, {}, [{"app": "x"}]) == expected, "F7, F8, F11: prefill, decode and encode without a role"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param({HEIMDALL: "prefill", LLM_D: "decode"}, ["prefill"], id="F10 Heimdall's label wins"),
        pytest.param({HEIMDALL: "", LLM_D: "decode"}, [], id="even if it is empty"),
        pytest.param({LLM_D: "prefill"}, ["prefill"], id="llm-d's label otherwise"),
    ],
)
def test_which_label_decides(labels: Labels, expected: list[str]) -> None:
    filters = {"prefill": role.PREFILL_FILTER, "decode": role.DECODE_FILTER}
    assert [name for name, plugin_type in filters.items() if kept(plugin_type, {}, [labels])] == expected
