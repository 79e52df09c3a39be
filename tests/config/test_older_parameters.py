"""Parameters of earlier releases and published samples: what they mean here, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from epp.errors import Severity
from tests.config.corpus import findings
from tests.config.older import QUEUE, document, loaded, said


def parameter(text: str, plugin: str, path: str) -> Any:
    """A parameter by its YAML path."""
    value: Any = loaded(text).plugin(plugin).params.model_dump(by_alias=True)
    for key in path.split("."):
        value = value[key]
    return value


# ── parameters under another name or at another place ──

POOL = "indexerConfig: {tokenizersPoolConfig: {modelName: m, %s}}"
PRECISE = "precise-prefix-cache-scorer"
MEANS = {
    "GIE v0.5 to v1.0: hashBlockSize of prefix-cache-scorer": (
        "prefix-cache-scorer", "hashBlockSize: 64", "blockSize", 64, ["hashBlockSize is an older name of blockSize"],
    ),
    "GIE v1.5: predictInPrepareData of predicted-latency-producer": (
        "predicted-latency-producer", "predictInPrepareData: false", "predictInProduce", False,
        ["predictInPrepareData is an older name of predictInProduce"],
    ),
    "GIE v1.5: affinityMaxTTFTPenaltyMs of predicted-latency-scorer": (
        "predicted-latency-scorer", "affinityMaxTTFTPenaltyMs: 5000", "affinityMaxTTFTPenaltyMs", 5000,
        ["affinityMaxTTFTPenaltyMs has no effect"],
    ),
    "llm-d v0.2: prefix-cache-scorer in mode estimate": (
        "prefix-cache-scorer", "mode: estimate, hashBlockSize: 5", "blockSize", 5,
        ["mode has no effect", "hashBlockSize is an older name"],
    ),
    "llm-d v0.3: tokenizersCacheDir beside modelName": (
        PRECISE, POOL % "tokenizersCacheDir: /cache", "indexerConfig.tokenizersPoolConfig.hf.tokenizersCacheDir", "/cache",
        ["tokenizersCacheDir is an older form; write hf.tokenizersCacheDir"],
    ),
    "llm-d v0.3: huggingFaceToken beside modelName": (
        PRECISE, POOL % "huggingFaceToken: t", "indexerConfig.tokenizersPoolConfig.hf.huggingFaceToken", "t",
        ["huggingFaceToken is an older form; write hf.huggingFaceToken"],
    ),
    "llm-d v0.3 and v0.4 mixed: the newer place wins": (
        PRECISE, POOL % "tokenizersCacheDir: /old, hf: {tokenizersCacheDir: /new}",
        "indexerConfig.tokenizersPoolConfig.hf.tokenizersCacheDir", "/new", ["tokenizersCacheDir is an older form"],
    ),
    "llm-d v0.4 sample no-hit-lru: maxPrefixBlocksToMatch in the index": (
        PRECISE, "indexerConfig: {kvBlockIndexConfig: {maxPrefixBlocksToMatch: 256}, tokenizersPoolConfig: {modelName: m}}",
        "indexerConfig.kvBlockIndexConfig.maxPrefixBlocksToMatch", 256, ["maxPrefixBlocksToMatch has no effect"],
    ),
    "llm-d v0.10 sample no-hit-lru: maxPrefixTokensToMatch in the index": (
        "precise-prefix-cache-producer",
        "indexerConfig: {kvBlockIndexConfig: {maxPrefixTokensToMatch: 1}, tokenizersPoolConfig: {modelName: m}}",
        "indexerConfig.kvBlockIndexConfig.maxPrefixTokensToMatch", 1, ["maxPrefixTokensToMatch has no effect"],
    ),
    "Heimdall's guide to prefix caching: enableMetrics of the indexer": (
        PRECISE, "indexerConfig: {enableMetrics: true, tokenizersPoolConfig: {modelName: m}}",
        "indexerConfig.kvBlockIndexConfig.enableMetrics", False, ["its place is kvBlockIndexConfig.enableMetrics"],
    ),
    "llm-d's guide to speculative indexing: speculativeTTL in nanoseconds": (
        PRECISE, "speculativeIndexing: true, speculativeTTL: 2000000000, indexerConfig: {tokenizersPoolConfig: {modelName: m}}",
        "speculativeTTL", "2s", [],
    ),
    "llm-d v0.9 samples: vllm.http of token-producer": (
        "token-producer", 'modelName: m, vllm: {http: "http://a:1"}', "vllm.url", "http://a:1",
        ["http is an older name of url"],
    ),
    "llm-d before v0.9: vllmHTTP of token-producer": (
        "token-producer", 'modelName: m, vllmHTTP: {url: "http://a:1"}', "vllm.url", "http://a:1",
        ["vllmHTTP is an older name of vllm"],
    ),
    "llm-d before v0.10: backend of token-producer": (
        "token-producer", 'backend: vllm, modelName: m, vllm: {url: "http://a:1"}', "vllm.url", "http://a:1",
        ["backend has no effect"],
    ),
    "llm-d before v0.9: cacheSizeInMB of mm-embeddings-cache-producer": (
        "mm-embeddings-cache-producer", "cacheSizeInMB: 2048", "cacheSizeInMBPerServer", 2048,
        ["cacheSizeInMB is an older name of cacheSizeInMBPerServer"],
    ),
    "llm-d before v0.9: cacheSize of mm-embeddings-cache-producer": (
        "mm-embeddings-cache-producer", "cacheSize: 10000", "cacheSizeInMBPerServer", 4096, ["cacheSize has no effect"],
    ),
    "llm-d v0.9: producerName of mm-embeddings-cache-scorer": (
        "mm-embeddings-cache-scorer", "producerName: mm-embeddings-cache-producer", "producerName",
        "mm-embeddings-cache-producer", [],
    ),
    "llm-d v0.9: headerName of session-affinity-filter": (
        "session-affinity-filter", "headerName: x-sticky", "encodedEndpointHeaderConfig.header", "x-sticky",
        ["headerName is an older form"],
    ),
    "llm-d v0.9: headerName of session-affinity-scorer": (
        "session-affinity-scorer", "headerName: x-sticky", "encodedEndpointHeaderConfig.header", "x-sticky",
        ["headerName is an older form"],
    ),
    "llm-d v0.9: lasDecayFactor of program-aware-fairness": (
        "program-aware-fairness", "lasDecayFactor: 0.99", "lasHalfLifeSeconds", 60, ["lasDecayFactor has no effect"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("plugin", "parameters", "path", "value", "words"), MEANS.values(), ids=MEANS)
def test_a_parameter_of_an_earlier_version_still_works(
    plugin: str, parameters: str, path: str, value: object, words: list[str]
) -> None:
    text = document(f"{{type: {plugin}, parameters: {{{parameters}}}}}", QUEUE)
    found = said(text)
    assert {code for code, _ in found} <= {"WRN007"}
    assert len(found) == len(words)
    assert all(word in sentence for word, (_, sentence) in zip(words, found, strict=True))
    assert parameter(text, plugin, path) == value


# ── what cannot be taken over leads to what can ──

INDEX = "indexerConfig: {kvBlockIndexConfig: {}}"
LEADS = {
    "llm-d v0.2: prefix-cache-scorer in mode cache_tracking": (
        f"{{type: prefix-cache-scorer, parameters: {{mode: cache_tracking, {INDEX}}}}}",
        ["CFG053", "CFG056"], "a type of its own, precise-prefix-cache-scorer",
    ),
    "llm-d before v0.6: decider of pd-profile-handler": (
        "{type: pd-profile-handler, parameters: {decider: {name: x}}}", ["CFG053"], "name it in deciderPluginName",
    ),
    "llm-d's architecture page: threshold of disagg-profile-handler": (
        "{type: disagg-profile-handler, parameters: {threshold: 10}}", ["CFG053"], "declare a prefix-based-pd-decider",
    ),
    "llm-d-benchmark's scenario: speculativeIndexing below indexerConfig": (
        "{type: precise-prefix-cache-scorer, parameters: {indexerConfig: {speculativeIndexing: true}}}",
        ["CFG053"], "its place is speculativeIndexing",
    ),
    "both names of a parameter": (
        "{type: prefix-cache-scorer, parameters: {hashBlockSize: 64, blockSize: 32}}",
        ["CFG053"], "an older name of blockSize, which is given too",
    ),
    "a wrong value under an older name": (
        "{type: prefix-cache-scorer, parameters: {hashBlockSize: many}}", ["CFG054"], "expected an integer",
    ),
    "llm-d's sample for GPUs: data key instead of attribute, in the scorer": (
        ("{type: endpoint-attribute-scorer, parameters: {attributeKey: GPUUtilization/dcgm-extractor, "
         "algorithm: {type: linear_lower_is_better}}}"),
        ["CFG110"], "write `attributeKey: GPUUtilization` and name its producer: `producer: dcgm-extractor`",
    ),
    "llm-d's sample for GPUs: data key instead of attribute, in the filter": (
        ("{type: endpoint-attribute-filter, parameters: {attribute: GPUUtilization/dcgm-extractor, "
         "algorithm: {type: threshold, threshold: {operator: LessThan, value: 90}}}}"),
        ["CFG110"], "write `attribute: GPUUtilization` and name its producer: `producer: dcgm-extractor`",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("plugin", "codes", "words"), LEADS.values(), ids=LEADS)
def test_what_cannot_be_taken_over_leads_to_what_can(plugin: str, codes: list[str], words: str) -> None:
    errors = [(f.code, f"{f.message}; {f.fix}") for f in findings(document(plugin)) if f.severity is Severity.ERROR]
    assert sorted({code for code, _ in errors} & set(codes)) == codes
    assert any(words in sentence for code, sentence in errors if code in codes)


def test_an_error_under_an_older_name_stands_at_that_name() -> None:
    text = document("{type: prefix-cache-scorer, parameters: {hashBlockSize: many}}")
    found = next(f for f in findings(text) if f.code == "CFG054")
    assert found.path == "plugins[0].parameters.hashBlockSize"
    assert text.splitlines()[found.line - 1][found.column - 1 :].startswith("many")


def test_an_attribute_of_a_producer_written_as_the_message_says_is_valid() -> None:
    scorer = "attributeKey: GPUUtilization, producer: dcgm-extractor, algorithm: {type: linear_lower_is_better}"
    text = document("{type: dcgm-extractor}", f"{{type: endpoint-attribute-scorer, parameters: {{{scorer}}}}}")
    assert said(text) == []


# ── the precise prefix cache without a model name ──

TOKENS = "{type: token-producer, parameters: {modelName: m, vllm: {}}}"
NO_MODEL = {
    "llm-d v0.9: bare": (["{type: precise-prefix-cache-scorer}"], ["WRN025"]),
    "llm-d v0.9: with an empty pool": (
        ["{type: precise-prefix-cache-scorer, parameters: {indexerConfig: {tokenizersPoolConfig: {}}}}"],
        ["WRN025"],
    ),
    "llm-d v0.9: bare beside a producer of tokens": ([TOKENS, "{type: precise-prefix-cache-scorer}"], []),
    "llm-d v0.9: bare beside a precise producer with tokens": (
        [TOKENS, "{type: precise-prefix-cache-producer}", "{type: precise-prefix-cache-scorer}"],
        [],
    ),
    "llm-d v0.9: bare beside a precise producer without tokens": (
        ["{type: precise-prefix-cache-producer}", "{type: precise-prefix-cache-scorer}"],
        ["WRN025"],
    ),
    "a producer whose tokens would be estimated": (["{type: precise-prefix-cache-producer}"], ["WRN025"]),
    "Heimdall v0.4: a pool with the model's name": (
        ["{type: precise-prefix-cache-scorer, parameters: {indexerConfig: {tokenizersPoolConfig: {modelName: m}}}}"],
        [],
    ),
}


@pytest.mark.parametrize(("plugins", "codes"), NO_MODEL.values(), ids=NO_MODEL)
def test_the_model_name_is_asked_for_where_it_is_needed(plugins: list[str], codes: list[str]) -> None:
    assert [code for code, _ in said(document(*plugins, QUEUE))] == codes
