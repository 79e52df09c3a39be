"""Parameters of the types that are not built: what loads, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

import plugins
from epp.framework.params import references
from epp.framework.registry import Registry

REGISTRY = Registry(plugins.plugin_types())

REDIS = {"address": "redis://store:6379"}
POOL = {"tokenizersPoolConfig": {"modelName": "m"}}
CONDITION = {"metric": "waiting-queue", "maxValue": 5}
RANGE_BELOW = {"type": "threshold", "threshold": {"operator": "LessThan", "value": 1}}


def decode(type_name: str, parameters: dict[str, Any]) -> Any:
    plugin_type = REGISTRY.get(type_name)
    assert plugin_type is not None
    return plugin_type.params.decode(parameters)


def case(type_name: str, parameters: dict[str, Any], *words: str, name: str) -> Any:
    return pytest.param(type_name, parameters, words, id=f"{type_name}: {name}")


@pytest.mark.parametrize(
    ("type_name", "parameters", "words"),
    [
        case("pd-profile-handler", {"threshold": -1}, "threshold", "greater than or equal to 0", name="threshold"),
        case("pd-profile-handler", {"hashBlockSize": 0}, "hashBlockSize", "greater than 0", name="block size"),
        case("pd-profile-handler", {"primaryPort": 70000}, "primaryPort", "65535", name="port"),
        case(
            "pd-profile-handler",
            {"deciderPluginName": "d", "threshold": 10},
            "deciderPluginName and threshold exclude each other",
            name="two generations",
        ),
        case(
            "disagg-profile-handler",
            {"profiles": {"decode": "d"}, "prefillProfile": "p"},
            "profiles and prefillProfile belong to two forms",
            name="two forms",
        ),
        case("disagg-profile-handler", {"stageOrder": "encode"}, "'encode' is not a stage order", name="stage order"),
        case(
            "disagg-profile-handler",
            {"stageOrder": "prefill-first", "deciders": {"prefill": "d"}},
            "excludes a prefill decider",
            name="prefill first with a decider",
        ),
        case("data-parallel-profile-handler", {"primaryPort": -1}, "primaryPort", name="port"),
        case("prefix-based-pd-decider", {"nonCachedTokens": -1}, "nonCachedTokens", name="tokens"),
        case("context-length-aware", {"label": ""}, "label", "at least 1 character", name="empty label"),
        case("prefix-cache-scorer", {"blockSize": -1}, "blockSize", name="block size"),
        case("prefix-cache-scorer", {"blockSizeTokens": -1}, "blockSizeTokens", "equal to 0", name="prefix 28: tokens"),
        case("prefix-cache-scorer", {"blokSize": 64}, "blokSize", "Extra inputs", name="prefix 28: misspelt"),
        case("prefix-cache-scorer", {"matchLengthWeight": 1.5}, "matchLengthWeight", name="weight"),
        case(
            "prefix-cache-scorer",
            {"matchLengthWeight": 0.5, "matchLengthScaleTokens": 0},
            "matchLengthScaleTokens must be > 0",
            name="scale",
        ),
        case(
            "precise-prefix-cache-scorer",
            {"indexerConfig": {**POOL, "kvBlockIndexConfig": {"inMemoryConfig": {}, "redisConfig": {}}}},
            "only one back end, given are inMemoryConfig and redisConfig",
            name="prefix 90: a back end beside the one in memory",
        ),
        case(
            "precise-prefix-cache-scorer",
            {"indexerConfig": {**POOL, "kvBlockIndexConfig": {"redisConfig": {}, "valkeyConfig": {}}}},
            "only one back end, given are redisConfig and valkeyConfig",
            name="prefix 90: two back ends",
        ),
        case(
            "precise-prefix-cache-scorer",
            {"indexerConfig": {**POOL, "kvBlockIndexConfig": {"inMemoryConfig": {"size": 0}}}},
            "inMemoryConfig.size",
            "greater than 0",
            name="prefix 91: no keys",
        ),
        case(
            "precise-prefix-cache-scorer",
            {"indexerConfig": {**POOL, "kvBlockIndexConfig": {"costAwareMemoryConfig": {"size": "lots"}}}},
            "'lots' is not a size",
            name="prefix 91: size",
        ),
        case(
            "precise-prefix-cache-scorer",
            {"indexerConfig": POOL, "kvEventsConfig": {"zmqEndpoint": "http://x"}},
            "'http://x' is not a ZMQ endpoint",
            name="event socket",
        ),
        case(
            "precise-prefix-cache-scorer",
            {"indexerConfig": POOL, "speculativeIndexing": True, "speculativeTTL": "soon"},
            "speculativeTTL",
            name="speculation",
        ),
        case("tokenizer", {}, "modelName", "Field required", name="no model"),
        case("token-producer", {"vllm": {}}, "modelName is required with vllm", name="service without model"),
        case(
            "token-producer",
            {"modelName": "m", "vllm": {}, "estimate": {}},
            "at most one back end is allowed, given are vllm and estimate",
            name="two back ends",
        ),
        case("responses-store", {"storeConfig": {}}, "needs inMemoryConfig or tieredConfig", name="no back end"),
        case("responses-store", {"storeConfig": {"tieredConfig": {}}}, "tieredConfig needs redis", name="no redis"),
        case(
            "responses-store",
            {"storeConfig": {"tieredConfig": {"redis": {**REDIS, "addresses": ["a:1"]}}}},
            "exactly one of address and addresses",
            name="address twice",
        ),
        case(
            "responses-store",
            {"storeConfig": {"tieredConfig": {"redis": {**REDIS, "masterName": "m"}}}},
            "masterName needs addresses",
            name="sentinel without addresses",
        ),
        case(
            "responses-store",
            {"storeConfig": {"tieredConfig": {"redis": REDIS, "mongo": {}}}},
            "mongo.uri",
            "Field required",
            name="mongo without uri",
        ),
        case("responses-store", {"storeConfig": {"inMemoryConfig": {"ttl": 24}}}, "not a duration", name="ttl as a number"),
        case("predicted-latency-scorer", {"samplingMean": 0}, "samplingMean", name="sampling mean"),
        case("predicted-latency-scorer", {"selectionMode": "best"}, "'linear' or 'max'", name="selection mode"),
        case("predicted-latency-scorer", {"affinityGateTau": 1.1}, "affinityGateTau", name="affinity gate"),
        case(
            "endpoint-attribute-filter",
            {"attribute": "a/b", "algorithm": RANGE_BELOW},
            "endpoint-attribute-filter reads the attribute 'a/b'",
            name="attribute of nobody",
        ),
        case(
            "endpoint-attribute-scorer",
            {
                "attributeKey": "a",
                "algorithm": {"type": "linear_lower_is_better", "normalization": {"fixedRange": {"min": 2, "max": 1}}},
            },
            "min must be below max, they are 2 and 1",
            name="empty range",
        ),
        case("utilization-filter", {"conditions": []}, "conditions", name="no condition"),
        case(
            "utilization-filter",
            {"conditions": [{"metric": "kv-cache-utilization", "maxValue": 80}]},
            "at most 1; it is 80",
            name="percent instead of fraction",
        ),
        case("prefix-cache-affinity-filter", {"affinityThreshold": 1.5}, "affinityThreshold", name="threshold"),
        case("prefix-cache-affinity-filter", {"peakPrefillThroughput": 0}, "must be > 0 while", name="throughput"),
        case("session-id-producer", {}, "exactly one of headerName and cookieName", name="nothing given"),
        case("session-id-producer", {"headerName": "a", "cookieName": "b"}, "exactly one", name="both given"),
        case("burst-prefix-cache-producer", {"windowDurationMs": 0}, "windowDurationMs", name="window"),
        case("burst-prefix-cache-producer", {"maxBatchSize": 0}, "at least 1, or -1 for no limit", name="batch size"),
        case("request-attribute-reporter", {}, "attributes", "Field required", name="no attributes"),
        case("probabilistic-admitter", {"power": 0}, "power", name="power"),
        case("utilization-detector", {"kvCacheUtilThreshold": 1.5}, "kvCacheUtilThreshold", name="threshold"),
        case("running-requests-detector", {"maxConcurrencyPerPod": 0}, "maxConcurrencyPerPod", name="concurrency"),
        case("priority-holdback-policy", {}, "minCeiling", "Field required", name="flow 76: no ceiling"),
        case(
            "priority-holdback-policy",
            {"minCeiling": 0.9, "maxCeiling": 0.9},
            "minCeiling must be below maxCeiling, they are 0.9 and 0.9",
            name="flow 76: equal ceilings",
        ),
        case("priority-holdback-policy", {"minCeiling": 0.5, "shape": "sigmoid"}, "shape", name="flow 76: shape"),
        case(
            "priority-holdback-policy",
            {"minCeiling": 0.9, "maxCeiling": 0.5},
            "minCeiling must be below maxCeiling, they are 0.9 and 0.5",
            name="ceilings swapped",
        ),
        case("soft-reflective-ceiling-policy", {"x": 1}, "x", name="takes nothing"),
        case("models-data-source", {"scheme": "ftp"}, "'http' or 'https'", name="scheme"),
        case("models-data-source", {"clientKeyPath": "k"}, "must be given together", name="key without certificate"),
        case("dcgm-data-source", {"interval": "-1s"}, "'-1s' is not positive", name="interval"),
        case("k8s-notification-source", {"version": "v1"}, "kind", "Field required", name="no kind"),
        case(
            "session-affinity-scorer",
            {"sessionIdConfig": {"sources": [{"header": "a", "attribute": "b"}]}},
            "exactly one of header and attribute",
            name="two sources in one",
        ),
        case("session-affinity-scorer", {"sessionIdConfig": {"evictionTtlSeconds": 0}}, "evictionTtlSeconds", name="ttl"),
        case("disaggregatedset-rollout-screener", {}, "revisionGating.mode", "Field required", name="no mode"),
        case("max-score-picker", {"maxNumOfEndpoint": 2}, "maxNumOfEndpoint", "Extra inputs", name="misspelt"),
        case("max-score-picker", {"maxNumOfEndpoints": "two"}, "valid integer", name="text instead of a number"),
        case("max-score-picker", {"maxNumOfEndpoints": True}, "valid integer", name="true instead of a number"),
    ],
)
def test_refused(type_name: str, parameters: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as failure:
        decode(type_name, parameters)
    for word in words:
        assert word in str(failure.value)


@pytest.mark.parametrize(
    ("type_name", "parameters"),
    [
        ("pd-profile-handler", {"decodeProfile": "gen", "threshold": 256, "hashBlockSize": 64, "primaryPort": 8000}),
        ("pd-profile-handler", {"deciderPluginName": "d"}),
        ("disagg-profile-handler", {"profiles": {"decode": "d"}, "deciders": {"prefill": "x"}, "stageOrder": "Decode_First"}),
        ("disagg-profile-handler", {"decodeProfile": "d", "deciderPluginName": "x", "prefillDeciderPluginName": "y"}),
        ("prefix-cache-scorer", {"autoTune": False, "blockSize": 64, "lruCapacityPerServer": 31250}),
        ("prefix-cache-scorer", {"matchLengthWeight": 0.25, "matchLengthScaleTokens": 8192}),
        ("no-hit-lru-scorer", {"prefixPluginType": "precise-prefix-cache-scorer", "lruSize": 0}),
        (
            "precise-prefix-cache-scorer",
            {
                "tokenProcessorConfig": {"blockSize": 16, "hashSeed": "42"},
                "indexerConfig": {
                    "kvBlockIndexConfig": {
                        "inMemoryConfig": {"size": 1e8, "podCacheSize": 10},
                        "enableMetrics": True,
                        "metricsLoggingInterval": 60_000_000_000,
                    },
                    "tokenizersPoolConfig": {"modelName": "m", "uds": {"socketFile": "/run/t.socket", "useTCP": False}},
                },
                "kvEventsConfig": {"zmqEndpoint": "tcp://0.0.0.0:5557", "concurrency": 4, "discoverPods": False},
            },
        ),
        ("precise-prefix-cache-producer", {}),
        ("token-producer", {}),
        ("tokenizer", {"modelName": "m", "udsTokenizerConfig": {"socketFile": "/run/t.socket"}}),
        ("responses-store", {}),
        ("responses-store", {"storeConfig": {"inMemoryConfig": {"ttl": "1h", "maxEntries": 500}}}),
        ("responses-store", {"storeConfig": {"tieredConfig": {"redis": {"addresses": ["a:1", "b:1"], "masterName": "m"}}}}),
        ("predicted-latency-scorer", {"contextTTL": 300_000_000_000, "compositeKVWeight": 2}),
        ("predicted-latency-scorer", {"contextTTL": "5m", "headroomTTFTWeight": 0.5}),
        ("endpoint-attribute-filter", {"attribute": "a/b", "producer": "p", "algorithm": RANGE_BELOW}),
        ("utilization-filter", {"conditions": [CONDITION]}),
        ("utilization-detector", {"kvCacheUtilThreshold": 1.0, "headroom": 2}),
        ("priority-holdback-policy", {"minCeiling": 0.5}),
        ("context-length-aware", {"enableFiltering": True}),
        (
            "disaggregatedset-rollout-screener",
            {
                "scope": {"labelSelector": "disaggregatedset.x-k8s.io/name=x"},
                "headerSelectors": [{"name": "role", "headerName": "x-role", "labelKey": "example.com/role", "mode": "prefer"}],
                "revisionGating": {"mode": "max-role", "requireRoles": {"values": ["prefill", "decode"]}},
            },
        ),
        ("models-data-source", {"scheme": "https", "path": "/v1/models", "insecureSkipVerify": True, "interval": "5s"}),
    ],
)
def test_accepted(type_name: str, parameters: dict[str, Any]) -> None:
    decoded = decode(type_name, parameters)
    assert decoded.model_dump(by_alias=True, exclude_unset=True).keys() >= parameters.keys()


def test_units() -> None:
    assert decode("predicted-latency-scorer", {"contextTTL": 300_000_000_000}).context_ttl == 300.0
    assert (
        decode("responses-store", {"storeConfig": {"inMemoryConfig": {"ttl": "1h"}}}).store_config.in_memory_config.ttl
        == 3600.0
    )


def test_prefix_91_keys_in_scientific_notation() -> None:
    section = {"inMemoryConfig": {"size": 1e8}}
    index = decode("precise-prefix-cache-scorer", {"indexerConfig": {**POOL, "kvBlockIndexConfig": section}})
    assert index.indexer_config.kv_block_index_config.in_memory_config.size == 100_000_000


@pytest.mark.parametrize("interval", ["10s", 10_000_000_000], ids=["prefix 92: a duration", "prefix 92: nanoseconds"])
def test_the_interval_of_an_index_s_log(interval: object) -> None:
    section = {"metricsLoggingInterval": interval}
    index = decode("precise-prefix-cache-scorer", {"indexerConfig": {**POOL, "kvBlockIndexConfig": section}})
    assert index.indexer_config.kv_block_index_config.metrics_logging_interval == 10.0


@pytest.mark.parametrize(
    ("type_name", "parameters", "expected"),
    [
        pytest.param(
            "pd-profile-handler",
            {},
            {"decodeProfile": "decode", "prefillProfile": "prefill", "deciderPluginName": "prefix-based-pd-decider"},
            id="pd: defaults",
        ),
        pytest.param(
            "pd-profile-handler",
            {"prefillProfile": "p", "prefixPluginName": "x", "deciderPluginName": "y"},
            {"decodeProfile": "decode", "prefillProfile": "p", "prefixPluginName": "x", "deciderPluginName": "y"},
            id="pd: what is written",
        ),
        pytest.param(
            "disagg-profile-handler",
            {"deciders": {"prefill": "x"}, "profiles": {"encode": "e"}},
            {"profiles.decode": "decode", "profiles.prefill": "prefill", "profiles.encode": "e", "deciders.prefill": "x"},
            id="disagg: nested",
        ),
        pytest.param(
            "disagg-profile-handler",
            {"decodeProfile": "d", "deciderPluginName": "x"},
            {"profiles.prefill": "prefill", "profiles.encode": "encode", "decodeProfile": "d", "deciderPluginName": "x"},
            id="disagg: flat",
        ),
        pytest.param(
            "disagg-headers-handler",
            {},
            {"prefillProfile": "prefill", "encodeProfile": "encode"},
            id="headers: defaults",
        ),
        pytest.param(
            "session-affinity-scorer",
            {"sessionIdConfig": {"sources": [{"attribute": "SessionID", "producer": "p"}]}},
            {"sessionIdConfig.sources.0.producer": "p"},
            id="in a list",
        ),
    ],
)
def test_references(type_name: str, parameters: dict[str, Any], expected: dict[str, str]) -> None:
    assert {".".join(use.path): use.value for use in references(decode(type_name, parameters))} == expected
