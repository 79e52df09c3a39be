"""Spellings of earlier releases, development lines and published samples: types, sections, gates, whole documents."""

from __future__ import annotations

import pytest

from epp.config.effective import to_yaml
from plugins.former import FORMER
from tests.config.corpus import registry
from tests.config.older import HEADER, LLM_D_V1, QUEUE, document, loaded, said

# ── type names ──

SAME = [name for name, was in FORMER.items() if not was.advice]
REPLACED = [name for name, was in FORMER.items() if was.advice]


@pytest.mark.parametrize("name", SAME)
def test_a_former_type_name_is_the_type_of_today(name: str) -> None:
    text = document(f"{{type: {name}, name: it, parameters: {PARAMETERS.get(FORMER[name].successor, '{}')}}}", QUEUE)
    found = said(text)
    assert [code for code, _ in found] == ["WRN004"]
    assert f"{name} is an older name of {FORMER[name].successor}; write {FORMER[name].successor}" in found[0][1]
    assert loaded(text).plugin("it").type.type == FORMER[name].successor


PARAMETERS = {
    "disaggregatedset-rollout-screener": "{scope: {labelSelector: a=b}, revisionGating: {mode: disabled}}",
    "header-profile-handler": "{defaultProfile: default}",
}
"""Of types that need some."""


@pytest.mark.parametrize("name", REPLACED)
def test_a_type_that_was_replaced_leads_to_its_successor(name: str) -> None:
    codes = [code for code, _ in said(document(f"{{type: {name}, name: it}}", QUEUE))]
    assert codes == ["CFG052"]
    sentence = said(document(f"{{type: {name}, name: it}}", QUEUE))[0][1]
    assert f"the plugin type {name} of earlier versions became {FORMER[name].successor}" in sentence
    assert FORMER[name].advice in sentence


def test_former_names_lead_to_types_that_exist_and_hide_none() -> None:
    types = {plugin_type.type for plugin_type in registry()}
    names = {name for plugin_type in registry() for name in plugin_type.names}
    assert {was.successor for was in FORMER.values()} <= types
    assert names.isdisjoint(FORMER)


def test_a_former_name_is_never_suggested() -> None:
    assert said(document("{type: kv-cache-scorerr}"))[0][1].endswith('did you mean "prefix-cache-scorer"? (see --list-plugins)')


def test_a_handler_of_an_unknown_type_is_not_also_missing() -> None:
    refs = "plugins: [{pluginRef: queue-scorer}]"
    profiles = f"schedulingProfiles: [{{name: a, {refs}}}, {{name: b, {refs}}}]\n"
    assert [code for code, _ in said(document("{type: ed-profile-handler}", QUEUE, more=profiles))] == ["CFG052"]


# ── the data layer ──

TOKENS = "{type: token-producer, parameters: {modelName: m, vllm: {}}}"
EVENTS = "{type: endpoint-notification-source}"
LISTENERS = [
    "precise-prefix-cache-producer",
    "precise-prefix-cache-scorer",
    "mm-embeddings-cache-producer",
    "inflight-load-producer",
]


@pytest.mark.parametrize("name", LISTENERS)
def test_what_hears_of_endpoints_is_an_extractor_of_their_events(name: str) -> None:
    more = f"dataLayer: {{sources: [{{pluginRef: endpoint-notification-source, extractors: [{{pluginRef: {name}}}]}}]}}\n"
    text = document(EVENTS, TOKENS, f"{{type: {name}}}", QUEUE, more=more)
    assert said(text) == []
    assert ("endpoint-notification-source", (name,)) in [(s.name, s.extractors) for s in loaded(text).sources]


@pytest.mark.parametrize("name", LISTENERS)
def test_it_is_no_extractor_of_another_source(name: str) -> None:
    more = f"dataLayer: {{sources: [{{pluginRef: models-data-source, extractors: [{{pluginRef: {name}}}]}}]}}\n"
    found = said(document("{type: models-data-source}", TOKENS, f"{{type: {name}}}", QUEUE, more=more))
    assert [code for code, _ in found] == ["CFG084"]
    assert "list it as an extractor of a plugin of type endpoint-notification-source" in found[0][1]


FILE = "{type: file-discovery, name: files, parameters: {path: /tmp/endpoints.yaml}}"
SYNCER = "{type: redis-state-store, name: shared}"
NO_EXCHANGE = "has no effect: replicas do not exchange state"
DATA_LAYERS = {
    "llm-d v0.10: discovery.pluginRef": ("discovery: {pluginRef: files}", []),
    "llm-d.ai/v1: discovery.endpoints.pluginRef": ("discovery: {endpoints: {pluginRef: files}}", []),
    "both places of the reference": (
        "discovery: {endpoints: {pluginRef: files}, pluginRef: files}",
        [("WRN007", "endpoints wins")],
    ),
    "llm-d v0.10: crossReplica... fields": (
        (
            "discovery: {pluginRef: files}, crossReplicaSyncerPluginRef: shared, crossReplicaSyncInterval: 500ms, "
            "crossReplicaPublishTimeout: 2s"
        ),
        [("WRN007", NO_EXCHANGE)] * 3,
    ),
    "llm-d.ai/v1: crossReplica": (
        (
            "discovery: {endpoints: {pluginRef: files}}, "
            "crossReplica: {syncerPluginRef: shared, syncInterval: 500ms, publishTimeout: 2s}"
        ),
        [("WRN007", NO_EXCHANGE)],
    ),
}


@pytest.mark.parametrize("header", [HEADER, LLM_D_V1], ids=["v1alpha1", "v1"])
@pytest.mark.parametrize(("section", "expected"), DATA_LAYERS.values(), ids=DATA_LAYERS)
def test_both_spellings_of_the_data_layer_mean_the_same(section: str, expected: list[tuple[str, str]], header: str) -> None:
    text = document(FILE, SYNCER, QUEUE, more=f"dataLayer: {{{section}}}\n", header=header)
    found = said(text)
    assert [code for code, _ in found] == [code for code, _ in expected]
    assert all(words in sentence for (_, words), (_, sentence) in zip(expected, found, strict=True))
    assert loaded(text).discovery == "files"


WRONG_DATA_LAYERS = {
    "discovery without a reference": ("discovery: {}", "CFG086", "pluginRef is missing"),
    "endpoints without a reference": ("discovery: {endpoints: {}}", "CFG086", "pluginRef is missing"),
    "endpoints of another kind": (
        "discovery: {endpoints: {pluginRef: queue-scorer}}",
        "CFG086",
        "is not an endpoint discovery",
    ),
    "peers of another kind": (
        "discovery: {endpoints: {pluginRef: files}, peers: {pluginRef: queue-scorer}}",
        "CFG086",
        "is not a peer discovery",
    ),
    "a syncer that nobody declared": ("crossReplica: {syncerPluginRef: nobody}", "CFG082", 'no plugin is named "nobody"'),
    "a number as interval": ("crossReplica: {syncInterval: 5}", "CFG034", "is not a duration"),
    "llm-d's proposal: interval of a source": (
        "sources: [{pluginRef: models-data-source, interval: 5s}]",
        "CFG031",
        "parameters of a plugin stand in its entry of plugins",
    ),
}


@pytest.mark.parametrize(("section", "code", "words"), WRONG_DATA_LAYERS.values(), ids=WRONG_DATA_LAYERS)
def test_mistakes_in_the_data_layer(section: str, code: str, words: str) -> None:
    text = document(FILE, "{type: models-data-source}", QUEUE, more=f"dataLayer: {{{section}}}\n", header=LLM_D_V1)
    assert any(found == code and words in sentence for found, sentence in said(text))


def test_a_section_at_the_wrong_level_leads_to_its_place() -> None:
    found = said(document(FILE, QUEUE, more="discovery: {pluginRef: files}\n"))
    assert found == [("CFG031", 'unknown field "discovery"; its place is dataLayer.discovery')]


# ── header, gates, parsers ──


@pytest.mark.parametrize(
    ("version", "codes"),
    [
        ("llm-d.ai/v1", []),
        ("llm-d.ai/v1alpha1", []),
        ("config.apix.gateway-api-inference-extension.sigs.k8s.io/v1alpha1", ["WRN001"]),
        ("llm-d.ai/v2", ["CFG021"]),
        ("inference.networking.x-k8s.io/v1", ["CFG021"]),
    ],
)
def test_versions_of_the_document(version: str, codes: list[str]) -> None:
    text = document(QUEUE, header=f"apiVersion: {version}\nkind: EndpointPickerConfig\n")
    assert [code for code, _ in said(text)] == codes


GATES = {
    "llm-d before v0.10: experimentalPlugins": ("experimentalPlugins", "--allow-experimental-plugins"),
    "GIE before v1.5: disableDataLayer": ("disableDataLayer", "injectDefaults: false"),
    "GIE before v1.4: pluggableParser": ("pluggableParser", "parsers can always be chosen"),
}


@pytest.mark.parametrize(("gate", "words"), GATES.values(), ids=GATES)
def test_gates_of_earlier_versions_have_no_effect(gate: str, words: str) -> None:
    found = said(document(QUEUE, more=f"featureGates: [{gate}]\n"))
    assert [code for code, _ in found] == ["WRN008"]
    assert words in found[0][1]


PARSERS = {
    "llm-d v0.8: requestHandler.parser": ("requestHandler: {parser: {pluginRef: vllmhttp-parser}}", ["WRN003"]),
    "GIE v1.5: parser": ("parser: {pluginRef: vllmhttp-parser}", ["WRN003"]),
    "the list wins": (
        "requestHandler: {parser: {pluginRef: openai-parser}, parsers: [{pluginRef: vllmhttp-parser}]}",
        ["WRN003"],
    ),
    "llm-d.ai/v1: propagatePriority": (
        "requestHandler: {propagatePriority: true, parsers: [{pluginRef: vllmhttp-parser}]}",
        ["WRN007"],
    ),
}


@pytest.mark.parametrize(("section", "codes"), PARSERS.values(), ids=PARSERS)
def test_parsers_can_be_named_in_every_place_that_they_had(section: str, codes: list[str]) -> None:
    text = document(QUEUE, more=f"{section}\n")
    assert [code for code, _ in said(text)] == codes
    assert loaded(text).parsers == ("vllmhttp-parser",)


# ── whole documents ──


def test_what_is_written_down_of_an_older_document_loads_to_the_same() -> None:
    sections = "dataLayer: {discovery: {endpoints: {pluginRef: files}}, crossReplica: {syncerPluginRef: shared}}\n"
    prefix = "{type: prefix-cache-scorer, parameters: {hashBlockSize: 64}}"
    first = loaded(document(FILE, SYNCER, "{type: kv-cache-scorer}", prefix, more=sections, header=LLM_D_V1))
    again = loaded(to_yaml(first.effective))
    assert again.effective == first.effective
    assert again.discovery == "files"
