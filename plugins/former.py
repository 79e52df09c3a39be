"""Type names of earlier versions: the one table of them, with what each became.

They are those that releases, charts, guides and proposals of GIE (from v0.5) and llm-d (from v0.2) have used.
"""

from __future__ import annotations

from collections.abc import Mapping

from epp.framework.registry import Former

_ATTRIBUTE = "with attributeKey: GPUUtilization and producer: dcgm-extractor"
_ONE_SCORER = "it predicts, and chooses by objective or by load, in one profile"
_STAGES = "name the deciders of its stages in deciders.prefill and deciders.encode"
_NO_TREE = "scorers with weights replaced trees of filters"

FORMER: Mapping[str, Former] = {
    # GIE v0.5
    "kv-cache-scorer": Former("kv-cache-utilization-scorer"),
    "decision-tree-filter": Former("queue-scorer", f"{_NO_TREE}; see also kv-cache-utilization-scorer, lora-affinity-scorer"),
    "least-queue-filter": Former("queue-scorer", "give it a weight in the profile"),
    "least-kv-cache-filter": Former("kv-cache-utilization-scorer", "give it a weight in the profile"),
    "lora-affinity-filter": Former("lora-affinity-scorer", "give it a weight in the profile"),
    "low-queue-filter": Former("utilization-filter", "with a condition on waiting-queue; its maxValue was the threshold"),
    # GIE before v0.5
    "single-profile": Former("single-profile-handler"),
    "max-score": Former("max-score-picker"),
    "random": Former("random-picker"),
    "prefix-cache": Former("prefix-cache-scorer"),
    "low-queue": Former("utilization-filter", "with a condition on waiting-queue; its maxValue was the threshold"),
    # GIE v1.1 to v1.5
    "running-queue-size-scorer": Former("running-requests-size-scorer"),
    "slo-aware-routing": Former("predicted-latency-scorer"),
    "slo-scorer": Former("predicted-latency-scorer"),
    "pd-slo-aware-scorer": Former("predicted-latency-scorer", _ONE_SCORER),
    "slo-request-tracker": Former("predicted-latency-scorer", f"{_ONE_SCORER}, so that nothing has to track requests for it"),
    "slo-aware-profile-handler": Former("single-profile-handler", f"with a predicted-latency-scorer: {_ONE_SCORER}"),
    "noop-parser": Former("passthrough-parser"),
    "cost-reporter": Former("request-attribute-reporter", "its attributes have a key and an expression each"),
    "metric-scorer": Former("endpoint-attribute-scorer", "with attributeKey for the metric's attribute"),
    "prometheus-metric": Former("core-metrics-extractor", "with customMetrics in an entry of engineConfigs"),
    "eviction-sheddable-filter": Former("sheddable-eviction-filter"),
    "eviction-priority-then-time-ordering": Former("priority-then-time-eviction-order-policy"),
    # llm-d and Heimdall
    "prefill-header-handler": Former("disagg-headers-handler"),
    "encode-header-handler": Former("disagg-headers-handler"),
    "encoder-header-handler": Former("disagg-headers-handler"),
    "always-encode-decider": Former("always-disagg-multimodal-decider"),
    "always-disagg-encode-decider": Former("always-disagg-multimodal-decider"),
    "ed-profile-handler": Former("disagg-profile-handler", _STAGES),
    "e-pd-profile-handler": Former("disagg-profile-handler", _STAGES),
    "epd-profile-handler": Former("disagg-profile-handler", _STAGES),
    "header-phase-profile-handler": Former("header-profile-handler"),
    "multimodal-encoder-producer": Former("mm-embeddings-cache-producer"),
    "multimodal-encoder-cache-data-producer": Former("mm-embeddings-cache-producer"),
    "mm-cache-affinity-scorer": Former("mm-embeddings-cache-scorer"),
    "gpu-utilization-filter": Former("endpoint-attribute-filter", _ATTRIBUTE.replace("attributeKey", "attribute")),
    "gpu-utilization-scorer": Former("endpoint-attribute-scorer", _ATTRIBUTE),
    "disagg-rollout-screener": Former("disaggregatedset-rollout-screener"),
    "responses-store-parser": Former("openai-parser"),
}
"""Name of an earlier version → what to use today."""
