"""The loading cases of the plugin specification, L1 to L30, with the real plugin types."""

from __future__ import annotations

from typing import Any

import pytest

from epp.config.loaded import ConfigSource, LoadedConfig
from epp.errors import Severity
from tests.config.corpus import findings, load

HEADER = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n"
QUEUE = "{type: queue-scorer}"


def document(*plugins: str, profiles: str = "") -> str:
    """A document with these plugins in flow style."""
    text = HEADER + f"plugins: [{', '.join(plugins)}]\n"
    return text + (f"schedulingProfiles: [{profiles}]\n" if profiles else "")


def profile(name: str, *refs: str) -> str:
    """A profile in flow style."""
    return f"{{name: {name}, plugins: [{', '.join(f'{{pluginRef: {ref}}}' for ref in refs)}]}}"


def errors(text: str) -> list[tuple[str, str]]:
    """(code, message) of all errors."""
    return [(f.code, f.message) for f in findings(text) if f.severity is Severity.ERROR]


def codes(text: str) -> list[str]:
    """Codes of all errors and warnings."""
    return [f.code for f in findings(text) if f.severity is not Severity.INFO]


def loaded(text: str) -> LoadedConfig:
    """A valid document, completed."""
    return load(text).config


def parameters(text: str, name: str) -> dict[str, Any]:
    """Parameters of one plugin, by their YAML names."""
    return loaded(text).plugin(name).params.model_dump(by_alias=True)


DISAGG = "{type: disagg-profile-handler, parameters: {%s}}"
PREFILL_AND_DECODE = f"{profile('prefill', 'queue-scorer')}, {profile('decode', 'queue-scorer')}"

REFUSED = {
    "L1-duplicate-name": (document(QUEUE, QUEUE), "CFG051", "queue-scorer"),
    "L2-unknown-type": (document("{type: queue-scorerr}"), "CFG052", "queue-scorerr"),
    "L6-two-pickers": (
        document(
            "{type: max-score-picker}", "{type: random-picker}", profiles=profile("p", "max-score-picker", "random-picker")
        ),
        "CFG064",
        '"max-score-picker" and "random-picker"',
    ),
    "L7-no-handler": (document(QUEUE, profiles=PREFILL_AND_DECODE), "CFG066", "no profile handler"),
    "L8-single-handler-with-two-profiles": (
        document("{type: single-profile-handler}", QUEUE, profiles=PREFILL_AND_DECODE),
        "CFG067",
        "works with one profile",
    ),
    "L9-two-handlers": (
        document("{type: single-profile-handler}", "{type: pd-profile-handler}", QUEUE, profiles=PREFILL_AND_DECODE),
        "CFG065",
        '"single-profile-handler" and "pd-profile-handler"',
    ),
    "L10-undeclared-reference": (document(QUEUE, profiles=profile("p", "foo")), "CFG061", '"foo"'),
    "L12-decider-not-found": (
        document(DISAGG % "deciders: {prefill: nope}", QUEUE, profiles=PREFILL_AND_DECODE),
        "CFG057",
        '"nope"',
    ),
    "L13-not-a-decider": (
        document(DISAGG % "deciders: {prefill: queue-scorer}", QUEUE, profiles=PREFILL_AND_DECODE),
        "CFG069",
        "is not a decider, but a scorer",
    ),
    "L14-mixed-forms": (
        document(DISAGG % "profiles: {decode: decode}, prefillProfile: p", QUEUE, profiles=PREFILL_AND_DECODE),
        "CFG070",
        "profiles and prefillProfile",
    ),
    "L16-threshold": (
        document("{type: pd-profile-handler, parameters: {threshold: -1}}", QUEUE, profiles=PREFILL_AND_DECODE),
        "CFG056",
        "threshold must be at least 0, not -1",
    ),
    "L16-hash-block-size": (
        document("{type: pd-profile-handler, parameters: {hashBlockSize: 0}}", QUEUE, profiles=PREFILL_AND_DECODE),
        "CFG056",
        "hashBlockSize must be more than 0, not 0",
    ),
    "L16-primary-port": (
        document("{type: pd-profile-handler, parameters: {primaryPort: 70000}}", QUEUE, profiles=PREFILL_AND_DECODE),
        "CFG056",
        "primaryPort must be at most 65535, not 70000",
    ),
    "L17-by-label": (document("{type: by-label, parameters: {label: x}}"), "CFG056", "allowsNoLabel"),
    "L18-operator": (
        document("{type: by-label-selector, parameters: {matchExpressions: [{key: a, operator: Like, values: [b]}]}}"),
        "CFG056",
        "In, NotIn, Exists, DoesNotExist",
    ),
    "L18-exists-with-value": (
        document("{type: by-label-selector, parameters: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}"),
        "CFG056",
        "Exists",
    ),
    "L18-in-without-values": (
        document("{type: by-label-selector, parameters: {matchExpressions: [{key: a, operator: In}]}}"),
        "CFG056",
        "In",
    ),
    "L19-empty-label": (document('{type: context-length-aware, parameters: {label: ""}}'), "CFG056", "label"),
    "L21-non-cached-tokens": (
        document("{type: prefix-based-pd-decider, parameters: {nonCachedTokens: -1}}"),
        "CFG056",
        "nonCachedTokens must be at least 0, not -1",
    ),
    "L23-misspelt-parameter": (
        document("{type: max-score-picker, parameters: {maxNumOfEndpoint: 2}}"),
        "CFG053",
        '"maxNumOfEndpoint"',
    ),
    "L27-empty-store": (
        document("{type: responses-store, parameters: {storeConfig: {}}}"),
        "CFG056",
        "inMemoryConfig or tieredConfig",
    ),
    "L28-no-redis": (
        document("{type: responses-store, parameters: {storeConfig: {tieredConfig: {}}}}"),
        "CFG056",
        "redis",
    ),
    "L30-no-producer": (
        document(
            "{type: endpoint-attribute-filter, parameters: {attribute: a/b, "
            "algorithm: {type: threshold, threshold: {operator: LessThan, value: 1}}}}"
        ),
        "CFG110",
        "a/b",
    ),
}


@pytest.mark.parametrize(("text", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_is_refused_with_one_error(text: str, code: str, words: str) -> None:
    found = errors(text)
    assert [found_code for found_code, _ in found] == [code]
    assert words in found[0][1]


def test_l28_redis_with_address_and_addresses() -> None:
    store = 'tieredConfig: {redis: {address: "redis://a:1", addresses: ["redis://b:1"]}, mongo: {uri: "mongodb://m"}}'
    found = errors(document(f"{{type: responses-store, parameters: {{storeConfig: {{{store}}}}}}}"))
    assert len(found) == 1
    assert "address" in found[0][1]


def test_l3_without_a_configuration_queue_kv_cache_and_prefix_decide() -> None:
    config = load(ConfigSource.builtin()).config
    (found,) = config.profiles
    scorers = (("queue-scorer", 2.0), ("kv-cache-utilization-scorer", 2.0), ("prefix-cache-scorer", 3.0))
    assert (found.name, found.plugins, found.picker) == ("default", (*scorers, ("max-score-picker", 1.0)), "max-score-picker")
    assert config.plugin("single-profile-handler").type.type == "single-profile-handler"


def test_l4_a_declared_picker_is_enough() -> None:
    config = loaded(document(QUEUE, "{type: weighted-random-picker}"))
    assert config.profiles[0].name == "default"
    assert config.profiles[0].plugins == (("queue-scorer", 1.0), ("weighted-random-picker", 1.0))
    assert "max-score-picker" not in config.added


def test_l5_a_picker_declared_elsewhere_is_taken() -> None:
    text = document(
        QUEUE, "{type: random-picker}", "{type: max-score-picker, name: best}", profiles=profile("p1", "queue-scorer")
    )
    assert loaded(text).profiles[0].picker == "best"


def test_without_max_score_picker_the_first_declared_picker_is_taken() -> None:
    text = document("{type: weighted-random-picker}", "{type: random-picker}", QUEUE, profiles=profile("p1", "queue-scorer"))
    assert loaded(text).profiles[0].picker == "weighted-random-picker"


def test_l11_the_handler_may_come_before_its_decider() -> None:
    handler = DISAGG % "deciders: {prefill: d}"
    config = loaded(document(handler, "{type: always-disagg-pd-decider, name: d}", QUEUE, profiles=PREFILL_AND_DECODE))
    assert config.creation_order.index("d") < config.creation_order.index("disagg-profile-handler")


def test_l15_the_newer_flat_name_wins() -> None:
    handler = DISAGG % "deciderPluginName: x, prefillDeciderPluginName: y"
    deciders = ("{type: always-disagg-pd-decider, name: x}", "{type: prefix-based-pd-decider, name: y}")
    text = document(handler, *deciders, QUEUE, profiles=PREFILL_AND_DECODE)
    assert codes(text) == ["WRN006", "WRN006"]
    assert loaded(text).plugin("disagg-profile-handler").params.prefill_decider == "y"  # type: ignore[attr-defined]


def test_l17_endpoints_without_the_label_are_enough() -> None:
    assert codes(document("{type: by-label, parameters: {label: x, allowsNoLabel: true}}")) == []


def test_l20_a_block_size_in_characters_is_converted() -> None:
    text = document("{type: prefix-cache-scorer, parameters: {blockSize: 64}}")
    assert codes(text) == ["WRN007"]


def test_l22_without_a_model_name_the_precise_scorer_says_that_it_finds_nothing() -> None:
    assert codes(document("{type: precise-prefix-cache-scorer}")) == ["WRN025"]


def test_l24_an_unreadable_timeout_is_replaced() -> None:
    text = document('{type: active-request-scorer, parameters: {requestTimeout: "abc"}}')
    assert codes(text) == ["WRN012"]


def test_l25_a_limit_of_zero_endpoints_is_replaced() -> None:
    assert codes(document("{type: max-score-picker, parameters: {maxNumOfEndpoints: 0}}")) == ["WRN012"]


def test_l26_the_older_name_is_the_same_type() -> None:
    config = loaded(document("{type: prefill-header-handler}", QUEUE))
    assert config.plugin("prefill-header-handler").type.type == "disagg-headers-handler"


def test_l27_without_a_store_responses_stay_in_memory() -> None:
    assert "CFG056" not in codes(document("{type: responses-store}", QUEUE))


def test_l29_an_unreferenced_plugin_is_in_no_profile_but_active() -> None:
    config = loaded(document(QUEUE, "{type: session-affinity-scorer}", profiles=profile("p", "queue-scorer")))
    assert [name for name, _ in config.profiles[0].plugins] == ["queue-scorer", "max-score-picker"]
    assert config.plugin("session-affinity-scorer").active
    assert "INF004" not in [finding.code for finding in config.findings]


def test_the_parser_of_newer_charts_is_the_openai_parser() -> None:
    text = document(QUEUE) + "requestHandler: {parsers: [{pluginRef: responses-store-parser}]}\n"
    config = loaded(text.replace(QUEUE, f"{QUEUE}, {{type: responses-store-parser}}"))
    assert config.plugin("responses-store-parser").type.type == "openai-parser"
    assert [finding.code for finding in config.findings] == ["WRN004"]


def test_the_default_decider_is_a_reference_only_where_it_is_declared() -> None:
    handler = "{type: pd-profile-handler}"
    alone = loaded(document(handler, QUEUE, profiles=PREFILL_AND_DECODE))
    assert alone.plugin("pd-profile-handler").needs == set()
    beside = loaded(document(handler, "{type: prefix-based-pd-decider}", QUEUE, profiles=PREFILL_AND_DECODE))
    assert beside.plugin("pd-profile-handler").needs == {"prefix-based-pd-decider"}
    assert codes(document(handler, QUEUE, profiles=PREFILL_AND_DECODE)) == []
